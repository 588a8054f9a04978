/** The range of values that colours stand for. Pure. */

/** Colours go from `worst` to `best`, which is the lower one where less is better. */
export interface ValueDomain {
  readonly worst: number;
  readonly best: number;
  /** True where values lie beyond the range: a few far ones would leave one colour for all others. */
  readonly isCut: boolean;
}

/** The shares of values that may lie beyond the range. */
const CUT = 0.01;
/** Values from which some may be cut off. */
const MANY = 100;
/** The range of all values is cut where it is so many times that of the others. */
const FAR = 3;

/** Returns the domain of values, of which those that are not finite do not count; undefined where there are none. */
export function domainOf(values: ArrayLike<number>, isLessBetter: boolean): ValueDomain | undefined {
  const sorted = Float64Array.from(values).filter(Number.isFinite).sort();
  const last = sorted.length - 1;
  if (last < 0) return undefined;
  let [low, high] = [sorted[0] as number, sorted[last] as number];
  const [from, to] = [sorted[Math.ceil(CUT * last)] as number, sorted[Math.floor((1 - CUT) * last)] as number];
  const isCut = last >= MANY && to > from && high - low > FAR * (to - from);
  if (isCut) [low, high] = [from, to];
  return isLessBetter ? { worst: high, best: low, isCut } : { worst: low, best: high, isCut };
}

/** Returns where a value lies in a domain, from 0, the worst, to 1, the best; 1 where all values are the same. */
export function shareOf(value: number, { worst, best }: ValueDomain): number {
  if (worst === best) return 1;
  return Math.max(0, Math.min(1, (value - worst) / (best - worst)));
}
