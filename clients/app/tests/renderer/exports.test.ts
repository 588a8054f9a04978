/** Files of what is shown: CSV, names, and the report. */

import type { Metrics } from "@backtestr/client/page";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { monthlyReturns } from "../../renderer/src/charts/monthly";
import { Pyramid } from "../../renderer/src/charts/pyramid";
import { csvCell, csvText, tableCsv } from "../../renderer/src/exports/csv";
import { escaped, type ReportData, reportHtml } from "../../renderer/src/exports/report";
import { fileName } from "../../renderer/src/exports/save";
import { tableOf } from "../support/tables";

/** Reads CSV by RFC 4180. */
function parsed(text: string): string[][] {
  const rows: string[][] = [];
  let [row, cell, isQuoted]: [string[], string, boolean] = [[], "", false];
  for (let at = 0; at < text.length; at += 1) {
    const one = text[at] as string;
    if (isQuoted) {
      if (one === '"' && text[at + 1] === '"') {
        cell += '"';
        at += 1;
      } else if (one === '"') isQuoted = false;
      else cell += one;
    } else if (one === '"') isQuoted = true;
    else if (one === ",") {
      row.push(cell);
      cell = "";
    } else if (one === "\r" && text[at + 1] === "\n") {
      rows.push([...row, cell]);
      [row, cell] = [[], ""];
      at += 1;
    } else cell += one;
  }
  return rows;
}

describe("CSV", () => {
  it("is read back as it was, but for texts that would run as formulas", () => {
    const cell = fc.oneof(fc.string(), fc.constantFrom('a"b', "a,b", "a\r\nb", "=1+1", "-x"));
    fc.assert(
      fc.property(fc.array(fc.array(cell, { minLength: 1, maxLength: 4 }), { maxLength: 8 }), (rows) => {
        const expected = rows.map((row) => row.map((one) => (/^[=+\-@\t\r]/.test(one) ? `'${one}` : one)));
        expect(parsed(csvText(rows))).toEqual(expected);
      }),
    );
  });

  it("has times in ISO 8601, full numbers, and nothing for what is null", () => {
    const table = tableOf({
      timestamp: Float64Array.of(1_640_995_200_000, Number.NaN),
      name: ["a,b", null],
      value: Float64Array.of(0.1 + 0.2, -1e21),
    });
    expect(tableCsv(table)).toBe(
      'timestamp,name,value\r\n2022-01-01T00:00:00.000Z,"a,b",0.30000000000000004\r\n,,-1e+21\r\n',
    );
    expect(tableCsv(table, [1])).toBe("timestamp,name,value\r\n,,-1e+21\r\n");
    expect([csvCell(undefined), csvCell(Number.NaN), csvCell(0)]).toEqual(["", "", "0"]);
  });
});

describe("names of files", () => {
  it("have no character that a file system refuses", () => {
    fc.assert(
      fc.property(fc.array(fc.string()), (parts) => {
        expect(fileName(...parts)).toMatch(/^[\w.@-]{0,120}$/);
      }),
    );
    expect(fileName("sma_cross", "BTC/USD", "", "../x")).toBe("sma_cross-BTC_USD-_x");
  });
});

describe("the report", () => {
  const times = Float64Array.from({ length: 5000 }, (_, bar) => Date.UTC(2022, 0, 1) + bar * 3_600_000);
  const equity = times.map((_, bar) => 1000 + bar);
  const data: ReportData = {
    title: "x <script>alert(1)</script> on A&B 1h",
    status: "completed",
    config: { algorithmId: "x@1", parameters: { text: "</script><b>" } },
    metrics: { totalReturn: 0.5, winRate: null, undefined: { winRate: "there is no closed trade" } } as Metrics,
    isDaily: false,
    verdicts: [{ kind: "warning", text: "a < b" }],
    times,
    places: times.map((_, bar) => bar),
    equity: new Pyramid(equity),
    market: undefined,
    drawdown: new Pyramid(new Float64Array(5000)),
    months: monthlyReturns(times, equity, 1000),
    trades: tableOf({ symbol: ["<i>", "B"], pnl: Float64Array.of(1, -2) }, []),
    madeAt: Date.UTC(2024, 0, 1),
    version: "0.1.0",
  };
  const page = new DOMParser().parseFromString(reportHtml(data), "text/html");

  it("has figures, reasons, curves, months, trades and configuration", () => {
    const text = page.body.textContent ?? "";
    expect(page.querySelector("h1")?.textContent).toBe(data.title);
    expect(text).toContain("50.00 %");
    expect(text).toContain("Undefined: there is no closed trade.");
    expect(page.querySelectorAll("svg path")).toHaveLength(2);
    expect(page.querySelector("svg path")?.getAttribute("d")).toMatch(/^M0\.0 /);
    expect(page.querySelectorAll("table.trades tr")).toHaveLength(3);
    expect(text).toContain("parameters.text");
  });

  it("loads nothing and runs nothing, whatever names it shows", () => {
    const scripts = [...page.querySelectorAll("script")].map((one) => one.type);
    expect(scripts).toEqual(["application/json", "application/json", "text/csv"]);
    expect(page.querySelectorAll("[src], link, b, i")).toHaveLength(0);
    expect(page.querySelector("meta[http-equiv]")?.getAttribute("content")).toBe(
      "default-src 'none'; style-src 'unsafe-inline'",
    );
  });

  it("carries its data", () => {
    const json = JSON.parse(page.querySelector("#data")?.textContent ?? "");
    expect(json.config).toEqual(data.config);
    const curve = JSON.parse(page.querySelector("#equity")?.textContent ?? "");
    expect([Math.min(...curve.equity), Math.max(...curve.equity)]).toEqual([1000, 5999]);
    expect(curve.time).toHaveLength(curve.equity.length);
    expect(page.querySelector("#trades")?.textContent).toContain("pnl");
  });

  it("says so where there is nothing", () => {
    const nothing = reportHtml({
      ...data,
      times: new Float64Array(0),
      places: new Float64Array(0),
      months: [],
      trades: tableOf({ symbol: [] }),
    });
    expect(nothing).toContain("There is nothing to draw: no bar was simulated.");
    expect(nothing).toContain("The algorithm made no trade.");
    expect(escaped(`<a href="x">'&`)).toBe("&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
  });
});
