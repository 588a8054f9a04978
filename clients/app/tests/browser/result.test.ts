/** The screen of a result: its charts, figures with definitions, trades joined to fills, files. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { expect } from "vitest";
import { PYTHON } from "../../../typescript/tests/support/broker";
import { settled, sharedClient, test } from "./support/app";

let made: Promise<string> | undefined;

/** The id of a result with many trades, one for all tests here. */
async function crossed(): Promise<string> {
  made ??= (async () => {
    const client = await sharedClient();
    const run = await client.backtest({
      algorithm: "sma_cross",
      symbol: "SYNTH",
      timeframe: "1m",
      start: "2024-01-01",
      end: "2024-01-31",
      parameters: { fast: 10, slow: 40 },
      commission: 0.0001,
    });
    await run.wait();
    return run.id;
  })();
  return made;
}

async function downloaded(page: Page, button: string): Promise<{ name: string; bytes: Buffer }> {
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: button, exact: true }).click(),
  ]);
  const folder = mkdtempSync(join(tmpdir(), "bt-saved-"));
  try {
    const file = join(folder, "file");
    await download.saveAs(file);
    return { name: download.suggestedFilename(), bytes: readFileSync(file) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Returns what the legend of a chart says. */
function legend(page: Page, chart: string): Promise<string> {
  return page.getByTestId(chart).locator(".chart-legend").innerText();
}

test("figures are the broker's, with definition, formula and source on focus", async ({ open, client }) => {
  const id = await crossed();
  const metrics = await client.metrics(id);
  const page = await open(`#/runs/${id}`);
  await page.getByTestId("key-figures").waitFor();
  await settled(page);
  const sharpe = page.getByTestId("metrics").getByTestId("metric-sharpeRatio");
  await expect.poll(() => sharpe.locator("dd").innerText()).toBe(metrics?.sharpeRatio?.toFixed(3).replace("-", "−"));
  await page.keyboard.press("Tab"); // the pointer is not used: what follows is shown by focus
  await sharpe.getByRole("button").focus();
  await sharpe.getByText("mean(r − f) / σ(r − f) · √A (Sharpe 1994).").waitFor({ state: "visible" });
  await sharpe.getByText("Source: Sharpe 1994, The Sharpe Ratio").waitFor({ state: "visible" });
  await page.getByTestId("verdicts").getByText("Figures per year take").waitFor();
});

test("a metric without a value says why", async ({ open, client }) => {
  const run = await client.backtest({ algorithm: "buy_and_hold", symbol: "SYNTH", timeframe: "1h" });
  await run.wait();
  const page = await open(`#/runs/${run.id}`);
  await page
    .getByTestId("metrics")
    .getByTestId("metric-winRate")
    .getByText("there is no closed trade.")
    .last()
    .waitFor();
  await page.getByTestId("chart-trades").getByText("There is no closed trade.").waitFor();
});

test("charts share one view and one crosshair, by wheel, drag and keys", async ({ open }) => {
  const page = await open(`#/runs/${await crossed()}`);
  const equity = page.getByTestId("chart-equity");
  const area = equity.locator(".u-over");
  await area.waitFor();
  await expect.poll(() => legend(page, "chart-equity")).toContain("Buy and hold");
  const before = await legend(page, "chart-drawdown");
  await area.hover({ position: { x: 200, y: 60 } });
  await expect.poll(() => legend(page, "chart-drawdown")).not.toBe(before);
  await expect.poll(() => page.locator(".chart-cursor:not([hidden])").count()).toBe(3);

  const moment = (): Promise<string> => equity.locator(".chart-moment").innerText();
  await page.mouse.wheel(0, -2000);
  const body = equity.getByRole("application");
  await body.focus();
  await body.press("End");
  await expect.poll(moment).toBe("2024-01-14 21:19");
  await body.press("Home");
  await expect.poll(moment).toBe("2024-01-01 00:00");
  await body.press("ArrowRight");
  await expect.poll(moment).toBe("2024-01-01 00:01");
  await body.press("0");
  await body.press("Escape");
  await expect.poll(moment).toBe("Last values");
  const described = await body.getAttribute("aria-describedby");
  expect(await page.locator(`[id="${described}"]`).textContent()).toMatch(
    /^Equity (rises|falls|stays level) from .* values\./,
  );
});

/** Moves a pointer over a chart until it is over a fill, and returns the place. */
function placeOfFill(area: Element): { x: number; y: number } | undefined {
  const box = area.getBoundingClientRect();
  for (let x = box.left + 0.2 * box.width; x < box.left + 0.8 * box.width; x += 4) {
    for (let y = box.top + 4; y < box.bottom - 4; y += 4) {
      area.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: x, clientY: y }));
      if ((area as HTMLElement).style.cursor === "pointer") return { x, y };
    }
  }
  return undefined;
}

test("a fill selects its trade, and a trade shows its fills", async ({ open }) => {
  const page = await open(`#/runs/${await crossed()}?view=trades`);
  const table = page.getByRole("grid", { name: "Trades" });
  await table.locator(".table-rows .table-row").nth(3).click();
  const words = page.getByTestId("selected-trade");
  await words.getByText(/^Trade 4: /).waitFor();
  const area = page.getByTestId("chart-candles").locator(".chart-area");
  await table.locator(".table-rows .table-row").nth(9).click();
  await words.getByText(/^Trade 10: /).waitFor();
  // Over a fill the cursor is that of what can be clicked; the first one of the view is of an earlier trade.
  await expect.poll(() => area.evaluate(placeOfFill)).toBeDefined();
  const found = await area.evaluate(placeOfFill);
  if (found === undefined) throw new Error("no fill is in view");
  const before = await words.innerText();
  await page.mouse.click(found.x, found.y);
  const selected = table.locator(".table-row.selected");
  await expect
    .poll(async () => [await words.innerText(), await selected.locator(".table-cell").first().innerText()])
    .toSatisfy(([said, row]: readonly string[]) => said !== before && said?.startsWith(`Trade ${row}: `) === true);
});

test("trades are filtered, and saved as they are shown", async ({ open, client }) => {
  const id = await crossed();
  const { trades } = await client.results(id);
  const page = await open(`#/runs/${id}?view=trades`);
  const table = page.getByRole("grid", { name: "Trades" });
  await table.waitFor();
  await page.getByTestId("trades").getByLabel("Result").selectOption("gain");
  await table.getByRole("button", { name: "PnL" }).click();
  const { name, bytes } = await downloaded(page, "CSV");
  expect(name).toMatch(/^sma_cross-.*-trades\.csv$/);
  const [head, ...lines] = bytes.toString("utf8").trimEnd().split("\r\n");
  const at = (head as string).split(",").indexOf("pnl");
  const saved = lines.map((line) => Number(line.split(",")[at]));
  const pnl = [...(trades.columns.pnl as Float64Array)].filter((one) => one > 0).sort((one, other) => other - one);
  expect(saved).toEqual(pnl);
});

test("tables are saved as Arrow that polars reads", async ({ open, client }) => {
  const id = await crossed();
  const { trades, equity } = await client.results(id);
  const page = await open(`#/runs/${id}?view=trades`);
  await page.getByRole("grid", { name: "Trades" }).waitFor();
  const folder = mkdtempSync(join(tmpdir(), "bt-arrow-"));
  try {
    for (const [button, table] of [
      ["Arrow", trades],
      ["Equity (Arrow)", equity],
    ] as const) {
      const [download] = await Promise.all([
        page.waitForEvent("download"),
        page.getByRole("button", { name: button, exact: true }).click(),
      ]);
      const file = join(folder, download.suggestedFilename());
      await download.saveAs(file);
      const script =
        "import polars, sys; frame = polars.read_ipc_stream(sys.argv[1]); print(frame.height, *frame.columns)";
      const read = execFileSync(PYTHON, ["-c", script, file], { encoding: "utf8" }).trim();
      expect(read).toBe([table.rows, ...table.names].join(" "));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("the report opens from disk without a network, and a chart is saved as PNG", async ({ open }) => {
  const page = await open(`#/runs/${await crossed()}`);
  await expect.poll(() => legend(page, "chart-equity")).toContain("Buy and hold");
  const picture = await downloaded(page, "Save as PNG: Equity");
  expect(picture.bytes.subarray(1, 4).toString()).toBe("PNG");
  expect(picture.bytes.length).toBeGreaterThan(5_000);
  const report = await downloaded(page, "Report (HTML)");
  expect(report.name).toMatch(/\.html$/);
  const alone = await page.context().newPage();
  const asked: string[] = [];
  alone.on("request", (request) => asked.push(request.url()));
  await alone.setContent(report.bytes.toString("utf8"));
  await alone.getByRole("heading", { name: "sma_cross on SYNTH 1m" }).waitFor();
  expect(await alone.locator("svg path").count()).toBe(3);
  expect(asked).toEqual([]);
});

test("a backtest that nobody knows, and one that failed, say so and lead back", async ({ open, client, foresee }) => {
  foresee(/404/);
  const page = await open("#/runs/nothing-of-this-name");
  await page.getByText("There is no such backtest").waitFor();
  const source = `from backtestr_engine.authoring import Bars, Int, Signals, algorithm


@algorithm("fails_at_seven", fast=Int(5, low=1, high=50))
def fails_at_seven(bars: Bars, fast: int) -> Signals:
    level = 1 / (fast - 7)
    return Signals.of(entries=bars.close > level, exits=bars.close < level)
`;
  await client.request("RegisterAlgorithm", { name: "fails_at_seven", source });
  const run = await client.backtest({
    algorithm: "fails_at_seven",
    symbol: "SYNTH",
    timeframe: "1m",
    end: "2024-01-03",
    parameters: { fast: 7 },
  });
  await run.wait();
  const failed = await open(`#/runs/${run.id}`);
  await failed.getByText("ZeroDivisionError").first().waitFor();
  await failed.locator(".trace-frame.own").getByText("level = 1 / (fast - 7)").waitFor();
  await failed.locator(".trace-frame.own").getByText("6", { exact: true }).waitFor();
  await failed.getByRole("link", { name: "Open the form with these parameters" }).click();
  await failed.waitForURL(/#\/run\?copy=/);
  await expect.poll(() => failed.getByLabel("fast", { exact: false }).first().inputValue()).toBe("7");
});
