import { AlgorithmError, errorFromData } from "@backtestr/client/page";
import { expect, test } from "vitest";
import { toldByName } from "../../renderer/src/screens/data/file-names";
import { askedFor, EMPTY_FORM, formErrors, importRequest } from "../../renderer/src/screens/data/import-options";
import { linesAround, partOf, refusalOf, severalSymbolsOf } from "../../renderer/src/screens/data/refused-rows";

function refused(message: string, details: { [name: string]: unknown }, descriptions: readonly string[] = []): Error {
  const recoveryActions = descriptions.map((description) => ({
    action: "x",
    description,
    automatic: false,
    userRequired: true,
  }));
  return errorFromData({
    code: "DATA_ERROR",
    message,
    details,
    recoveryActions,
    severity: "Error",
    component: "engine",
    timestamp: 0,
  });
}

test.each([
  ["BTCUSDT-1m-2022-01.csv", "BTCUSDT", "1m"],
  ["btc_perp_1m_2022-01.csv", "BTC_PERP", "1m"],
  ["gbpusd_1m_bid_2012-02.csv", "GBPUSD", "1m"],
  ["DAT_ASCII_EURUSD_M1_2020.csv", "EURUSD", "1m"],
  ["EURUSD_Candlestick_1_h_BID_01.01.2020-31.12.2020.csv", "EURUSD", "1h"],
  ["yhoo_daily_yahoo_1996-2015.csv", "YHOO", "1d"],
  ["histdata_ticks_2020-01.csv", "", "tick"],
  ["AAPL.csv.gz", "AAPL", ""],
  ["GOOG.parquet", "GOOG", ""],
])("the name %s tells %s %s", (name, symbol, timeframe) => {
  expect(toldByName(name)).toEqual({ symbol, timeframe });
});

test("an error asks for the options that it names, by path, by flag or in its advice", () => {
  expect(askedFor(refused("several symbols", { path: "$.symbolColumn" }))).toEqual(["symbolColumn"]);
  expect(askedFor(refused("both; --time-unit ms or --time-unit us decides", {}))).toEqual(["timeUnit"]);
  expect(askedFor(refused("it stands", {}, ["Name the timeframe: --timeframe, or timeframe"]))).toEqual(["timeframe"]);
  expect(askedFor(refused("x", { paths: ["$.price"] }))).toEqual(["price"]);
  expect(askedFor(new Error("--tz"))).toEqual([]);
  expect(askedFor(new AlgorithmError("nothing"))).toEqual([]);
});

test("a request has what was typed and nothing else", () => {
  const form = { ...EMPTY_FORM, symbol: " BTC ", timeZone: "UTC" };
  expect(importRequest("/up/1", form)).toEqual({ path: "/up/1", symbol: "BTC", timeZone: "UTC" });
});

test("a form needs a symbol or its column, and a timeframe that there can be", () => {
  expect(formErrors(EMPTY_FORM).symbol).toMatch(/Name the series/);
  expect(formErrors({ ...EMPTY_FORM, symbolColumn: "ticker" })).toEqual({});
  expect(formErrors({ ...EMPTY_FORM, symbol: "A", timeframe: "5x" }).timeframe).toMatch(/number and a unit/);
  expect(formErrors({ ...EMPTY_FORM, symbol: "A", timeframe: "1M" })).toEqual({});
});

test("the places of cells that cannot be read come from the details", () => {
  const first = [
    { line: 3, column: "close", text: "abc", reason: "is not a number" },
    { line: 9, column: "time", text: "", reason: "is missing" },
  ];
  const refusal = refusalOf(refused("no", { ...first[0], count: 2, first, kept: 8, rows: 10 }));
  expect(refusal?.places).toEqual(first);
  expect(refusal?.kept).toEqual({ kept: 8, rows: 10 });
});

test("the places of values that cannot be come from the faults, in the order of the file", () => {
  const faults = [
    { reason: "high is below open or close", count: 1, lines: [7] },
    { reason: "the same time as the row before", count: 2, lines: [4, 5] },
  ];
  const refusal = refusalOf(refused("no", { line: 4, column: "Time", reason: "x", faults }));
  expect(refusal?.places.map((one) => [one.line, one.column])).toEqual([
    [4, "Time"],
    [5, "Time"],
    [7, "high"],
  ]);
});

test("a refusal of several symbols names them", () => {
  const details = { path: "$.symbolColumn", column: "ticker", count: 30, values: ["A", "B"] };
  expect(severalSymbolsOf(refused("x", details))).toEqual({ column: "ticker", count: 30, values: ["A", "B"] });
  expect(severalSymbolsOf(refused("x", { path: "$.decimal" }))).toBeUndefined();
});

test("an error without places has no refusal", () => {
  expect(refusalOf(refused("no", {}))).toBeUndefined();
  expect(refusalOf(new Error("no"))).toBeUndefined();
});

async function* chunked(text: string, size: number): AsyncGenerator<string, void, undefined> {
  for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size);
}

test("lines around the places are found however the file is read, and no further than needed", async () => {
  const text = `time,close\r\n${Array.from({ length: 20 }, (_, at) => `t${at},${at}`).join("\r\n")}`;
  const place = { line: 10, column: "close", reason: "bad" };
  for (const size of [1, 3, 7, 1000]) {
    const lines = await linesAround(chunked(text, size), [place]);
    expect(lines.map((one) => one.number)).toEqual([1, 8, 9, 10, 11, 12]);
    expect(lines[3]).toEqual({ number: 10, text: "t8,8", places: [place] });
  }
});

test("the last line needs no end", async () => {
  const lines = await linesAround(chunked("a\nb", 10), [{ line: 2, column: "", reason: "" }]);
  expect(lines.map((one) => one.text)).toEqual(["a", "b"]);
});

test("a place is the quoted text, or the cell of its column", () => {
  const header = "Time,Open,High";
  expect(partOf("1,x2,3", header, { line: 2, column: "Open", text: "x2", reason: "" })).toEqual([2, 4]);
  expect(partOf("1,22,3", header, { line: 2, column: "high", reason: "" })).toEqual([5, 6]);
  expect(partOf("1", header, { line: 2, column: "high", reason: "" })).toBeUndefined();
  expect(partOf("1,2", header, { line: 2, column: "none", reason: "" })).toBeUndefined();
});
