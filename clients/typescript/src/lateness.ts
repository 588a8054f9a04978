/** The reason why a backtest has not ended in time: it runs, is paused, or waits for a worker behind others. */

import type { Context } from "./context.js";
import { BacktestrError, TimedOut } from "./core/errors.js";
import type { BacktestStatus } from "./generated/contracts.js";
import { MAX_LENDING } from "./generated/protocol.js";

// Seconds for each question: the caller has waited long enough.
const ASK_SECONDS = 2;
// The most backtests that are named: those that have a worker.
const SHOWN = 3;

/** Returns the error of a wait of so many seconds, with the state of the backtest if the broker says it in a moment. */
export async function late(context: Context, backtestId: string, seconds: number): Promise<TimedOut> {
  const text = `backtest ${backtestId} has not ended within ${seconds} s; it goes on`;
  try {
    const status = await context.answer("GetBacktestStatus", { backtestId }, ASK_SECONDS);
    if (status.status !== "queued") {
      return told(`${text}: it is ${status.status}, at ${percent(status)}`, seconds, status);
    }
    const { backtests } = await context.answer("ListBacktests", { limit: 1000 }, ASK_SECONDS);
    const busy = busyBefore(status, backtests);
    const behind = busy.map((one) => one.backtestId);
    return told(`${text}: it is queued${reasons(status, busy, backtests)}`, seconds, status, behind);
  } catch (error) {
    if (!(error instanceof BacktestrError)) throw error; // the client is closed
    return new TimedOut(text, { timeoutSeconds: seconds }); // it is late for another reason: the broker is gone
  }
}

/** Returns the backtests that have the workers. A paced one that lends its worker is not before others. */
function busyBefore(status: BacktestStatus, known: readonly BacktestStatus[]): BacktestStatus[] {
  const lending = known.filter((one) => one.lends === true).length;
  const waitsForThem = status.pace !== undefined && lending >= MAX_LENDING;
  return known.filter((one) => one.status === "running" && (waitsForThem || one.lends !== true));
}

function reasons(status: BacktestStatus, busy: readonly BacktestStatus[], known: readonly BacktestStatus[]): string {
  const named = busy.slice(0, SHOWN).map((one) => {
    const [algorithm] = one.algorithmId.split("@");
    return `${one.backtestId} (${algorithm} on ${one.symbol}, at ${percent(one)})`;
  });
  const more = busy.length > SHOWN ? ` and ${busy.length - SHOWN} more` : "";
  const first = busy.length > 0 ? ` behind ${named.join(", ")}${more}, which the workers run` : "";
  const ahead = known.filter((one) => one.status === "queued" && one.submitTime < status.submitTime).length;
  if (ahead === 0) return first;
  return `${first}${first === "" ? " behind" : " and"} ${ahead} that ${ahead === 1 ? "was" : "were"} queued before it`;
}

function percent(status: BacktestStatus): string {
  return `${Math.round(status.progressPercent)} %`;
}

function told(text: string, seconds: number, status: BacktestStatus, behind?: readonly string[]): TimedOut {
  const { status: state, progressPercent } = status;
  return new TimedOut(text, { timeoutSeconds: seconds, status: state, progressPercent, ...(behind && { behind }) });
}
