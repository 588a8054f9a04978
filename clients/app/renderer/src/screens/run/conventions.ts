/**
 * The options of a backtest as fields of a form.
 *
 * `config/engine.toml` has their defaults and reasons; tests/renderer/conventions.test.ts compares the two.
 */

export type Section = "Sizes" | "Exits" | "Orders and fills" | "Costs" | "Account" | "Several symbols" | "Figures";

/** The sections of the form, in order. */
export const SECTIONS: readonly Section[] = [
  "Sizes",
  "Exits",
  "Orders and fills",
  "Costs",
  "Account",
  "Several symbols",
  "Figures",
];

/** `percent` is a fraction on the wire. */
export type OptionKind = "choice" | "number" | "whole" | "percent" | "switch";

export interface RunOption {
  /** As on the wire. */
  readonly name: string;
  readonly label: string;
  readonly section: Section;
  readonly kind: OptionKind;
  readonly hint: string;
  /** As on the wire. */
  readonly initial: string | number | boolean;
  readonly choices?: readonly (readonly [value: string, label: string])[];
  /** Bounds on the wire; with `below` the value must be below it. */
  readonly low?: number;
  readonly high?: number;
  readonly below?: number;
}

const one = (
  section: Section,
  name: string,
  label: string,
  kind: OptionKind,
  initial: string | number | boolean,
  hint: string,
  more: Partial<RunOption> = {},
): RunOption => ({ section, name, label, kind, initial, hint, ...more });

const each = (text: string): readonly (readonly [string, string])[] =>
  text.split(", ").map((pair) => {
    const [value = "", label = value] = pair.split("=");
    return [value, label] as const;
  });

export const RUN_OPTIONS: readonly RunOption[] = [
  one("Sizes", "size", "Size of an entry", "choice", "all_in", "All in spends all cash, costs included.", {
    choices: each(
      "all_in=All in, fraction=A fraction of equity, units=A number of units, value=An amount of money, risk=A fraction of equity at risk",
    ),
  }),
  one("Sizes", "sizeValue", "Value of the size", "number", 1, "The fraction (0.1 = 10 %), the units or the money.", {
    low: 0,
  }),
  one("Sizes", "wholeUnits", "Whole units only", "switch", false, "Quantities are rounded down."),
  one("Sizes", "sizeCosts", "Costs within the size", "choice", "exact", "How all in and fraction allow for costs.", {
    choices: each("exact=Exact, per_unit=Per unit (backtesting.py)"),
  }),

  one("Exits", "stopLoss", "Stop loss", "percent", 0, "Of the base price; 0 for none.", { low: 0, below: 1 }),
  one("Exits", "takeProfit", "Take profit", "percent", 0, "Of the base price; 0 for none.", { low: 0 }),
  one("Exits", "trailingStop", "Trailing stop", "percent", 0, "Of the best price since; 0 for none.", {
    low: 0,
    below: 1,
  }),
  one("Exits", "stopBase", "Base price", "choice", "fill_price", "What these fractions count from.", {
    choices: each(
      "fill_price=The price paid, entry_close=Close of the entry's bar, signal_close=Close of the signal's bar",
    ),
  }),
  one("Exits", "stopActive", "They act from", "choice", "same_bar", "The first bar on which exits act.", {
    choices: each(
      "same_bar=The entry's bar, same_bar_at_open=The entry's bar after a fill at its open, next_bar=The next bar",
    ),
  }),
  one(
    "Exits",
    "touch",
    "A touch of a level",
    "choice",
    "rounded",
    "Whether a difference of rounding counts as a touch.",
    {
      choices: each("rounded=Forgives rounding, exact=Exact"),
    },
  ),
  one("Exits", "afterStop", "A signal on a stop's bar", "choice", "obey", "With fills at the close.", {
    choices: each("obey=Is executed, skip=Is skipped (vectorbt)"),
  }),
  one("Exits", "closeAtEnd", "Close at the end", "switch", false, "Else an open position is valued at the last close."),
  one("Exits", "endPrice", "Price of that close", "choice", "close", "Of the last bar.", {
    choices: each("close=Close, open=Open, previous_close=The close before"),
  }),

  one("Orders and fills", "fillAt", "A signal fills at", "choice", "next_open", "A close is known once it is past.", {
    choices: each("next_open=The next open, close=The same close (vectorbt)"),
  }),
  one(
    "Orders and fills",
    "closeBooked",
    "A fill at the close is booked",
    "choice",
    "same_bar",
    "In equity and stops.",
    {
      choices: each("same_bar=On its bar, next_bar=On the next bar (backtesting.py)"),
    },
  ),
  one(
    "Orders and fills",
    "orderType",
    "Order of an entry",
    "choice",
    "market",
    "Others need prices of the algorithm.",
    {
      choices: each("market=Market, limit=Limit, stop=Stop, stop_limit=Stop limit"),
    },
  ),
  one("Orders and fills", "validBars", "Pending orders are valid for", "whole", 0, "Bars; 0 for no end.", {
    low: 0,
    high: 2 ** 31,
  }),
  one("Orders and fills", "direction", "Direction", "choice", "both", "The positions that may be opened.", {
    choices: each("both=Both, long=Long only, short=Short only"),
  }),
  one(
    "Orders and fills",
    "onOpposite",
    "An entry on the other side",
    "choice",
    "reverse",
    "While a position is open.",
    {
      choices: each("reverse=Reverses, close=Only closes, ignore=Is ignored"),
    },
  ),
  one("Orders and fills", "reversal", "A reversal is", "choice", "one_order", "Each order pays a fee.", {
    choices: each("one_order=One order, two_orders=Two orders (backtesting.py)"),
  }),
  one(
    "Orders and fills",
    "shortOfCash",
    "An order beyond cash",
    "choice",
    "reject",
    "Rejected orders state the reason.",
    {
      choices: each("reject=Is rejected, cut=Is cut to the cash (vectorbt)"),
    },
  ),
  one("Orders and fills", "crossTies", "Equal averages", "choice", "keep", "How ties count for a cross.", {
    choices: each("keep=Keep the side, fire=Fire again (vectorbt), strict=Strict (backtesting.py)"),
  }),

  one("Costs", "commissionFixed", "Fixed fee of an order", "number", 0, "Money.", { low: 0 }),
  one("Costs", "commissionPerUnit", "Fee per unit", "number", 0, "Money.", { low: 0 }),
  one("Costs", "commissionMinimum", "Least fee of an order", "number", 0, "Money.", { low: 0 }),
  one("Costs", "slippageOn", "Slippage is paid by", "choice", "market_and_stops", "Limit orders never pay it.", {
    choices: each("market_and_stops=Market orders and stops, market=Market orders, entries=Entries"),
  }),

  one("Account", "leverage", "Leverage", "number", 1, "Times its cash that an account may hold.", {
    low: 1,
    high: 1000,
  }),
  one("Account", "maintenanceMargin", "Maintenance margin", "percent", 0, "Of a position's value.", {
    low: 0,
    high: 1,
  }),
  one("Account", "liquidation", "Liquidation", "choice", "always", "Of an account with nothing left.", {
    choices: each("always=Always, on_credit=With leverage only"),
  }),
  one("Account", "shortCollateral", "Short sales need cash of their value", "switch", true, "Else they are leverage."),

  one("Several symbols", "cashShares", "Cash is shared", "choice", "equal", "By the size all in.", {
    choices: each("equal=In equal parts, first_come=The first order takes all"),
  }),
  one("Several symbols", "sizeBase", "Sizes are fractions of", "choice", "equity", "For fraction and risk.", {
    choices: each("equity=Equity, cash=Free cash"),
  }),
  one("Several symbols", "symbolOrder", "Order of fills", "choice", "sells_first", "At one moment.", {
    choices: each("sells_first=Sales first, given=As the symbols are named"),
  }),

  one("Figures", "calendar", "Calendar", "choice", "auto", "The bars of a year, for yearly figures.", {
    choices: each("auto=Told from the bars, 24/7=365 days, 24/5=365 · 5/7 days, 252d=252 days of 6.5 hours"),
  }),
  one("Figures", "riskFree", "Risk-free rate", "percent", 0, "A year, for Sharpe and Sortino ratios.", {
    low: -0.999999,
    high: 1,
  }),
  one("Figures", "statistics", "Returns of the ratios", "choice", "per_bar", "See docs/conventions.md.", {
    choices: each("per_bar=Per bar, daily_geometric=Daily and compounded (backtesting.py)"),
  }),
  one("Figures", "drawdownFrom", "Drawdowns count from", "choice", "capital", "The first peak.", {
    choices: each("capital=The initial capital, first_close=The first close (vectorbt)"),
  }),
  one(
    "Figures",
    "lookAheadCheck",
    "Check for look-ahead",
    "switch",
    true,
    "It takes milliseconds, and changes no figure.",
  ),
  one("Figures", "timeLimitMs", "Time limit", "whole", 300_000, "Milliseconds that the backtest may take.", {
    low: 1,
    high: 86_400_000,
  }),
];

/** The presets: conventions that imitate another library. */
export const PRESETS: readonly (readonly [value: string, label: string])[] = [
  ["", "backtestr's own"],
  ["vectorbt", "As vectorbt"],
  ["backtesting.py", "As backtesting.py"],
];
