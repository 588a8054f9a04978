/** The values under the crosshair. Pure. */

import type { Pyramid } from "./pyramid";
import { nearestIndex } from "./search";

/** Returns the index of the value nearest to a place; the last one without a place; -1 of an empty column. */
export function readIndex(xs: ArrayLike<number>, values: Pyramid, place: number | null): number {
  const length = Math.min(xs.length, values.length);
  return place === null ? length - 1 : nearestIndex(xs, place, length);
}

/** Returns the place of the value that is `steps` from the one nearest to `place`; infinite steps go to an end. */
export function steppedPlace(xs: ArrayLike<number>, length: number, place: number, steps: number): number {
  if (length === 0) return place;
  const at = steps === Number.NEGATIVE_INFINITY ? 0 : nearestIndex(xs, place, length) + steps;
  return xs[Math.max(0, Math.min(length - 1, at))] as number;
}
