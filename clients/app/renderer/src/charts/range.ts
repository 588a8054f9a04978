/** The range of time that a chart shows: zoomed, moved and kept within bounds. Pure. */

/** A range, `from` below `to`, in the unit of the axis. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** Returns the range of the same span that lies within `bounds`, or `bounds` if it is wider. */
export function within(range: Range, bounds: Range): Range {
  const span = range.to - range.from;
  if (!(span < bounds.to - bounds.from)) return bounds;
  if (range.from < bounds.from) return { from: bounds.from, to: bounds.from + span };
  if (range.to > bounds.to) return { from: bounds.to - span, to: bounds.to };
  return range;
}

/**
 * Returns the range with its span times `factor`, in which `anchor` stays where it is.
 *
 * The span stays between `least` and that of `bounds`.
 */
export function zoomed(range: Range, factor: number, anchor: number, bounds: Range, least: number): Range {
  const span = range.to - range.from;
  const widest = bounds.to - bounds.from;
  const wanted = Math.min(widest, Math.max(Math.min(least, widest), span * factor));
  const share = span > 0 ? (anchor - range.from) / span : 0.5;
  const from = anchor - share * wanted;
  return within({ from, to: from + wanted }, bounds);
}

/** Returns the range moved by a share of its span: 0.1 is a tenth to the right. */
export function moved(range: Range, share: number, bounds: Range): Range {
  const by = (range.to - range.from) * share;
  return within({ from: range.from + by, to: range.to + by }, bounds);
}

/** The move of a chart for a key. */
export type KeyAction =
  | { readonly kind: "range"; readonly range: Range }
  | { readonly kind: "cursor"; readonly steps: number }
  | { readonly kind: "end"; readonly side: "first" | "last" };

/** The keys of a chart, for its description. */
export const KEYS_HELP =
  "Arrow keys move the crosshair, with Shift the view. Plus and minus zoom, Home and End go to the first and last value, 0 shows all.";

/** Returns what a key does, or undefined for one that a chart does not use. */
export function keyAction(
  key: string,
  isShifted: boolean,
  range: Range,
  bounds: Range,
  least: number,
): KeyAction | undefined {
  const middle = (range.from + range.to) / 2;
  const direction = key === "ArrowLeft" ? -1 : 1;
  switch (key) {
    case "ArrowLeft":
    case "ArrowRight":
      if (isShifted) return { kind: "range", range: moved(range, 0.2 * direction, bounds) };
      return { kind: "cursor", steps: direction };
    case "PageUp":
    case "PageDown":
      return { kind: "range", range: moved(range, key === "PageUp" ? -0.9 : 0.9, bounds) };
    case "+":
    case "=":
      return { kind: "range", range: zoomed(range, 0.5, middle, bounds, least) };
    case "-":
    case "_":
      return { kind: "range", range: zoomed(range, 2, middle, bounds, least) };
    case "0":
      return { kind: "range", range: bounds };
    case "Home":
      return { kind: "end", side: "first" };
    case "End":
      return { kind: "end", side: "last" };
    default:
      return undefined;
  }
}
