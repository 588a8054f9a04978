/** Values of the shared state as text that people can read and edit. */

/** Characters of a value that are shown; a longer one can be saved as a file, and not be edited here. */
export const MOST_SHOWN = 65_536;
/** Characters of a value in a list. */
const MOST_LISTED = 160;
/** Items of a list or map that are looked at for a line in a list. */
const MOST_ITEMS = 40;

export interface ValueText {
  readonly text: string;
  /** The reason why the text cannot be edited here; undefined where it can. */
  readonly fixed: string | undefined;
  /** The characters of the whole text. */
  readonly characters: number;
}

/** Returns a value as JSON, indented; what JSON cannot hold is named in its place, and such a value cannot be edited. */
export function textOf(value: unknown): ValueText {
  let foreign: string | undefined;
  const whole =
    JSON.stringify(
      value,
      function (this: unknown, name: string, one: unknown): unknown {
        const found = foreignText(heldOf(this, name, one));
        if (found === undefined) return one;
        foreign ??= found;
        return found;
      },
      2,
    ) ?? "undefined";
  const text = whole.slice(0, MOST_SHOWN);
  if (whole.length > MOST_SHOWN) {
    return { text, fixed: "It is too long to be edited here.", characters: whole.length };
  }
  return {
    text,
    fixed: foreign === undefined ? undefined : `JSON cannot hold ${foreign}, so it cannot be edited here.`,
    characters: whole.length,
  };
}

/** The whole of a value as JSON, for a file. */
export function fileOf(value: unknown): string {
  return JSON.stringify(value, (_name, one: unknown) => foreignText(one) ?? one, 2) ?? "undefined";
}

// A `toJSON` of a date has been called before the replacer sees it.
function heldOf(holder: unknown, name: string, one: unknown): unknown {
  return typeof holder === "object" && holder !== null ? (holder as { [name: string]: unknown })[name] : one;
}

/** Returns the words for what JSON cannot hold; undefined for what it can. */
function foreignText(value: unknown): string | undefined {
  switch (typeof value) {
    case "number":
      return Number.isFinite(value) ? undefined : String(value);
    case "bigint":
      return `the large integer ${value}`;
    case "object":
      if (value instanceof Uint8Array) return `${value.length} bytes`;
      if (value instanceof Date) return `the time ${value.toISOString()}`;
      if (value instanceof Map) return `a map of ${value.size} keys that are not all texts`;
      return undefined;
    default:
      return undefined;
  }
}

/** Returns a value as one line of bounded length, without walking through all of a large one. */
export function lineOf(value: unknown): string {
  let items = 0;
  const short = (one: unknown, depth: number): string => {
    items += 1;
    const foreign = foreignText(one);
    if (foreign !== undefined) return foreign;
    if (typeof one === "string")
      return JSON.stringify(one.length > MOST_LISTED ? `${one.slice(0, MOST_LISTED)}…` : one);
    if (typeof one !== "object" || one === null) return String(one);
    if (items > MOST_ITEMS || depth > 4) return "…";
    if (Array.isArray(one)) return `[${listed(one.length, one, (item) => short(item, depth + 1))}]`;
    const names = Object.keys(one);
    const held = one as { [name: string]: unknown };
    return `{${listed(names.length, names, (name) => `${name}: ${short(held[name], depth + 1)}`)}}`;
  };
  const text = short(value, 0);
  return text.length > MOST_LISTED ? `${text.slice(0, MOST_LISTED)}…` : text;
}

function listed<Item>(length: number, items: readonly Item[], show: (item: Item) => string): string {
  const shown = items.slice(0, 12).map(show);
  return [...shown, ...(length > shown.length ? [`… ${length - shown.length} more`] : [])].join(", ");
}

/** Returns the value that a text has, or why it has none. */
export function parsedValue(text: string): { readonly value: unknown } | { readonly error: string } {
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error);
    const place = /at position (\d+)/.exec(words)?.[1];
    if (text.trim() === "")
      return { error: "Type a value as JSON: a number, true, false, null, a text in quotes, [ ] or { }." };
    if (place === undefined) return { error: `This is no JSON: ${words}.` };
    const before = text.slice(0, Number(place)).split("\n");
    const what = words.replace(/ in JSON at position.*$/, "");
    return { error: `This is no JSON, line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}: ${what}.` };
  }
}
