/** Binary search in sorted columns. */

/** Returns the first index in [0, length] whose value is at least `wanted`. `sorted` is ascending. */
export function lowerBound(sorted: ArrayLike<number>, wanted: number, length = sorted.length): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] as number) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Returns the first index in [0, length] whose value is above `wanted`. `sorted` is ascending. */
export function upperBound(sorted: ArrayLike<number>, wanted: number, length = sorted.length): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] as number) <= wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Returns the index whose value is nearest to `wanted`; -1 of an empty column. `sorted` is ascending. */
export function nearestIndex(sorted: ArrayLike<number>, wanted: number, length = sorted.length): number {
  if (length === 0) return -1;
  const after = lowerBound(sorted, wanted, length);
  if (after === 0) return 0;
  if (after === length) return length - 1;
  const before = after - 1;
  return wanted - (sorted[before] as number) <= (sorted[after] as number) - wanted ? before : after;
}
