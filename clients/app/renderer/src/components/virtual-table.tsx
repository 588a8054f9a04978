import {
  createEffect,
  createMemo,
  createSignal,
  createUniqueId,
  For,
  type JSX,
  on,
  onCleanup,
  onMount,
  Show,
} from "solid-js";
import { Definition } from "./definition";
import { contentHeight, offsetOf, revealed, type Sight, scrollTopOf, sight } from "./scrolling";
import { type SortValue, sortedRows } from "./sorting";
import "./virtual-table.css";

export interface Column {
  readonly id: string;
  readonly title: string;
  /** Makes the title visible to screen readers only. */
  readonly hideTitle?: boolean | undefined;
  /** The meaning of the column, shown as a definition of its title. */
  readonly definition?: string | undefined;
  /** A track of a CSS grid whose size does not depend on content, such as `8rem` or `minmax(8rem, 2fr)`. */
  readonly width?: string | undefined;
  readonly align?: "start" | "end" | undefined;
  /** The text of a row's cell. Rows are numbers from 0 in the order of the data, however the table is sorted. */
  text(row: number): string;
  /** Draws the cell in place of its text. */
  readonly render?: ((row: number) => JSX.Element) | undefined;
  /** The value that rows are sorted by; without it the column cannot be sorted by. */
  readonly value?: ((row: number) => SortValue) | undefined;
  /** The class of a cell, such as `gain`. */
  readonly class?: ((row: number) => string) | undefined;
}

export interface Sort {
  readonly column: string;
  readonly descending: boolean;
}

export interface VirtualTableProps {
  readonly label: string;
  /** The number of rows. */
  readonly rows: number;
  readonly columns: readonly Column[];
  /** The rows to show, as their numbers; all without it. */
  readonly shown?: Uint32Array | undefined;
  /** Changes whenever values of rows have changed, so that the table is sorted again. */
  readonly revision?: unknown;
  readonly initialSort?: Sort | undefined;
  /** Called when another order is wanted; rows then come in that order, and are not sorted here. */
  readonly onSort?: ((sort: Sort) => void) | undefined;
  /** The row that is marked, and kept in sight when it changes. */
  readonly selected?: number | undefined;
  /** Called when a row was clicked or reached by the arrow keys. */
  readonly onSelect?: ((row: number) => void) | undefined;
  /** Called on Enter and on a double click. */
  readonly onActivate?: ((row: number) => void) | undefined;
  /** Called on Space, as for a check box of the row. */
  readonly onToggle?: ((row: number) => void) | undefined;
  /** Called with the rows in their present order, for exports of what is seen. */
  readonly onOrder?: ((rows: Uint32Array) => void) | undefined;
  /** The rows that are in sight at most, 20 without it; a table of fewer is lower. */
  readonly visibleRows?: number | undefined;
  /** Fills the height of its parent instead. */
  readonly fill?: boolean | undefined;
  /** The class of a row. */
  readonly rowClass?: ((row: number) => string) | undefined;
}

/** The track of a column without a width. */
const TRACK = "minmax(6rem, 1fr)";
const ROW_REM = 1.75;
/** Milliseconds of rest after which the scroll bar is put to where the rows are. */
const SETTLED_MS = 150;

/** A table that draws only the rows in sight: a million rows scroll as few do. */
export function VirtualTable(props: VirtualTableProps): JSX.Element {
  const id = createUniqueId();
  const rowHeight = ROW_REM * Number.parseFloat(getComputedStyle(document.documentElement).fontSize || "16");
  let scroller: HTMLDivElement | undefined;
  const [sort, setSort] = createSignal<Sort | undefined>(props.initialSort);
  const [viewHeight, setViewHeight] = createSignal(10 * rowHeight);
  const [offset, setOffset] = createSignal(0);
  const [scrollTop, setScrollTop] = createSignal(0);
  const [active, setActive] = createSignal<number>(); // a place in the order

  const order = createMemo((): Uint32Array => {
    const rows = props.shown ?? allRows(props.rows);
    void props.revision;
    const by = sort();
    const column = by === undefined || props.onSort ? undefined : props.columns.find((one) => one.id === by.column);
    const sorted = column?.value === undefined ? rows : sortedRows(rows, column.value, by?.descending === true);
    props.onOrder?.(sorted);
    return sorted;
  });
  const count = (): number => order().length;
  const seen = createMemo<Sight>(() => {
    const furthest = Math.max(0, count() * rowHeight - viewHeight());
    const lowest = Math.max(0, contentHeight(count(), rowHeight) - viewHeight());
    return sight(Math.min(offset(), furthest), Math.min(scrollTop(), lowest), count(), rowHeight, viewHeight());
  });
  const drawn = createMemo(() => Array.from(order().subarray(seen().first, seen().end)));
  const places = createMemo(() => new Map(drawn().map((row, at) => [row, seen().first + at])));

  let settle: ReturnType<typeof setTimeout> | undefined;
  let placed = -1; // a scroll position that this table has set itself
  function scrolled(): void {
    if (scroller === undefined) return;
    const now = scroller.scrollTop;
    if (Math.abs(now - placed) < 1) {
      placed = -1;
      return;
    }
    const all = count() * rowHeight;
    const moved = now - scrollTop();
    const isShort = contentHeight(count(), rowHeight) === all;
    // Where the bar stands for more than its pixels, a small movement is one of the rows and not of the bar.
    if (isShort || Math.abs(moved) > 2 * viewHeight()) setOffset(offsetOf(now, count(), rowHeight, viewHeight()));
    else setOffset(Math.max(0, Math.min(all - viewHeight(), offset() + moved)));
    setScrollTop(now);
    if (isShort) return;
    clearTimeout(settle);
    settle = setTimeout(() => goTo(offset()), SETTLED_MS);
  }
  function goTo(next: number): void {
    const top = scrollTopOf(next, count(), rowHeight, viewHeight());
    setOffset(next);
    setScrollTop(top);
    if (scroller !== undefined && Math.abs(scroller.scrollTop - top) >= 1) {
      placed = top;
      scroller.scrollTop = top;
    }
  }
  function reveal(place: number): void {
    const next = revealed(place, offset(), rowHeight, viewHeight());
    if (next !== offset()) goTo(next);
  }
  function choose(place: number): void {
    const row = order()[place];
    if (row === undefined) return;
    setActive(place);
    reveal(place);
    props.onSelect?.(row);
  }
  function keyed(event: KeyboardEvent): void {
    if (event.target !== scroller) return; // a button in a cell has keys of its own
    const page = Math.max(1, Math.floor(viewHeight() / rowHeight) - 1);
    const at = active() ?? -1;
    const next = {
      ArrowDown: at + 1,
      ArrowUp: at < 0 ? 0 : at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: count() - 1,
    }[event.key];
    const row = order()[at];
    if (next !== undefined) choose(Math.max(0, Math.min(count() - 1, next)));
    else if (event.key === "Enter" && row !== undefined && props.onActivate) props.onActivate(row);
    else if (event.key === " " && row !== undefined && props.onToggle) props.onToggle(row);
    else return;
    event.preventDefault();
  }
  function sortBy(column: Column): void {
    const by = sort();
    if (by?.column !== column.id) setSort({ column: column.id, descending: column.align === "end" });
    else setSort({ column: column.id, descending: !by.descending });
    props.onSort?.(sort() as Sort);
    goTo(0);
  }
  const sorting = (column: Column): "ascending" | "descending" | "none" => {
    const by = sort();
    if (by?.column !== column.id) return "none";
    return by.descending ? "descending" : "ascending";
  };
  const rowClass = (row: number): string =>
    [
      "table-row",
      props.rowClass?.(row),
      places().get(row) === active() && active() !== undefined ? "active" : "",
      props.selected === row ? "selected" : "",
    ].join(" ");
  const tracks = (): string => props.columns.map((one) => one.width ?? TRACK).join(" ");

  onMount(() => {
    const watch = new ResizeObserver(() => {
      if (scroller === undefined) return;
      setViewHeight(Math.max(rowHeight, scroller.clientHeight - 1.125 * rowHeight));
    });
    if (scroller !== undefined) watch.observe(scroller);
    onCleanup(() => watch.disconnect());
  });
  onCleanup(() => clearTimeout(settle));
  createEffect(
    on(
      () => props.selected,
      (row) => {
        if (row === undefined) return;
        const place = order().indexOf(row);
        if (place < 0) return;
        setActive(place);
        reveal(place);
      },
    ),
  );

  return (
    <div
      ref={scroller}
      class="table"
      classList={{ fill: props.fill === true }}
      role="grid"
      aria-label={props.label}
      aria-rowcount={count() + 1}
      aria-colcount={props.columns.length}
      aria-activedescendant={active() === undefined ? undefined : `${id}-${order()[active() ?? 0]}`}
      tabindex={0}
      style={{
        "--columns": tracks(),
        "--least": leastWidth(props.columns),
        "--visible": String(1.15 + Math.max(1, Math.min(count(), props.visibleRows ?? 20))),
      }}
      onScroll={scrolled}
      onKeyDown={keyed}
    >
      <div class="table-row table-head" role="row" aria-rowindex={1}>
        <For each={props.columns}>
          {(column) => (
            <div
              class="table-cell"
              classList={{ end: column.align === "end" }}
              role="columnheader"
              aria-sort={column.value === undefined ? undefined : sorting(column)}
            >
              <Show
                when={column.value !== undefined}
                fallback={
                  <Show
                    when={column.definition}
                    fallback={<span classList={{ "visually-hidden": column.hideTitle === true }}>{column.title}</span>}
                  >
                    <Definition term={column.title}>{column.definition}</Definition>
                  </Show>
                }
              >
                <button type="button" class="table-sort" title={column.definition} onClick={() => sortBy(column)}>
                  {column.title}
                  <span class="table-arrow" aria-hidden="true">
                    {{ ascending: "▲", descending: "▼", none: "" }[sorting(column)]}
                  </span>
                </button>
              </Show>
            </div>
          )}
        </For>
      </div>
      <div class="table-body" role="rowgroup" style={{ height: `${contentHeight(count(), rowHeight)}px` }}>
        <div class="table-rows" role="presentation" style={{ transform: `translateY(${seen().top}px)` }}>
          <For each={drawn()}>
            {(row) => (
              <div
                id={`${id}-${row}`}
                class={rowClass(row)}
                role="row"
                aria-rowindex={(places().get(row) ?? 0) + 2}
                aria-selected={props.selected === row}
                onClick={() => choose(places().get(row) ?? -1)}
                onDblClick={() => props.onActivate?.(row)}
              >
                <For each={props.columns}>
                  {(column) => (
                    <div
                      class={`table-cell ${column.align ?? ""} ${column.class?.(row) ?? ""}`}
                      role="gridcell"
                      title={column.text(row)}
                    >
                      {column.render === undefined ? column.text(row) : column.render(row)}
                    </div>
                  )}
                </For>
              </div>
            )}
          </For>
        </div>
      </div>
    </div>
  );
}

function allRows(count: number): Uint32Array {
  const rows = new Uint32Array(count);
  for (let row = 0; row < count; row += 1) rows[row] = row;
  return rows;
}

/** The width below which a row is scrolled sideways: the sum of the least widths of its tracks. */
function leastWidth(columns: readonly Column[]): string {
  const widths = columns.map(({ width = TRACK }) => /^minmax\(([^,]+),/.exec(width)?.[1] ?? width);
  return `calc(${widths.join(" + ")})`;
}
