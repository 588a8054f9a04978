/**
 * A resolver decides which value counts when two programs changed the same key of the shared state.
 *
 * It gets `mine` (the value that this program wants to write), `theirs` (the current value) and `base` (the value from
 * which `mine` was made), each null where there is no such key, and returns the value to write. If it returns `theirs`,
 * nothing is written. It may raise a `StateConflict` where people have to decide. It must depend on nothing else, since
 * it may be called several times for one update. The resolver of the longest prefix of a key is used.
 */

import { isMap } from "./codec.js";
import { StateConflict } from "./errors.js";
import { byCodePoint, Extension } from "./msgpack-encoder.js";
import { sameValue } from "./values.js";

/** Decides which value of a key counts. */
export type Resolver = (mine: unknown, theirs: unknown, base: unknown) => unknown;

/** Returns `mine`, which is written last: `theirs` is there already, and is overwritten. */
export function lastWriter(mine: unknown, _theirs: unknown, _base: unknown): unknown {
  return mine;
}

/**
 * Returns the map whose field `lastUpdate` is the greater number; `theirs`, if they are equal. A value without such a
 * number is treated as earlier than one with it. If neither has one, the last writer wins.
 */
export function laterUpdate(mine: unknown, theirs: unknown, _base: unknown): unknown {
  const myTime = lastUpdate(mine);
  const theirTime = lastUpdate(theirs);
  if (theirTime === null) return mine;
  return myTime !== null && myTime > theirTime ? mine : theirs;
}

/**
 * Returns a map with both changes, if they are to different fields, at any depth.
 *
 * A field that both changed to the same value has that value. A field named `lastModified` has the later of both times,
 * where both are numbers, texts (of ISO 8601) or timestamps. Any other field that both changed differently, also one that
 * one of them removed, raises a `StateConflict` with `details.fields`. Values that are not maps have no fields: they
 * conflict unless one of them is unchanged.
 */
export function mergeFields(mine: unknown, theirs: unknown, base: unknown): unknown {
  const conflicts: string[] = [];
  const merged = mergedOf(mine, theirs, base, "", conflicts);
  if (conflicts.length > 0) {
    throw new StateConflict(`changed by both, differently: ${conflicts.join(", ")}; read it again, and decide`, {
      fields: conflicts,
    });
  }
  return merged === NOTHING ? null : merged;
}

/** The resolvers that every client has, by prefixes of keys. */
export const DEFAULT_RESOLVERS: { readonly [prefix: string]: Resolver } = {
  "backtest.": laterUpdate,
  "algorithm.": mergeFields,
  "": lastWriter,
};

/** Returns the resolver of the longest prefix of `key` in `resolvers`. */
export function resolverFor(key: string, resolvers: { readonly [prefix: string]: Resolver }): Resolver {
  let longest = "";
  for (const prefix of Object.keys(resolvers)) {
    if (key.startsWith(prefix) && prefix.length > longest.length) longest = prefix;
  }
  return resolvers[longest] ?? lastWriter;
}

function lastUpdate(value: unknown): number | bigint | null {
  const at = isMap(value) ? value.lastUpdate : null;
  return isNumber(at) && !Number.isNaN(at) ? at : null;
}

function isNumber(value: unknown): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}

const NOTHING = Symbol("no such field");
// The field of a time of change: two changes have two of them, and that is no conflict.
const LAST_MODIFIED = "lastModified";
const TIMESTAMP = -1;

/** Returns the later of two times of one kind, the only one where the other is not there, else `NOTHING`. */
function later(mine: unknown, theirs: unknown): unknown {
  if (mine === NOTHING || theirs === NOTHING) return mine === NOTHING ? theirs : mine;
  if (isNumber(mine) && isNumber(theirs)) return Number.isNaN(theirs) || mine > theirs ? mine : theirs;
  if (typeof mine === "string" && typeof theirs === "string") return byCodePoint(mine, theirs) > 0 ? mine : theirs;
  const [one, other] = [nanoseconds(mine), nanoseconds(theirs)];
  if (one !== null && other !== null) return one >= other ? mine : theirs;
  return NOTHING;
}

/** Returns a timestamp of MessagePack in nanoseconds, null for anything else. */
function nanoseconds(value: unknown): bigint | null {
  if (!(value instanceof Extension) || value.type !== TIMESTAMP) return null;
  const { data } = value;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const billion = 1_000_000_000n;
  if (data.length === 4) return BigInt(view.getUint32(0)) * billion;
  if (data.length === 8) {
    const both = view.getBigUint64(0);
    return (both & 0x3ffffffffn) * billion + (both >> 34n);
  }
  return data.length === 12 ? view.getBigInt64(4) * billion + BigInt(view.getUint32(0)) : null;
}

function mergedOf(mine: unknown, theirs: unknown, base: unknown, path: string, conflicts: string[]): unknown {
  if (sameValue(mine, theirs) || sameValue(theirs, base)) return mine;
  if (sameValue(mine, base)) return theirs;
  if (path === LAST_MODIFIED || path.endsWith(`.${LAST_MODIFIED}`)) {
    const latest = later(mine, theirs);
    if (latest !== NOTHING) return latest;
  }
  if (!isMap(mine) || !isMap(theirs)) {
    conflicts.push(path || "the whole value");
    return mine;
  }
  const fields = isMap(base) ? base : {};
  const merged: [string, unknown][] = [];
  for (const name of [...new Set([...Object.keys(mine), ...Object.keys(theirs)])].sort(byCodePoint)) {
    const within = path === "" ? name : `${path}.${name}`;
    const value = mergedOf(field(mine, name), field(theirs, name), field(fields, name), within, conflicts);
    if (value !== NOTHING) merged.push([name, value]);
  }
  return Object.fromEntries(merged);
}

function field(map: { readonly [name: string]: unknown }, name: string): unknown {
  return Object.hasOwn(map, name) ? map[name] : NOTHING;
}
