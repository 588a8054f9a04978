/** Arguments of callers as the wire has them: times, symbols, durations and the fields of options. */

import { isMap, shown } from "./core/codec.js";
import { didYouMean } from "./core/near-miss.js";

/** A point in time: a `Date`, text in ISO 8601, or whole milliseconds since the Unix epoch. Without an offset it is UTC. */
export type Instant = Date | string | number;

const WHICH = "give a Date, ISO 8601 text such as 2022-01-03 or 2022-01-03T14:30Z, or whole milliseconds since 1970";
const ISO = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$/;
const HAS_OFFSET = /(Z|[+-]\d{2}(:?\d{2})?)$/;

/** Returns milliseconds since the Unix epoch, rounded down. Raises a `TypeError` for what is no time. */
export function asMs(instant: Instant, name: string): number {
  if (typeof instant === "number" && Number.isSafeInteger(instant)) return instant;
  const ms = instant instanceof Date ? instant.getTime() : typeof instant === "string" ? parsed(instant) : Number.NaN;
  if (Number.isNaN(ms)) throw new TypeError(`${name}: ${shown(instant)} is not a time; ${WHICH}`);
  return ms;
}

/** Returns ISO 8601 text in UTC. Raises a `TypeError` for what is no time. */
export function asIso(instant: Instant, name: string): string {
  const ms = asMs(instant, name);
  // The largest time of a Date is 8.64e15 ms.
  if (Math.abs(ms) > 8.64e15) throw new TypeError(`${name}: ${shown(instant)} is not a time; ${WHICH}`);
  return new Date(ms).toISOString();
}

function parsed(text: string): number {
  if (!ISO.test(text)) return Number.NaN;
  // Date takes the 30th of February for the 2nd of March.
  const day = text.slice(0, 10);
  const midnight = Date.parse(day);
  if (Number.isNaN(midnight) || new Date(midnight).toISOString().slice(0, 10) !== day) return Number.NaN;
  const full = text.length === 10 ? `${text}T00:00Z` : text.replace(" ", "T").replace(",", ".");
  const withOffset = HAS_OFFSET.test(full.slice(11)) ? full : `${full}Z`;
  // Date reads an offset with minutes alone.
  return Date.parse(withOffset.replace(/([+-]\d{2})$/, "$1:00").replace(/([+-]\d{2})(\d{2})$/, "$1:$2"));
}

/** Returns `value` with every `Date` in it as text in ISO 8601, at any depth. */
export function withTimesAsText(value: unknown, path: string): unknown {
  if (value instanceof Date) return asIso(value, path);
  if (Array.isArray(value)) return value.map((one: unknown, index) => withTimesAsText(one, `${path}[${index}]`));
  if (!isMap(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [name, withTimesAsText(one, `${path}.${name}`)]),
  );
}

/** Returns one symbol or several as a list. Raises a `TypeError` for none. */
export function asSymbols(symbol: string | readonly string[]): readonly string[] {
  const symbols: readonly unknown[] = Array.isArray(symbol) ? symbol : [symbol];
  if (symbols.length === 0) throw new TypeError("symbol: a backtest needs at least one symbol");
  for (const one of symbols) {
    if (typeof one !== "string") throw new TypeError(`symbol: expected a text or several; ${shown(one)} came`);
  }
  return symbols as readonly string[];
}

/** Returns a duration in seconds. Raises a `TypeError` for what is no duration in milliseconds. */
export function asSeconds(ms: number, name: string): number {
  if (typeof ms !== "number" || !(ms > 0)) {
    throw new TypeError(`${name}: expected a number of milliseconds above 0; ${shown(ms)} came`);
  }
  return ms / 1000;
}

/** Raises a `TypeError` unless `options` is a plain object with no other fields than `known`. */
export function checkOptions(options: unknown, known: readonly string[], of: string): void {
  if (!isMap(options)) throw new TypeError(`${of}: expected a plain object of options; ${shown(options)} came`);
  for (const [name, value] of Object.entries(options)) {
    if (!known.includes(name) && value !== undefined) {
      throw new TypeError(`${of}: unknown option ${name}${didYouMean(name, known)} (${known.join(", ")})`);
    }
  }
}
