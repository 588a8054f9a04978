/** Buying and holding, as the engine measures it (`buyAndHoldReturn`), at each bar. Pure. */

/** The formula, for readers. */
export const BUY_AND_HOLD_FORMULA =
  "The initial capital · close / first close, without costs; of several symbols, with equal parts in each, which are cash until a symbol's first close.";

/**
 * Returns the worth of `capital` that bought every symbol in equal parts at its first close; until then a part is cash.
 *
 * `closes` has a column for each symbol, NaN where it has no bar; the last close holds there.
 */
export function buyAndHold(closes: readonly ArrayLike<number>[], capital: number, bars: number): Float64Array {
  const worth = new Float64Array(bars);
  for (const column of closes) {
    let first = Number.NaN;
    let last = Number.NaN;
    for (let bar = 0; bar < bars; bar += 1) {
      const close = column[bar] as number;
      if (!Number.isNaN(close)) {
        last = close;
        if (Number.isNaN(first)) first = close;
      }
      worth[bar] = (worth[bar] as number) + (Number.isNaN(first) ? 1 : last / first);
    }
  }
  const part = closes.length === 0 ? Number.NaN : capital / closes.length;
  for (let bar = 0; bar < bars; bar += 1) worth[bar] = (worth[bar] as number) * part;
  return worth;
}
