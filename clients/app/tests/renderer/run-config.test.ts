import type { AlgorithmInfo, SeriesInfo } from "@backtestr/client/page";
import { errorFromData } from "@backtestr/client/page";
import fc from "fast-check";
import { expect, test } from "vitest";
import { probed } from "../../renderer/src/screens/run/probe";
import { build, draftOf, fieldsOf, fractionOf, timeOf } from "../../renderer/src/screens/run/run-config";
import { checkedDraft, EMPTY_DRAFT, type RunDraft, withTyped } from "../../renderer/src/screens/run/run-draft";
import { asCommand, asPython } from "../../renderer/src/screens/run/run-text";
import { rangeOf, sourceOf } from "../../renderer/src/screens/run/series-range";

const CROSS: AlgorithmInfo = {
  algorithmId: "sma_cross@1",
  name: "sma_cross",
  version: "1",
  description: "Crosses.",
  parameters: [
    { name: "fast", type: "int", default: 10, low: 2, high: 500 },
    { name: "slow", type: "int", default: 30, low: 3, high: 1000 },
    { name: "share", type: "float", default: 0.5, low: 0 },
    { name: "often", type: "bool", default: false },
  ],
  requires: ["fast < slow"],
};
const MINUTE = 60_000;
const START = Date.UTC(2024, 0, 1);
const SERIES: readonly SeriesInfo[] = [
  { symbol: "BTC", timeframe: "1m", startTime: START, endTime: START + 9_999 * MINUTE, bars: 10_000 },
  { symbol: "BTC", timeframe: "1d", startTime: START, endTime: START + 500 * 1_440 * MINUTE, bars: 501 },
  { symbol: "ETH", timeframe: "tick", startTime: START, endTime: START + 5_000_000, bars: 77 },
];
const DRAFT: RunDraft = { ...EMPTY_DRAFT, algorithm: "sma_cross", symbols: ["BTC"], timeframe: "1m" };

function built(part: Partial<RunDraft>) {
  return build({ ...DRAFT, ...part }, [CROSS], SERIES);
}

function withParameters(values: { readonly [name: string]: string }) {
  return built({ parameters: { sma_cross: values } });
}

test("a draft becomes the request, with nothing that was not typed", () => {
  expect(built({}).config).toEqual({
    algorithmId: "sma_cross",
    symbol: "BTC",
    timeframe: "1m",
    initialCapital: 100_000,
    commission: 0,
    slippage: 0,
    parameters: {},
    options: {},
  });
});

test("percentages become the fractions that are meant", () => {
  const { config } = built({ commission: "0.05", slippage: "0.1", options: { stopLoss: "2.5", takeProfit: "7" } });
  expect(config).toMatchObject({ commission: 0.0005, slippage: 0.001, options: { stopLoss: 0.025, takeProfit: 0.07 } });
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 999_999 }), (tenThousandths) => {
      expect(fractionOf(String(tenThousandths / 10_000))).toBe(tenThousandths / 1_000_000);
    }),
  );
});

test.each([
  [{ fast: "x" }, "parameters.fast", "parameter 'fast' of sma_cross must be a whole number within 2..500, not 'x'"],
  [{ fast: "1" }, "parameters.fast", "parameter 'fast' of sma_cross must be a whole number within 2..500, not '1'"],
  [{ fast: "2.5" }, "parameters.fast", "parameter 'fast' of sma_cross must be a whole number within 2..500, not '2.5'"],
  [{ share: "-1" }, "parameters.share", "parameter 'share' of sma_cross must be a number within 0..∞, not '-1'"],
  [{ often: "maybe" }, "parameters.often", "parameter 'often' of sma_cross must be true or false, not 'maybe'"],
  [{ fast: "30" }, "parameters.slow", "sma_cross requires fast < slow; fast is 30 and slow is 30"],
])("parameters %o are refused at %s in the broker's words", (values, field, message) => {
  expect(withParameters(values).errors[field]).toBe(message);
  expect(withParameters(values).config).toBeUndefined();
});

test("parameters that are typed and sound are sent, others have their defaults", () => {
  const { config } = withParameters({ fast: "12", slow: "", share: "0.25", often: "true" });
  expect(config?.parameters).toEqual({ fast: 12, share: 0.25, often: true });
});

test.each([
  [{ algorithm: "" }, "algorithm"],
  [{ algorithm: "nothing" }, "algorithm"],
  [{ symbols: [] }, "symbols"],
  [{ symbols: ["XRP"] }, "symbols"],
  [{ symbols: ["BTC", "BTC"] }, "symbols"],
  [{ timeframe: "5x" }, "timeframe"],
  [{ start: "2024-02-31" }, "start"],
  [{ start: "2024-02-02", end: "2024-02-02" }, "end"],
  [{ capital: "0" }, "capital"],
  [{ capital: "" }, "capital"],
  [{ commission: "100" }, "commission"],
  [{ warmup: "-1" }, "warmup"],
  [{ pace: "0.001" }, "pace"],
  [{ options: { stopLoss: "100" } }, "options.stopLoss"],
  [{ options: { leverage: "0.5" } }, "options.leverage"],
  [{ options: { validBars: "1.5" } }, "options.validBars"],
  [{ options: { size: "units" } }, "options.sizeValue"],
])("%o is refused at %s", (part, field) => {
  const { errors, config } = built(part);
  expect(Object.keys(errors)).toEqual([field]);
  expect(config).toBeUndefined();
});

test("a value of the size is not sent with all in, which has none", () => {
  expect(built({ options: { sizeValue: "0.5" } }).config?.options).toEqual({});
  expect(built({ options: { size: "fraction", sizeValue: "0.5" } }).config?.options).toEqual({
    size: "fraction",
    sizeValue: 0.5,
  });
});

test("a paced backtest publishes its prices, unless that is switched off", () => {
  expect(built({ pace: "50" }).config?.options).toEqual({ pace: 50, streams: { prices: true, columns: true } });
  expect(built({ pace: "50", publishPrices: false }).config?.options).toEqual({ pace: 50 });
});

test("times are ISO 8601, in UTC where they have no offset", () => {
  expect(timeOf("2024-01-03")).toBe(Date.UTC(2024, 0, 3));
  expect(timeOf("2024-01-03 09:30")).toBe(Date.UTC(2024, 0, 3, 9, 30));
  expect(timeOf("2024-01-03T09:30:00-05:00")).toBe(Date.UTC(2024, 0, 3, 14, 30));
  for (const wrong of ["", "3.1.2024", "2024-13-01", "2024-02-30", "yesterday"]) expect(timeOf(wrong)).toBeUndefined();
});

test("a configuration of a result comes back as the draft that made it", () => {
  const made = built({
    symbols: ["BTC", "ETH"],
    start: "2024-01-02",
    commission: "0.05",
    parameters: { sma_cross: { fast: "12", slow: "50", share: "0.25", often: "true" } },
    options: { stopLoss: "2.5", fillAt: "close", size: "fraction", sizeValue: "0.1" },
  });
  const again = build(draftOf(made.config as never, [CROSS]), [CROSS], SERIES);
  expect(again.config).toEqual(made.config);
});

test("whatever was kept makes a whole draft, or none", () => {
  fc.assert(
    fc.property(fc.anything(), (kept) => {
      const draft = checkedDraft(kept);
      if (draft !== undefined) expect(Object.keys(draft)).toEqual(Object.keys(EMPTY_DRAFT));
      if (draft !== undefined) expect(() => build(draft, [CROSS], SERIES)).not.toThrow();
    }),
  );
  expect(checkedDraft(DRAFT)).toEqual(DRAFT);
  expect(checkedDraft({ symbols: "BTC", capital: 5, options: { a: 1, b: "2" } })).toEqual({
    ...EMPTY_DRAFT,
    options: { b: "2" },
  });
});

test("what is typed while a configuration is copied stays", () => {
  const before: RunDraft = { ...EMPTY_DRAFT, capital: "5", parameters: { sma_cross: { fast: "60", slow: "240" } } };
  const typed = { ...before, pace: "9", parameters: { sma_cross: { fast: "30", slow: "240" }, macd: { fast: "1" } } };
  const copied = { ...EMPTY_DRAFT, capital: "7", parameters: { sma_cross: { fast: "61", slow: "241" } } };
  expect(withTyped(copied, before, before)).toEqual(copied);
  expect(withTyped(copied, before, typed)).toEqual({
    ...copied,
    pace: "9",
    parameters: { sma_cross: { fast: "30", slow: "241" }, macd: { fast: "1" } },
  });
  expect(withTyped(copied, before, { ...before, symbols: ["BTC"] }).symbols).toEqual(["BTC"]);
});

test("an error of the broker belongs to the fields that its paths name", () => {
  const data = { code: "INVALID_CONFIGURATION", message: "x", recoveryActions: [], severity: "Error", component: "" };
  const paths = ["$.parameters.fast", "$.startDate", "$.options.leverage", "$.symbol", "$.symbols"];
  const error = errorFromData({ ...data, details: { paths }, timestamp: 0 } as never);
  expect(fieldsOf(error)).toEqual(["parameters.fast", "start", "options.leverage", "symbols", "symbols"]);
  expect(fieldsOf(new Error("x"))).toEqual([]);
});

test("bars are made of the series of that timeframe, or else of the finest shorter one", () => {
  const of = (symbol: string, timeframe: string) => sourceOf({ symbols: [symbol], timeframe }, SERIES)?.timeframe;
  expect(of("BTC", "1d")).toBe("1d");
  expect(of("BTC", "5m")).toBe("1m");
  expect(of("ETH", "1m")).toBe("tick");
  expect(of("XRP", "1m")).toBeUndefined();
  expect(rangeOf({ symbols: ["BTC"], timeframe: "5m" }, SERIES)).toEqual({
    start: START,
    end: START + 10_000 * MINUTE,
  });
});

test("the probe asks for the last 400 bars of a range, and for a shorter one as it is", () => {
  const { config } = built({});
  const from = (part: Partial<RunDraft>) => {
    const { config: tested } = built(part);
    return tested === undefined ? undefined : probed(tested, SERIES).startDate;
  };
  expect(config).toBeDefined();
  expect(Date.parse(from({}) ?? "")).toBe(START + 9_600 * MINUTE);
  expect(Date.parse(from({ end: "2024-01-03" }) ?? "")).toBe(START + (2 * 1_440 - 400) * MINUTE);
  expect(from({ start: "2024-01-07T20:00" })).toBe("2024-01-07T20:00");
});

test("the copies have every field, quoted for their languages", () => {
  const config = {
    algorithmId: "it's",
    symbols: ["A B", "C"],
    timeframe: "1m",
    startDate: "2024-01-03",
    initialCapital: 1000,
    commission: 0.0005,
    slippage: 0,
    parameters: { fast: 12, often: true },
    options: { fillAt: "close", stopLoss: 0.02, preset: "vectorbt", pace: 10, streams: { prices: true } },
    warmup: 0,
  };
  expect(asPython(config)).toContain(`client.backtest(
        "it's",
        ["A B", "C"],
        timeframe="1m",
        start="2024-01-03",
        capital=1000,
        commission=0.0005,
        parameters={"fast": 12, "often": True},
        warmup=0,
        fill_at="close",
        stop_loss=0.02,
        preset="vectorbt",
        pace=10,
        streams={"prices": True},
    )`);
  expect(asCommand(config)).toBe(
    `backtestr backtest 'it'"'"'s' 'A B' C --timeframe 1m --start 2024-01-03 --capital 1000 --commission 0.0005 ` +
      `--warmup 0 --param fast=12 --param often=true --option fillAt=close --option stopLoss=0.02 ` +
      `--option 'streams={"prices":true}' --preset vectorbt --pace 10`,
  );
});
