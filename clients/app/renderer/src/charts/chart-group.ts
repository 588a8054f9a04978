/** A group of charts shares the range in view and the place of the crosshair. Pure. */

import { type Range, within } from "./range";
import type { Axis } from "./time-ticks";

/** Charts of one group show one range, and have one crosshair. */
export class ChartGroup {
  readonly axis: Axis;
  /** The least span of a view, in the unit of the axis. */
  least: number;
  #bounds: Range;
  #range: Range;
  #cursor: number | null = null;
  readonly #onRange = new Set<() => void>();
  readonly #onCursor = new Set<() => void>();

  constructor(axis: Axis, bounds: Range, least: number) {
    this.axis = axis;
    this.least = least;
    this.#bounds = bounds;
    this.#range = bounds;
  }

  /** The range of all values. */
  get bounds(): Range {
    return this.#bounds;
  }

  /** The range in view, in the unit of the axis. */
  get range(): Range {
    return this.#range;
  }

  /** The place of the crosshair; null where there is none. */
  get cursor(): number | null {
    return this.#cursor;
  }

  /** Whether all values are in view. */
  get isWhole(): boolean {
    return this.#range.from <= this.#bounds.from && this.#range.to >= this.#bounds.to;
  }

  /** Takes other bounds. A view of all values stays one, and one at the end follows the end; any other stays. */
  extend(bounds: Range): void {
    const isWhole = this.isWhole;
    const isLast = this.#range.to >= this.#bounds.to;
    const by = bounds.to - this.#bounds.to;
    this.#bounds = bounds;
    if (isWhole) this.show(bounds);
    else this.show(isLast ? { from: this.#range.from + by, to: this.#range.to + by } : this.#range);
  }

  /** Shows a range, kept within the bounds. */
  show(range: Range): void {
    this.#range = within(range, this.#bounds);
    for (const one of this.#onRange) one();
  }

  /** Puts the crosshair to a place, or takes it away. */
  point(place: number | null): void {
    if (place === this.#cursor) return;
    this.#cursor = place;
    for (const one of this.#onCursor) one();
  }

  /** Calls `listener` at every change of the range; returns what ends that. */
  onRange(listener: () => void): () => void {
    this.#onRange.add(listener);
    return () => this.#onRange.delete(listener);
  }

  /** Calls `listener` at every move of the crosshair; returns what ends that. */
  onCursor(listener: () => void): () => void {
    this.#onCursor.add(listener);
    return () => this.#onCursor.delete(listener);
  }
}
