import { createSignal } from "solid-js";
import { render } from "solid-js/web";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { TALLEST } from "../../renderer/src/components/scrolling";
import { type Column, VirtualTable, type VirtualTableProps } from "../../renderer/src/components/virtual-table";

const VIEW = 600;
const ROW = 28; // 1.75rem of 16 pixels
const MILLION = 1_000_000;

let dispose = (): void => undefined;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal(
    "ResizeObserver",
    class {
      readonly #told: () => void;
      constructor(told: () => void) {
        this.#told = told;
      }
      observe(): void {
        this.#told();
      }
      disconnect(): void {
        // There is nothing to end.
      }
    },
  );
  // jsdom lays nothing out: every element is as high as the table.
  vi.spyOn(HTMLElement.prototype, "clientHeight", "get").mockReturnValue(VIEW + 1.125 * ROW);
});
afterEach(() => {
  dispose();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const COLUMNS: readonly Column[] = [
  { id: "row", title: "Row", text: (row) => `row ${row}`, value: (row) => row, align: "end" },
  { id: "half", title: "Half", text: (row) => String(row % 2), value: (row) => row % 2 },
];

function shown(props: Partial<VirtualTableProps> & { readonly rows: number }): HTMLElement {
  const root = document.createElement("div");
  document.body.append(root);
  const end = render(() => <VirtualTable label="Rows" columns={COLUMNS} {...props} />, root);
  dispose = () => {
    end();
    root.remove();
  };
  return root.querySelector(".table") as HTMLElement;
}

function texts(table: HTMLElement): string[] {
  return [...table.querySelectorAll(".table-rows .table-row")].map((row) => row.firstElementChild?.textContent ?? "");
}

/** The rows that lie wholly or in part within the view. */
function inSight(table: HTMLElement): string[] {
  const top = Number(
    /translateY\((.*)px\)/.exec((table.querySelector(".table-rows") as HTMLElement).style.transform)?.[1],
  );
  return texts(table).filter((_, at) => {
    const y = top + at * ROW - table.scrollTop;
    return y + ROW > 0.5 && y < VIEW - 0.5;
  });
}

function scroll(table: HTMLElement, top: number): void {
  table.scrollTop = top;
  table.dispatchEvent(new Event("scroll"));
}

function press(table: HTMLElement, key: string): void {
  table.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
}

test("of a million rows some dozens are drawn, and both ends are reached", () => {
  const table = shown({ rows: MILLION });
  expect(table.getAttribute("aria-rowcount")).toBe("1000001");
  expect(texts(table).length).toBeLessThan(60);
  expect(inSight(table)[0]).toBe("row 0");
  scroll(table, TALLEST - VIEW);
  expect(inSight(table).at(-1)).toBe("row 999999");
  expect(texts(table).length).toBeLessThan(60);
});

test("a turn of the wheel moves a million rows as it moves few", () => {
  const table = shown({ rows: MILLION });
  scroll(table, (TALLEST - VIEW) / 2);
  vi.advanceTimersByTime(200);
  const first = (): number => Number(inSight(table)[0]?.slice(4));
  const before = first();
  scroll(table, table.scrollTop + 100);
  expect(first() - before).toBeGreaterThanOrEqual(3);
  expect(first() - before).toBeLessThanOrEqual(4);
  const rested = first();
  vi.advanceTimersByTime(200); // the bar is put to where the rows are, and the rows stay
  table.dispatchEvent(new Event("scroll"));
  expect(first()).toBe(rested);
});

test("keys move, choose and open rows, and keep them in sight", () => {
  const [selected, setSelected] = createSignal<number>();
  const [opened, toggled] = [[] as number[], [] as number[]];
  const table = shown({
    rows: MILLION,
    get selected() {
      return selected();
    },
    onSelect: (row) => setSelected(row),
    onActivate: (row) => opened.push(row),
    onToggle: (row) => toggled.push(row),
  });
  press(table, "ArrowDown");
  press(table, "ArrowDown");
  expect(selected()).toBe(1);
  press(table, "End");
  expect([selected(), inSight(table).at(-1)]).toEqual([MILLION - 1, "row 999999"]);
  press(table, "Enter");
  press(table, " ");
  expect([opened, toggled]).toEqual([[MILLION - 1], [MILLION - 1]]);
  press(table, "Home");
  expect([selected(), inSight(table)[0]]).toEqual([0, "row 0"]);
  setSelected(500_000);
  expect(inSight(table)).toContain("row 500000");
  const marked = table.querySelector("[aria-selected='true']");
  expect(marked?.firstElementChild?.textContent).toBe("row 500000");
  expect(table.getAttribute("aria-activedescendant")).toBe(marked?.id);
});

test("a click on a title sorts, a second one turns it round, and equal rows stay in order", () => {
  const table = shown({ rows: 10 });
  const [row, half] = [...table.querySelectorAll<HTMLButtonElement>(".table-sort")];
  row?.click();
  expect(texts(table)[0]).toBe("row 9"); // numbers begin with the largest
  half?.click();
  expect(texts(table)).toEqual([0, 2, 4, 6, 8, 1, 3, 5, 7, 9].map((one) => `row ${one}`));
  half?.click();
  expect(texts(table)).toEqual([1, 3, 5, 7, 9, 0, 2, 4, 6, 8].map((one) => `row ${one}`));
  const sorted = [...table.querySelectorAll("[role=columnheader]")].map((one) => one.getAttribute("aria-sort"));
  expect(sorted).toEqual(["none", "descending"]);
});

test("only the shown rows are there, and fewer of them leave no empty stripe", () => {
  const [some, setSome] = createSignal<Uint32Array>();
  const table = shown({
    rows: 1_000,
    get shown() {
      return some();
    },
  });
  scroll(table, 20_000);
  setSome(Uint32Array.of(3, 5, 8));
  table.scrollTop = 0; // as browsers do where the content has become lower
  expect(inSight(table)).toEqual(["row 3", "row 5", "row 8"]);
});
