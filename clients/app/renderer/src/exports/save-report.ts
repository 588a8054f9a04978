/** Saves the report of a result. */

import { VERSION } from "@backtestr/client/page";
import { monthlyReturns } from "../charts/monthly";
import type { Host } from "../host/host";
import { titleOf, verdictsOf } from "../screens/result/result-data";
import type { RunModel } from "../screens/result/run-model";
import { thereOf } from "../stores/loadable";
import { reportHtml } from "./report";

/** Saves what is loaded of a result as one HTML file. Rejects where curve or trades are not there yet. */
export async function saveReport(host: Host, name: string, model: RunModel): Promise<void> {
  const [curve, deals] = [thereOf(model.curve.state()), thereOf(model.deals.state())];
  if (curve === undefined || deals === undefined)
    throw new Error("the report needs the curve and the trades, which are not read yet");
  const { config, results, metrics } = model;
  const html = reportHtml({
    title: titleOf(config),
    status: results.status,
    config: results.config,
    metrics,
    isDaily: config.options.statistics === "daily_geometric",
    verdicts: verdictsOf(metrics, results.status, results.warmupBars, deals.trades.rows),
    times: curve.times,
    places: curve.places,
    equity: curve.equity,
    market: model.market(),
    drawdown: curve.drawdown,
    months: monthlyReturns(curve.times, curve.equity.values, config.initialCapital),
    trades: deals.trades,
    madeAt: Date.now(),
    version: VERSION,
  });
  await host.save(`${name}.html`, new Blob([html], { type: "text/html" }));
}
