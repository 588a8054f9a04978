/** A million bars: whole and at full resolution, with every trade of a table that is scrolled to its end. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { settled, test } from "./support/app";
import { csvOfBars } from "./support/data";

const BARS = 1_000_000;

test("a result of a million bars is shown whole, down to single bars, with every trade", async ({ open, client }) => {
  const folder = mkdtempSync(join(tmpdir(), "bt-huge-"));
  try {
    const file = join(folder, "huge.csv");
    writeFileSync(file, csvOfBars(BARS));
    expect((await client.importMarketData(file, { symbol: "HUGE", timeframe: "1m" })).bars).toBe(BARS);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const run = await client.backtest({ algorithm: "sma_cross", symbol: "HUGE", timeframe: "1m" });
  await run.wait();
  const trades = (await client.results(run.id)).metrics?.totalTrades ?? 0;
  expect(trades).toBeGreaterThan(10_000);

  const page = await open(`#/runs/${run.id}`);
  await settled(page);
  await page.getByTestId("chart-equity").locator("canvas").waitFor();
  await expect
    .poll(async () =>
      Number((await page.getByTestId("metric-totalTrades").locator("dd").innerText()).replaceAll(",", "")),
    )
    .toBe(trades);
  await page.getByText("1,000,000 bars").first().waitFor();

  await page.getByRole("tab", { name: "Trades" }).click();
  const candles = page.getByTestId("chart-candles");
  await candles.locator("canvas").first().waitFor();
  await candles.getByRole("button", { name: "All" }).click();
  await expect.poll(() => candles.innerText()).toMatch(/A candle is [\d,]+ bars/);
  await candles.locator(".chart-area").hover();
  await expect
    .poll(async () => {
      for (let turn = 0; turn < 8; turn += 1) await page.mouse.wheel(0, -400);
      return candles.innerText();
    })
    .toContain("A candle is one bar");

  const table = page.getByTestId("trades").getByRole("grid");
  await expect.poll(() => table.getAttribute("aria-rowcount")).toBe(String(trades + 1));
  await table.focus();
  await page.keyboard.press("End");
  await page.locator(`[aria-rowindex="${trades + 1}"]`).waitFor();
}, 120_000);
