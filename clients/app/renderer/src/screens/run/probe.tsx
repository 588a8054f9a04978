/**
 * The broker's own verdict while the form is filled in: it evaluates the algorithm on a few hundred bars of the range,
 * which checks algorithm, parameters, symbols and times, and runs the algorithm's code, in some milliseconds.
 */

import type { RemoteClient, SeriesInfo, Table } from "@backtestr/client/page";
import { type Accessor, type JSX, Match, Switch } from "solid-js";
import { ErrorPanel } from "../../components/error-panel";
import { count } from "../../format/numbers";
import { timeframeMs } from "../../format/times";
import { createAsking, type Verdict } from "../../stores/asking";
import { type Config, timeOf } from "./run-config";
import { rangeOf } from "./series-range";

/** Bars that are evaluated. */
const BARS = 400;
/** Milliseconds of rest before the broker is asked. */
const REST_MS = 500;
const TIMEOUT_MS = 20_000;

/** The outcome of an evaluation. */
interface Passed {
  readonly bars: number;
  readonly entries: number;
  readonly across: boolean;
}

/** The verdict of an evaluation. */
export type Probe = Accessor<Verdict<Passed>>;

/** Asks the broker whenever `config` has changed and rested. */
export function createProbe(
  client: RemoteClient,
  config: Accessor<Config | undefined>,
  series: Accessor<readonly SeriesInfo[]>,
): Probe {
  async function ask(tested: Config): Promise<Passed> {
    const { symbol, symbols, startDate, endDate, parameters, price, timeframe } = probed(tested, series());
    const table = await client.evaluate({
      algorithm: tested.algorithmId,
      symbol: symbols ?? symbol ?? "",
      timeframe,
      start: startDate,
      end: endDate,
      parameters,
      price,
      timeoutMs: TIMEOUT_MS,
    });
    return passed(table);
  }
  return createAsking(config, algorithmPart, ask, REST_MS);
}

/** The part of a configuration that an evaluation checks. */
function algorithmPart(config: Config): unknown {
  const { algorithmId, symbol, symbols, timeframe, startDate, endDate, parameters, price } = config;
  return [algorithmId, symbol, symbols, timeframe, startDate, endDate, parameters, price];
}

/** Returns the configuration with the last bars of its range alone. */
export function probed(config: Config, series: readonly SeriesInfo[]): Config {
  const symbols = config.symbols ?? [config.symbol ?? ""];
  const last = rangeOf({ symbols, timeframe: config.timeframe }, series)?.end;
  const length = timeframeMs(config.timeframe);
  if (length === undefined || last === undefined) return config;
  const end = config.endDate === undefined ? last : Math.min(last, timeOf(config.endDate) ?? last);
  const start = config.startDate === undefined ? undefined : timeOf(config.startDate);
  const from = end - BARS * length;
  // A range that the broker would refuse as a whole is asked for as it is.
  if (start !== undefined && (start >= from || start >= end)) return config;
  return { ...config, startDate: new Date(from).toISOString() };
}

function passed(table: Table): Passed {
  const entries = ["entries", "short_entries"].reduce((sum, name) => {
    const column = table.columns[name];
    return column instanceof Uint8Array ? sum + column.reduce((total, one) => total + one, 0) : sum;
  }, 0);
  return { bars: table.rows, entries, across: table.columns.entries === undefined };
}

/** Says the broker's verdict. */
export function ProbeVerdict(props: { readonly probe: Probe }): JSX.Element {
  const passed = (): Passed | undefined => {
    const now = props.probe();
    return now.kind === "passed" ? now.answer : undefined;
  };
  const refused = (): { readonly error: unknown } | undefined => {
    const now = props.probe();
    return now.kind === "refused" ? now : undefined;
  };
  return (
    <div class="run-verdict small muted" role="status">
      <Switch>
        <Match when={props.probe().kind === "asking"}>
          The broker checks the algorithm on the last bars of the range …
        </Match>
        <Match when={passed()}>
          {(one) => (
            <>
              <span class="good-mark" aria-hidden="true">
                ✓
              </span>{" "}
              The broker has run the algorithm on the last {count(one().bars)} bars of the range
              {one().across ? "." : `: ${count(one().entries)} entries.`}
            </>
          )}
        </Match>
        <Match when={refused()}>
          {(one) => (
            <ErrorPanel
              error={one().error}
              title={`The broker would refuse this (asked about the last ${BARS} bars of the range)`}
              mild
            />
          )}
        </Match>
      </Switch>
    </div>
  );
}
