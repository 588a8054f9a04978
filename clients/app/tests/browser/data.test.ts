/** The screen Data: imports with their refusals, what the browser reads of a file, exports, deletion with undo. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Page } from "playwright-core";
import { expect, onTestFinished } from "vitest";
import { settled, test } from "./support/app";
import { csvOfBars, realFile } from "./support/data";

async function choose(page: Page, name: string, content: string | Buffer): Promise<void> {
  const buffer = typeof content === "string" ? Buffer.from(content) : content;
  await page.getByLabel("Files to import").setInputFiles({ name, mimeType: "text/csv", buffer });
}

async function importNow(page: Page, again = false): Promise<void> {
  await page.getByRole("button", { name: again ? "Import again" : "Import", exact: true }).click();
}

function spoilt(lines: readonly string[], row: number, open: string): string[] {
  return lines.map((line, at) => (at === row ? line.replace(/,[^,]*,/, `,${open},`) : line));
}

test("a refused file is shown at its lines with those around them, and goes in without them", async ({
  open,
  client,
}) => {
  const page = await open("#/data");
  await settled(page);
  const lines = spoilt(spoilt(csvOfBars(300, 5).split("\n"), 40, "abc"), 200, "x9");
  await choose(page, "SPOILT-1m.csv", lines.join("\n"));
  await importNow(page);
  await page.getByText("The broker refused the file; nothing was stored").waitFor();
  const refused = page.locator(".file-line.refused");
  await refused.first().waitFor();
  expect(await refused.locator(".file-number").allTextContents()).toEqual(["41", "201"]);
  expect(await refused.locator("mark").allTextContents()).toEqual(["abc", "x9"]);
  const numbers = await page.locator(".file-line:not(.gap) .file-number").allTextContents();
  expect(numbers).toEqual(["1", "39", "40", "41", "42", "43", "199", "200", "201", "202", "203"]);
  await page.getByRole("button", { name: /Leave 2 of 300 rows out/ }).click();
  await page.getByText(/is stored: 298 bars/).waitFor();
  const stored = (await client.request("ListMarketData", {})).series.find((one) => one.symbol === "SPOILT");
  expect(stored?.bars).toBe(298);
});

test("lines of a packed file are found as well", async ({ open }) => {
  const page = await open("#/data");
  await settled(page);
  const lines = spoilt(csvOfBars(50, 6).split("\n"), 20, "nothing");
  await choose(page, "PACKED.csv.gz", gzipSync(lines.join("\n")));
  await importNow(page);
  await page.locator(".file-line.refused mark").getByText("nothing").waitFor();
});

test("a file of several symbols offers a series of each", async ({ open, client }) => {
  const page = await open("#/data");
  await settled(page);
  const rows = ["ONE", "TWO"].flatMap((symbol) => [1, 2, 3, 4].map((day) => `2024-01-0${day},${symbol},1,2,0.5,1.5`));
  await choose(page, "several.csv", ["time,ticker,open,high,low,close", ...rows].join("\n"));
  await importNow(page);
  await page.getByRole("button", { name: "Make a series of each of the 2 symbols in ticker" }).click();
  await page.getByText("is stored: 4 bars").waitFor();
  const symbols = (await client.request("ListMarketData", {})).series.map((one) => one.symbol);
  expect(symbols).toEqual(expect.arrayContaining(["ONE", "TWO"]));
});

test("a file that can be read in two ways has the field that decides beside the refusal", async ({ open }) => {
  const page = await open("#/data");
  await settled(page);
  const rows = ["01/02/2024", "02/02/2024", "03/02/2024"].map((date) => `${date},1,2,0.5,1.5`);
  await choose(page, "TWOWAYS.csv", ["Date,Open,High,Low,Close", ...rows].join("\n"));
  await importNow(page);
  const asked = page.locator(".import-asked");
  await asked.getByLabel("Order of dates").selectOption("dmy");
  await importNow(page, true);
  await page.getByText(/TWOWAYS 1d is stored: 3 bars/).waitFor();
});

test("several files are imported by one button", async ({ open, client }) => {
  const page = await open("#/data");
  await settled(page);
  const files = ["MANY1-1m.csv", "MANY2-1m.csv", "MANY3-1m.csv"].map((name, seed) => ({
    name,
    mimeType: "text/csv",
    buffer: Buffer.from(csvOfBars(50, seed + 1)),
  }));
  await page.getByLabel("Files to import").setInputFiles(files);
  await page.getByRole("button", { name: "Import all 3 files" }).click();
  await expect.poll(() => page.getByText("is stored: 50 bars").count()).toBe(3);
  const symbols = (await client.request("ListMarketData", {})).series.map((one) => one.symbol);
  expect(symbols).toEqual(expect.arrayContaining(["MANY1", "MANY2", "MANY3"]));
});

test("a dropped file is told by its name, looked at, exported and imported back unchanged", async ({
  open,
  client,
}) => {
  const page = await open("#/data");
  await settled(page);
  const file = realFile("btc_perp_1m_2022-01.csv");
  const content = file === undefined ? csvOfBars(3_000, 9) : readFileSync(file, "utf8");
  const transfer = await page.evaluateHandle((text) => {
    const made = new DataTransfer();
    made.items.add(new File([text], "BTC_PERP-1m-2022-01.csv", { type: "text/csv" }));
    return made;
  }, content);
  await page.locator(".data-screen").dispatchEvent("drop", { dataTransfer: transfer });
  expect(await page.getByLabel("Symbol", { exact: true }).inputValue()).toBe("BTC_PERP");
  await importNow(page);
  await page.getByRole("button", { name: "Look at it" }).click();
  await settled(page);
  expect(new URL(page.url()).hash).toBe("#/data/BTC_PERP/1m");
  const saving = page.waitForEvent("download");
  await page.getByRole("button", { name: "CSV", exact: true }).click();
  const folder = mkdtempSync(join(tmpdir(), "backtestr-export-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const exported = join(folder, "exported.csv");
  await (await saving).saveAs(exported);
  await client.importMarketData(exported, { symbol: "BACK" });
  const { columns } = await client.marketData("BTC_PERP", "1m");
  const { columns: back } = await client.marketData("BACK", "1m");
  expect(back.timestamp).toEqual(columns.timestamp);
  for (const name of ["open", "high", "low", "close", "volume"]) expect(back[name]).toEqual(columns[name]);
});

test("a deletion waits and can be undone", async ({ open, client }) => {
  await client.request("ResampleMarketData", { symbol: "SYNTH", fromTimeframe: "1m", toTimeframe: "15m" });
  const page = await open("#/data/SYNTH/15m");
  await settled(page);
  const row = page.locator(".table-rows .table-row", { hasText: "15m" });
  await row.waitFor();
  const panel = page.getByRole("region", { name: "SYNTH 15m" });
  await panel.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await row.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Undo" }).click();
  await row.waitFor();
  await row.click();
  await panel.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect
    .poll(async () => (await client.request("ListMarketData", {})).series.some((one) => one.timeframe === "15m"), {
      timeout: 15_000,
    })
    .toBe(false);
});

test("a series is resampled where it is looked at", async ({ open }) => {
  const page = await open("#/data/SYNTH/1m");
  await settled(page);
  await page.getByLabel("Resample to").selectOption("4h");
  await page.getByRole("button", { name: "Store 4h" }).click();
  await page.getByText("SYNTH 4h is stored").waitFor();
  await page.locator(".table-rows .table-row", { hasText: "4h" }).waitFor();
});
