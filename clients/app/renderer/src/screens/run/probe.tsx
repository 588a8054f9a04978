/**
 * The broker's own verdict while the form is filled in: it evaluates the algorithm on a few hundred bars of the range,
 * which checks algorithm, parameters, symbols and times, and runs the algorithm's code, in some milliseconds.
 */

import type { RemoteClient, SeriesInfo, Table } from "@backtestr/client/page";
import { NetworkError } from "@backtestr/client/page";
import { type Accessor, createEffect, createSignal, type JSX, Match, on, Switch } from "solid-js";
import { ErrorPanel, messageOf } from "../../components/error-panel";
import { count } from "../../format/numbers";
import { timeframeMs } from "../../format/times";
import { type Config, fieldsOf, timeOf } from "./run-config";
import { rangeOf } from "./series-range";

/** Bars that are evaluated. */
const BARS = 400;
/** Milliseconds of rest before the broker is asked. */
const REST_MS = 500;
const TIMEOUT_MS = 20_000;

export type Verdict =
  | { readonly kind: "none" }
  | { readonly kind: "asking" }
  | { readonly kind: "passed"; readonly bars: number; readonly entries: number; readonly across: boolean }
  | { readonly kind: "refused"; readonly error: unknown };

export interface Probe {
  readonly verdict: Accessor<Verdict>;
  errorOf(field: string): string | undefined;
  end(): void;
}

/** Asks the broker whenever `config` has changed and rested. */
export function createProbe(
  client: RemoteClient,
  config: Accessor<Config | undefined>,
  series: Accessor<readonly SeriesInfo[]>,
): Probe {
  const [verdict, setVerdict] = createSignal<Verdict>({ kind: "none" });
  let timer: ReturnType<typeof setTimeout> | undefined;
  let asked = 0;

  async function ask(tested: Config): Promise<void> {
    asked += 1;
    const number = asked;
    setVerdict({ kind: "asking" });
    try {
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
      if (number === asked) setVerdict(passed(table));
    } catch (error) {
      if (number !== asked) return;
      // Without a broker there is no verdict; the status bar says so.
      setVerdict(error instanceof NetworkError ? { kind: "none" } : { kind: "refused", error });
    }
  }
  createEffect(
    on(
      () => JSON.stringify(algorithmPart(config())),
      () => {
        clearTimeout(timer);
        asked += 1;
        const tested = config();
        if (tested === undefined) setVerdict({ kind: "none" });
        else timer = setTimeout(() => void ask(tested), REST_MS);
      },
    ),
  );
  return {
    verdict,
    errorOf: (field) => {
      const now = verdict();
      return now.kind === "refused" && fieldsOf(now.error).includes(field) ? messageOf(now.error) : undefined;
    },
    end: () => {
      clearTimeout(timer);
      asked += 1;
    },
  };
}

/** The part of a configuration that an evaluation checks. */
function algorithmPart(config: Config | undefined): unknown {
  if (config === undefined) return undefined;
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

function passed(table: Table): Verdict {
  const entries = ["entries", "short_entries"].reduce((sum, name) => {
    const column = table.columns[name];
    return column instanceof Uint8Array ? sum + column.reduce((total, one) => total + one, 0) : sum;
  }, 0);
  return { kind: "passed", bars: table.rows, entries, across: table.columns.entries === undefined };
}

/** Says the broker's verdict. */
export function ProbeVerdict(props: { readonly probe: Probe }): JSX.Element {
  const of = <Kind extends Verdict["kind"]>(kind: Kind): Extract<Verdict, { kind: Kind }> | undefined => {
    const now = props.probe.verdict();
    return now.kind === kind ? (now as Extract<Verdict, { kind: Kind }>) : undefined;
  };
  return (
    <div class="run-verdict small muted" role="status">
      <Switch>
        <Match when={of("asking")}>The broker checks the algorithm on the last bars of the range …</Match>
        <Match when={of("passed")}>
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
        <Match when={of("refused")}>
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
