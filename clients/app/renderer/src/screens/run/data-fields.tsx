import { createMemo, Index, type JSX, Show } from "solid-js";
import { Button } from "../../components/button";
import { Select, TextField } from "../../components/field";
import { day, timeframeMs } from "../../format/times";
import type { FormPart } from "./run-form";
import { rangeOf } from "./series-range";

const TIMEFRAMES = ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"] as const;
/** As the broker has it. */
const MAX_SYMBOLS = 1_000;

/** Symbols, timeframe and range. */
export function DataFields(props: FormPart): JSX.Element {
  const known = createMemo(() => [...new Set(props.series.map((one) => one.symbol))].sort());
  const stored = createMemo(() => props.series.filter((one) => one.symbol === props.draft.symbols[0]));
  const hasTicks = (): boolean => stored().some((one) => one.timeframe === "tick");
  const timeframes = createMemo(() => {
    const own = stored().map((one) => one.timeframe);
    const finest = Math.min(...own.map((one) => timeframeMs(one) ?? Number.POSITIVE_INFINITY));
    const longer = TIMEFRAMES.filter((one) => (timeframeMs(one) ?? 0) > finest);
    const all = new Set([...own.filter((one) => one !== "tick"), ...longer]);
    return [...all].sort((left, right) => (timeframeMs(left) ?? 0) - (timeframeMs(right) ?? 0));
  });
  const range = createMemo(() => rangeOf(props.draft, props.series));
  function setSymbol(at: number, symbol: string): void {
    props.change({ symbols: props.draft.symbols.with(at, symbol) });
  }
  function lastPart(days: number): void {
    const { end } = range() ?? {};
    if (end !== undefined) props.change({ start: day(end - days * 86_400_000), end: "" });
  }
  function firstShare(share: number): void {
    const { start, end } = range() ?? {};
    if (start !== undefined && end !== undefined) props.change({ start: "", end: day(start + share * (end - start)) });
  }
  return (
    <fieldset class="panel run-section">
      <legend>Data</legend>
      <div class="run-fields">
        <Index each={props.draft.symbols.length === 0 ? [""] : props.draft.symbols}>
          {(symbol, at) => (
            <div class="run-symbol">
              <Select
                label={at === 0 ? "Symbol" : `Symbol ${at + 1}`}
                name={`symbol-${at}`}
                value={symbol()}
                choices={[
                  ...(known().includes(symbol()) ? [] : [{ value: symbol(), label: symbol() || "Choose one" }]),
                  ...known().map((one) => ({ value: one, label: one })),
                ]}
                onChange={(chosen) =>
                  props.draft.symbols.length === 0 ? props.change({ symbols: [chosen] }) : setSymbol(at, chosen)
                }
                error={at === 0 ? props.errorOf("symbols") : undefined}
              />
              <Show when={props.draft.symbols.length > 1}>
                <Button
                  kind="quiet"
                  aria-label={`Leave ${symbol()} out`}
                  onClick={() => props.change({ symbols: props.draft.symbols.filter((_, place) => place !== at) })}
                >
                  ✕
                </Button>
              </Show>
            </div>
          )}
        </Index>
        <TextField
          label="Timeframe"
          name="timeframe"
          value={props.draft.timeframe}
          suggestions={timeframes()}
          onInput={(timeframe) => props.change({ timeframe })}
          error={props.errorOf("timeframe")}
          hint={`Stored: ${
            stored()
              .map((one) => one.timeframe)
              .join(", ") || "none"
          }; longer ones are made of them.`}
        />
        <Show when={hasTicks()}>
          <Select
            label="Price of ticks"
            name="price"
            value={props.draft.price}
            choices={[
              { value: "", label: "Stored bars, or the middle" },
              ...["mid", "bid", "ask", "last"].map((one) => ({ value: one, label: one })),
            ]}
            onChange={(price) => props.change({ price })}
            error={props.errorOf("price")}
          />
        </Show>
      </div>
      <div class="run-fields">
        <TextField
          label="Start"
          name="start"
          value={props.draft.start}
          placeholder={placeholder(range()?.start)}
          onInput={(start) => props.change({ start })}
          error={props.errorOf("start")}
          hint="A date or time in UTC; empty for the first bar."
        />
        <TextField
          label="End, exclusive"
          name="end"
          value={props.draft.end}
          placeholder={placeholder(range()?.end)}
          onInput={(end) => props.change({ end })}
          error={props.errorOf("end")}
          hint="Empty for all bars."
        />
        <TextField
          label="Warm-up bars"
          name="warmup"
          value={props.draft.warmup}
          placeholder="as the algorithm declares"
          onInput={(warmup) => props.change({ warmup })}
          error={props.errorOf("warmup")}
          hint="Stored bars before the start, for indicators; not traded."
        />
      </div>
      <div class="run-shortcuts">
        <Show when={props.draft.symbols.length > 0 && props.draft.symbols.length < MAX_SYMBOLS}>
          <Button
            onClick={() => props.change({ symbols: [...props.draft.symbols, another(known(), props.draft.symbols)] })}
          >
            Add a symbol
          </Button>
        </Show>
        <Button onClick={() => props.change({ start: "", end: "" })}>All bars</Button>
        <Button onClick={() => lastPart(365)}>Last year</Button>
        <Button onClick={() => lastPart(30)}>Last 30 days</Button>
        <Button onClick={() => lastPart(7)}>Last 7 days</Button>
        <Button onClick={() => firstShare(0.7)}>First 70 %</Button>
      </div>
    </fieldset>
  );
}

function placeholder(at: number | undefined): string | undefined {
  return at === undefined ? undefined : day(at);
}

function another(known: readonly string[], chosen: readonly string[]): string {
  return known.find((one) => !chosen.includes(one)) ?? "";
}
