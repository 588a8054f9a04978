/** The report of a result: one HTML file with its data, which opens from disk and needs no network. Pure. */

import type { Metrics, Table } from "@backtestr/client/page";
import { envelope } from "../charts/envelope";
import { MONTHLY_FORMULA, type YearOfReturns } from "../charts/monthly";
import type { Pyramid } from "../charts/pyramid";
import { change, compact, count, percent } from "../format/numbers";
import { moment } from "../format/times";
import { flattened } from "../screens/result/configuration-paths";
import { METRIC_GROUPS, metricText, metricValue, whyUndefined } from "../screens/result/metric-text";
import { tableCsv } from "./csv";

/** The content of a report. */
export interface ReportData {
  readonly title: string;
  readonly status: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly metrics: Metrics;
  readonly isDaily: boolean;
  readonly verdicts: readonly { readonly kind: string; readonly text: string }[];
  readonly times: Float64Array;
  readonly places: Float64Array;
  readonly equity: Pyramid;
  readonly market: Pyramid | undefined;
  readonly drawdown: Pyramid;
  readonly months: readonly YearOfReturns[];
  readonly trades: Table;
  /** Milliseconds since 1970. */
  readonly madeAt: number;
  readonly version: string;
}

/** The points of a curve in the file: its extremes at each of so many places. */
const POINTS = 2_000;
const [WIDTH, HEIGHT] = [960, 240];
/** The trades that are shown; the data in the file have all. */
const SHOWN_TRADES = 500;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Returns a text as HTML. */
export function escaped(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

/** Returns data as JSON that cannot end the element it stands in. */
function embedded(value: unknown): string {
  return JSON.stringify(value)
    .replaceAll("<", "\\u003c")
    .replaceAll("\u2028", "\\u2028")
    .replaceAll("\u2029", "\\u2029");
}

/** Returns the report as HTML. */
export function reportHtml(data: ReportData): string {
  const shown = Math.min(SHOWN_TRADES, data.trades.rows);
  const more =
    data.trades.rows > shown
      ? ` The first ${count(shown)} of ${count(data.trades.rows)}; the data below have all.`
      : "";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(data.title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escaped(data.title)}</h1>
<p class="muted">${escaped(period(data))} Status: ${escaped(data.status)}. Made ${escaped(moment(data.madeAt))} UTC by backtestr ${escaped(data.version)}.</p>
${data.verdicts.map((one) => `<p class="verdict ${escaped(one.kind)}">${escaped(one.text)}</p>`).join("\n")}
<h2>Equity</h2>
${curves(data, [{ name: "Equity", values: data.equity, tone: "one" }, ...(data.market === undefined ? [] : [{ name: "Buy and hold", values: data.market, tone: "two" }])], compact)}
<h2>Drawdown</h2>
${curves(data, [{ name: "Drawdown", values: data.drawdown, tone: "three" }], (value) => percent(value, 1))}
<h2>Returns of months</h2>
<p class="muted">${escaped(MONTHLY_FORMULA)}</p>
${monthsTable(data.months)}
<h2>Metrics</h2>
${metricTables(data)}
<h2>Trades</h2>
<p class="muted">${escaped(`${count(data.trades.rows)} trades.${more}`)}</p>
${tradeTable(data.trades, shown)}
<h2>Configuration</h2>
<table>${flattened(data.config)
    .map(
      ([name, value]) =>
        `<tr><th scope="row"><code>${escaped(name)}</code></th><td><code>${escaped(value)}</code></td></tr>`,
    )
    .join("")}</table>
<h2>Data</h2>
<p class="muted">The element <code>#data</code> of this file has configuration and metrics as JSON, <code>#trades</code> all trades as CSV, and <code>#equity</code> the equity curve as JSON: its extremes at ${count(POINTS)} places where it has more bars.</p>
<script type="application/json" id="data">${embedded({ config: data.config, metrics: data.metrics, status: data.status })}</script>
<script type="application/json" id="equity">${embedded(points(data))}</script>
<script type="text/csv" id="trades">${tableCsv(data.trades).replaceAll("<", "&lt;")}</script>
</body>
</html>
`;
}

function period({ times }: ReportData): string {
  if (times.length === 0) return "No bar was simulated.";
  return `${moment(times[0] as number)} to ${moment(times.at(-1) as number)} UTC, ${count(times.length)} bars.`;
}

function points(data: ReportData): { readonly time: number[]; readonly equity: (number | null)[] } {
  const bars = data.times.length;
  const shown = envelope(data.places, [data.equity], { from: 0, to: Math.max(1, bars - 1), pixels: POINTS / 2 });
  return { time: shown.xs.map((place) => data.times[place] as number), equity: shown.series[0] as (number | null)[] };
}

interface Line {
  readonly name: string;
  readonly values: Pyramid;
  readonly tone: string;
}

function curves(data: ReportData, lines: readonly Line[], label: (value: number) => string): string {
  const bars = data.times.length;
  if (bars === 0) return `<p>There is nothing to draw: no bar was simulated.</p>`;
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const { values } of lines) {
    const found = values.extremes(0, bars);
    low = Math.min(low, found.min);
    high = Math.max(high, found.max);
  }
  if (low > high) return `<p>There is nothing to draw: no value is defined.</p>`;
  if (low === high) [low, high] = [low - 1, high + 1];
  const y = (value: number): string => (HEIGHT - ((value - low) / (high - low)) * HEIGHT).toFixed(1);
  const x = (place: number): string => ((place / Math.max(1, bars - 1)) * WIDTH).toFixed(1);
  const paths = lines.map(({ values, tone, name }) => {
    const shown = envelope(data.places, [values], { from: 0, to: Math.max(1, bars - 1), pixels: WIDTH });
    let path = "";
    let isDown = false;
    for (const [index, place] of shown.xs.entries()) {
      const value = shown.series[0]?.[index];
      if (value === null || value === undefined) isDown = false;
      else {
        path += `${isDown ? "L" : "M"}${x(place)} ${y(value)}`;
        isDown = true;
      }
    }
    return `<path class="${tone}" d="${path}"><title>${escaped(name)}</title></path>`;
  });
  const legend = lines.map(({ name, tone }) => `<span class="${tone}">${escaped(name)}</span>`).join(" ");
  return `<figure><svg viewBox="0 -4 ${WIDTH} ${HEIGHT + 8}" role="img" aria-label="${escaped(lines.map(({ name }) => name).join(", "))}">${paths.join("")}</svg>
<figcaption>${legend} <span class="muted">from ${escaped(label(low))} to ${escaped(label(high))}</span></figcaption></figure>`;
}

function monthsTable(years: readonly YearOfReturns[]): string {
  const cell = (value: number): string =>
    Number.isNaN(value)
      ? "<td></td>"
      : `<td class="${value > 0 ? "gain" : value < 0 ? "loss" : ""}">${escaped(change(value))}</td>`;
  const rows = years.map(
    ({ year, months, total }) => `<tr><th scope="row">${year}</th>${[...months].map(cell).join("")}${cell(total)}</tr>`,
  );
  return `<table class="figures"><tr><th>Year</th>${MONTHS.map((one) => `<th>${one}</th>`).join("")}<th>Year</th></tr>${rows.join("")}</table>`;
}

function metricTables(data: ReportData): string {
  return METRIC_GROUPS.map(({ name, metrics }) => {
    const rows = metrics.map((one) => {
      const value = metricText(one, metricValue(data.metrics, one.name));
      const why = whyUndefined(data.metrics, one.name);
      const formula = data.isDaily && one.dailyGeometric !== undefined ? one.dailyGeometric : one.formula;
      return `<tr><th scope="row">${escaped(one.label)}</th><td>${escaped(why === undefined ? value : `— ${why}`)}</td><td class="muted">${escaped(formula)} <em>${escaped(one.source)}</em></td></tr>`;
    });
    return `<h3>${escaped(name)}</h3><table class="metrics">${rows.join("")}</table>`;
  }).join("\n");
}

function tradeTable(trades: Table, shown: number): string {
  if (trades.rows === 0) return "<p>The algorithm made no trade.</p>";
  const rows = Uint32Array.from({ length: shown }, (_, row) => row);
  const [head, ...lines] = tableCsv(trades, rows).trimEnd().split("\r\n");
  const cells = (line: string, tag: string): string =>
    line
      .split(",")
      .map((one) => `<${tag}>${escaped(one.replaceAll('"', ""))}</${tag}>`)
      .join("");
  return `<div class="scroll"><table class="trades"><tr>${cells(head ?? "", "th")}</tr>${lines.map((line) => `<tr>${cells(line, "td")}</tr>`).join("")}</table></div>`;
}

const STYLE = `
:root { color-scheme: light dark; --text: light-dark(#171b21, #e6e9ee); --muted: light-dark(#535c69, #a4adba); --line: light-dark(#dde1e8, #2a313b); --gain: light-dark(#007a5c, #35c9a0); --loss: light-dark(#b8430b, #ff9061); --one: light-dark(#2f55d4, #8aa5ff); --two: light-dark(#b8560b, #f0a35e); }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: var(--text); font: 14px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; background: light-dark(#fff, #12161b); }
h2 { margin-top: 2.5rem; font-size: 1.1rem; } h3 { margin-bottom: .25rem; font-size: .95rem; } h3::first-letter { text-transform: uppercase; }
.muted, em { color: var(--muted); font-style: normal; } .gain { color: var(--gain); } .loss { color: var(--loss); }
table { width: 100%; border-collapse: collapse; } th, td { padding: .2rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; font-weight: 400; }
.figures td, .figures th { text-align: right; } .metrics th { width: 22%; } .metrics td:nth-child(2) { width: 20%; white-space: nowrap; }
figure { margin: 0; } svg { width: 100%; height: auto; border: 1px solid var(--line); border-radius: 6px; } path { fill: none; stroke-width: 1.3; vector-effect: non-scaling-stroke; }
path.one { stroke: var(--one); } path.two { stroke: var(--two); } path.three { stroke: var(--loss); } span.one { color: var(--one); } span.two { color: var(--two); } span.three { color: var(--loss); }
.verdict { border-left: 3px solid var(--line); padding-left: .75rem; } .verdict.warning { border-color: var(--loss); }
.scroll { overflow-x: auto; } .trades td, .trades th { white-space: nowrap; font-size: .8rem; }
@media print { body { max-width: none; } }`;
