/**
 * A pyramid of minima and maxima over a column, so that the extremes of any range cost about a hundred comparisons
 * instead of a look at each value.
 *
 * NaN is no value: a range of nothing but NaN has none.
 */

/** Values of a level that are one value of the next. */
const BLOCK = 16;
const MIN_CAPACITY = 1024;

/** The extremes of a range; `min` is above `max` where it has no value. */
export interface Extremes {
  min: number;
  max: number;
}

interface Level {
  min: Float64Array;
  max: Float64Array;
}

/** A column that can grow, with its pyramid. */
export class Pyramid {
  #values: Float64Array;
  #length: number;
  #levels: Level[] = [];
  /** False for a column that belongs to the caller: it is copied before it grows. */
  #isOwn: boolean;

  /** Begins with `values`, which are not copied and must not be changed by the caller. */
  constructor(values: Float64Array = new Float64Array(0)) {
    this.#values = values;
    this.#length = values.length;
    this.#isOwn = false;
    this.#build();
  }

  /** The number of values. */
  get length(): number {
    return this.#length;
  }

  /** The column; it may be longer than `length`, and another one after `push`. */
  get values(): Float64Array {
    return this.#values;
  }

  /** Adds a value at the end. */
  push(value: number): void {
    if (!this.#isOwn || this.#length === this.#values.length) this.#grow();
    this.#values[this.#length] = value;
    this.#length += 1;
    this.#note(this.#length - 1, value);
  }

  /** Returns the extremes of the values from index `from` up to, not including, `to`. */
  extremes(from: number, to: number, into: Extremes = { min: 0, max: 0 }): Extremes {
    into.min = Number.POSITIVE_INFINITY;
    into.max = Number.NEGATIVE_INFINITY;
    let low = Math.max(0, from);
    let high = Math.min(this.#length, to);
    let level = -1;
    while (low < high) {
      const above = this.#levels[level + 1];
      // The next level helps from a whole block on.
      if (above === undefined || high - low < 2 * BLOCK) {
        this.#scan(level, low, high, into);
        return into;
      }
      const inner = Math.ceil(low / BLOCK) * BLOCK;
      const outer = Math.floor(high / BLOCK) * BLOCK;
      this.#scan(level, low, inner, into);
      this.#scan(level, outer, high, into);
      low = inner / BLOCK;
      high = outer / BLOCK;
      level += 1;
    }
    return into;
  }

  #scan(level: number, from: number, to: number, into: Extremes): void {
    const own = this.#levels[level];
    const minima = own?.min ?? this.#values;
    const maxima = own?.max ?? this.#values;
    for (let index = from; index < to; index += 1) {
      // A comparison with NaN is false, so NaN is left out.
      const min = minima[index] as number;
      const max = maxima[index] as number;
      if (min < into.min) into.min = min;
      if (max > into.max) into.max = max;
    }
  }

  #build(): void {
    let below: Level = { min: this.#values, max: this.#values };
    let length = this.#length;
    this.#levels = [];
    while (length > BLOCK) {
      const blocks = Math.ceil(length / BLOCK);
      const level = emptyLevel(blocks);
      for (let block = 0; block < blocks; block += 1) {
        const end = Math.min(length, (block + 1) * BLOCK);
        let min = Number.POSITIVE_INFINITY;
        let max = Number.NEGATIVE_INFINITY;
        for (let index = block * BLOCK; index < end; index += 1) {
          const low = below.min[index] as number;
          const high = below.max[index] as number;
          if (low < min) min = low;
          if (high > max) max = high;
        }
        level.min[block] = min;
        level.max[block] = max;
      }
      this.#levels.push(level);
      below = level;
      length = blocks;
    }
  }

  #grow(): void {
    const values = new Float64Array(Math.max(MIN_CAPACITY, 2 * this.#length));
    values.set(this.#values.subarray(0, this.#length));
    this.#values = values;
    this.#isOwn = true;
    let capacity = values.length;
    this.#levels = this.#levels.map((level) => {
      capacity = Math.ceil(capacity / BLOCK);
      return grown(level, capacity);
    });
  }

  /** Enters a value into every level. */
  #note(index: number, value: number): void {
    let block = index;
    for (let level = 0; ; level += 1) {
      block = Math.floor(block / BLOCK);
      const own = this.#levels[level] ?? this.#raised(level);
      if (own === undefined) return;
      if (value < (own.min[block] as number)) own.min[block] = value;
      if (value > (own.max[block] as number)) own.max[block] = value;
    }
  }

  /** Adds the level that the number of values has come to need, with the blocks below in it. */
  #raised(level: number): Level | undefined {
    const below = Math.ceil(this.#length / BLOCK ** level);
    if (below <= BLOCK) return undefined;
    const made = emptyLevel(Math.ceil(this.#values.length / BLOCK ** (level + 1)));
    const into: Extremes = { min: 0, max: 0 };
    for (let block = 0; block * BLOCK < below; block += 1) {
      into.min = Number.POSITIVE_INFINITY;
      into.max = Number.NEGATIVE_INFINITY;
      this.#scan(level - 1, block * BLOCK, Math.min(below, (block + 1) * BLOCK), into);
      made.min[block] = into.min;
      made.max[block] = into.max;
    }
    this.#levels.push(made);
    return made;
  }
}

function emptyLevel(blocks: number): Level {
  return {
    min: new Float64Array(blocks).fill(Number.POSITIVE_INFINITY),
    max: new Float64Array(blocks).fill(Number.NEGATIVE_INFINITY),
  };
}

function grown(level: Level, capacity: number): Level {
  const made = emptyLevel(Math.max(capacity, level.min.length));
  made.min.set(level.min);
  made.max.set(level.max);
  return made;
}
