/** The finished cells of a sweep as columns, each cell once. Pure. */

import type { Column } from "@backtestr/client/page";

/** Cells that are kept, as many as all progress of a sweep names. */
export const MOST_CELLS = 65_536;

/** Columns of one length: the number of each cell, the swept parameters by name, and the objective. */
export interface CellColumns {
  readonly cell: ArrayLike<number>;
  readonly value: ArrayLike<number>;
  readonly parameters: { readonly [name: string]: ArrayLike<number> };
}

/** The cells so far. A value is NaN where the objective is undefined, or the cell has failed. */
export class SweepCells {
  readonly names: readonly string[];
  /** Counts the changes. */
  revision = 0;
  #count = 0;
  #cells = new Float64Array(1024);
  #values = new Float64Array(1024);
  #parameters: Float64Array[];
  #places = new Map<number, number>();

  constructor(names: readonly string[]) {
    this.names = names;
    this.#parameters = names.map(() => new Float64Array(1024));
  }

  get count(): number {
    return this.#count;
  }

  get cells(): Float64Array {
    return this.#cells.subarray(0, this.#count);
  }

  get values(): Float64Array {
    return this.#values.subarray(0, this.#count);
  }

  /** The values of a parameter, by its place in `names`. */
  parameter(at: number): Float64Array {
    return (this.#parameters[at] as Float64Array).subarray(0, this.#count);
  }

  /** Returns the place of a cell; undefined where it is not known. */
  placeOf(cell: number): number | undefined {
    return this.#places.get(cell);
  }

  /** Adds cells; those that are known are left, and so are all beyond `MOST_CELLS`. */
  add(columns: CellColumns): void {
    const given = this.names.map((name) => columns.parameters[name]);
    if (given.includes(undefined)) return;
    for (let row = 0; row < columns.cell.length && this.#count < MOST_CELLS; row += 1) {
      const cell = columns.cell[row] as number;
      if (this.#places.has(cell)) continue;
      if (this.#count === this.#cells.length) this.#grow();
      this.#places.set(cell, this.#count);
      this.#cells[this.#count] = cell;
      this.#values[this.#count] = columns.value[row] as number;
      given.forEach((column, at) => {
        (this.#parameters[at] as Float64Array)[this.#count] = (column as ArrayLike<number>)[row] as number;
      });
      this.#count += 1;
    }
    this.revision += 1;
  }

  #grow(): void {
    const longer = (column: Float64Array): Float64Array<ArrayBuffer> => {
      const next = new Float64Array(2 * column.length);
      next.set(column);
      return next;
    };
    this.#cells = longer(this.#cells);
    this.#values = longer(this.#values);
    this.#parameters = this.#parameters.map(longer);
  }
}

/** Returns the column of an axis: of a swept parameter, or of the objective, which is no parameter. */
export function columnOf(cells: SweepCells, axis: string): Float64Array {
  const at = cells.names.indexOf(axis);
  return at < 0 ? cells.values : cells.parameter(at);
}

/** Returns the columns of a progress message. Raises a `RangeError` for a column that is none. */
export function columnsOf(done: { readonly [name: string]: Column }): CellColumns {
  const { cell, value, ...others } = Object.fromEntries(
    Object.entries(done).map(([name, column]) => [name, numbersOf(column)]),
  );
  if (cell === undefined || value === undefined) throw new RangeError("cells have a number and a value");
  return { cell, value, parameters: others };
}

function numbersOf({ dtype, data }: Column): Float64Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const numbers = new Float64Array(data.length / 8);
  for (let at = 0; at < numbers.length; at += 1) {
    numbers[at] =
      dtype === "<f8"
        ? view.getFloat64(8 * at, true)
        : view.getInt32(8 * at + 4, true) * 4_294_967_296 + view.getUint32(8 * at, true);
  }
  return numbers;
}
