/**
 * Filters of a subscription: which of the messages that arrive a program wants to read.
 *
 * A filter is applied to what was received, put in order and repaired, so it hides no gap: a message that does not pass
 * has its sequence number all the same. What the broker need not send at all is left to the topic (`narrowed`).
 */

import { isMap, shown } from "./codec.js";
import { didYouMean } from "./near-miss.js";
import { socketsFor } from "./topics.js";

/** The wanted values of each field; a field that is left out passes everything. */
export interface Filters {
  /** One symbol, or several. */
  readonly symbol?: string | readonly string[] | undefined;
  /** `buy` or `sell`; of a position `buy` for a long and `sell` for a short one. */
  readonly side?: string | readonly string[] | undefined;
  /** The status of orders, backtests or price replays. */
  readonly status?: string | readonly string[] | undefined;
  /** The least quantity of orders and positions, without its sign. */
  readonly minQuantity?: number | undefined;
}

type Field = keyof Filters;

// The fields by which messages of a topic class can be told apart.
const FIELDS: { readonly [prefix: string]: readonly Field[] } = {
  "prices.": ["symbol"],
  "orders.": ["symbol", "side", "status", "minQuantity"],
  "positions.": ["symbol", "side", "minQuantity"],
  "system.backtests": ["symbol", "status"],
  "system.replays": ["symbol", "status"],
};
const SIDES = ["buy", "sell"];
const STATUSES: { readonly [prefix: string]: readonly string[] } = {
  "orders.": ["pending", "filled", "cancelled", "rejected"],
  "system.backtests": ["queued", "running", "paused", "completed", "failed", "stopped"],
  "system.replays": ["running", "paused", "completed", "stopped", "failed"],
};

/**
 * The filter of one subscription. A closed position has no side and no quantity, and passes the side and quantity of its
 * filter, so that a reader learns of the end.
 */
export class UpdateFilter {
  readonly symbols: ReadonlySet<string> | null;
  readonly #sides: ReadonlySet<string> | null;
  readonly #statuses: ReadonlySet<string> | null;
  readonly #minQuantity: number | null;

  constructor(
    symbols: ReadonlySet<string> | null,
    sides: ReadonlySet<string> | null,
    statuses: ReadonlySet<string> | null,
    minQuantity: number | null,
  ) {
    this.symbols = symbols;
    this.#sides = sides;
    this.#statuses = statuses;
    this.#minQuantity = minQuantity;
  }

  /** Returns whether a message with these data is wanted; one that has no such field is. */
  passes(data: unknown): boolean {
    if (!isMap(data)) return true;
    if (this.symbols !== null && !this.#hasSymbol(this.symbols, data)) return false;
    const { status, quantity, side } = data;
    if (this.#statuses !== null && typeof status === "string" && !this.#statuses.has(status)) return false;
    const isClosed = quantity === 0 && side === undefined;
    if (typeof quantity !== "number" || isClosed) return true;
    if (this.#minQuantity !== null && Math.abs(quantity) < this.#minQuantity) return false;
    const ofPosition = quantity > 0 ? "buy" : "sell";
    return this.#sides === null || this.#sides.has(typeof side === "string" ? side : ofPosition);
  }

  #hasSymbol(wanted: ReadonlySet<string>, data: { readonly [name: string]: unknown }): boolean {
    const { symbol, symbols } = data;
    if (typeof symbol !== "string") return true;
    return wanted.has(symbol) || (Array.isArray(symbols) && symbols.some((one) => wanted.has(one)));
  }
}

/**
 * Returns the filter of a subscription to `prefix`, null where nothing is asked for. Raises a `TypeError` for a field that
 * messages of that topic do not have, and for a value that no message has.
 */
export function updateFilter(prefix: string, filters: Filters): UpdateFilter | null {
  const asked = Object.entries(filters).filter(([, value]) => value !== undefined);
  if (asked.length === 0) return null;
  const topicClass = Object.keys(FIELDS).find((name) => prefix.startsWith(name)) ?? prefix;
  const possible: readonly string[] = FIELDS[topicClass] ?? [];
  for (const [name] of asked) {
    if (possible.includes(name)) continue;
    const having = Object.entries(FIELDS).filter(([, fields]) => (fields as readonly string[]).includes(name));
    const listed = having.map(([one]) => one).join(", ") || "none";
    throw new TypeError(
      `messages of ${JSON.stringify(prefix)} cannot be filtered by ${name}; those of these can: ${listed}`,
    );
  }
  const { symbol, side, status, minQuantity } = filters;
  if (minQuantity !== undefined && !(typeof minQuantity === "number" && minQuantity >= 0 && minQuantity < Infinity)) {
    throw new TypeError(`minQuantity: expected a number, 0 or more; ${shown(minQuantity)} came`);
  }
  return new UpdateFilter(
    texts("symbol", symbol),
    texts("side", side, SIDES),
    texts("status", status, STATUSES[topicClass]),
    minQuantity ?? null,
  );
}

/** Returns the longest prefix of all wanted topics: what does not begin so is not sent by the broker at all. */
export function narrowed(prefix: string, wanted: UpdateFilter | null): string {
  if (prefix !== "prices." || wanted?.symbols?.size !== 1) return prefix;
  const ofSymbol = `prices.${[...wanted.symbols][0]}.`;
  return socketsFor(ofSymbol).length > 0 ? ofSymbol : prefix;
}

function texts(
  name: string,
  given: string | readonly string[] | undefined,
  known?: readonly string[],
): ReadonlySet<string> | null {
  if (given === undefined) return null;
  const list: readonly unknown[] = Array.isArray(given) ? given : [given];
  if (list.length === 0) {
    throw new TypeError(`${name}: an empty filter would pass nothing; leave it out to pass all`);
  }
  for (const text of list) {
    if (typeof text !== "string") throw new TypeError(`${name}: expected a text or several; ${shown(text)} came`);
    if (known !== undefined && !known.includes(text)) {
      throw new TypeError(
        `${name}: expected one of ${known.join(", ")}; ${shown(text)} came${didYouMean(text, known)}`,
      );
    }
  }
  return new Set(list as string[]);
}
