/** Values of MessagePack in this program: comparing them, and keeping them from being changed. */

import { Extension } from "./msgpack-encoder.js";

/**
 * Returns true if two values are the same on the wire: of one type, with the same parts; NaN is the same as NaN. A number
 * of JavaScript does not tell 1 from 1.0, as the wire does.
 */
export function sameValue(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) return true;
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false;
  if (one instanceof Uint8Array || other instanceof Uint8Array) {
    if (!(one instanceof Uint8Array && other instanceof Uint8Array) || one.length !== other.length) return false;
    return one.every((byte, index) => byte === other[index]);
  }
  if (one instanceof Extension || other instanceof Extension) {
    if (!(one instanceof Extension && other instanceof Extension)) return false;
    return one.type === other.type && sameValue(one.data, other.data);
  }
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const mine = entries(one);
  const theirs = new Map(entries(other));
  return (
    mine.length === theirs.size && mine.every(([name, value]) => theirs.has(name) && sameValue(value, theirs.get(name)))
  );
}

function entries(value: object): [string, unknown][] {
  return Object.entries(value).filter(([, one]) => one !== undefined || Array.isArray(value));
}

/** Freezes a value with everything in it, and returns it. Bytes stay as they are: they cannot be frozen. */
export function frozen(value: unknown): unknown {
  if (typeof value === "object" && value !== null && !(value instanceof Uint8Array) && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const one of Object.values(value)) frozen(one);
  }
  return value;
}
