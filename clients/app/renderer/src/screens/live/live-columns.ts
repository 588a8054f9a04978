/** Keeps what a running backtest has told, in columns of a stated size. Pure. */

import type { BacktestProgress, OrderUpdate, PositionUpdate } from "@backtestr/client/page";
import type { FillColumns } from "../../charts/fill-columns";
import { Pyramid } from "../../charts/pyramid";

/** Points of the equity curve that are kept: beyond it every second one goes. */
export const MAX_POINTS = 500_000;
/** Orders and positions that are kept: beyond it the oldest tenth goes. The result has all. */
export const MAX_ROWS = 20_000;
/** Fills that are drawn: beyond it the older half goes. */
export const MAX_FILLS = 100_000;

/** The equity curve by the time of each progress. */
export class EquityPoints {
  times = new Pyramid();
  equity = new Pyramid();
  /** Negative fractions. */
  drawdown = new Pyramid();
  /** How often every second point went. */
  halved = 0;

  /** Adds the point of a progress, which is not earlier than the last. Returns false for an earlier one. */
  add(progress: BacktestProgress): boolean {
    const { timestamp, equity, drawdown } = progress.equityCurvePoint;
    const last =
      this.times.length === 0 ? Number.NEGATIVE_INFINITY : (this.times.values[this.times.length - 1] as number);
    if (timestamp <= last) return false;
    this.times.push(timestamp);
    this.equity.push(equity);
    this.drawdown.push(-drawdown);
    if (this.times.length >= MAX_POINTS) this.#halve();
    return true;
  }

  #halve(): void {
    const half = (from: Pyramid): Pyramid => {
      const made = new Pyramid();
      for (let at = 1; at < from.length; at += 2) made.push(from.values[at] as number);
      return made;
    };
    [this.times, this.equity, this.drawdown] = [half(this.times), half(this.equity), half(this.drawdown)];
    this.halved += 1;
  }
}

/** The latest state of each of many things that have an id, the newest thing last. */
export class Latest<Item> {
  readonly #idOf: (item: Item) => string;
  #items: Item[] = [];
  #places = new Map<string, number>();
  #seen = 0;

  constructor(idOf: (item: Item) => string) {
    this.#idOf = idOf;
  }

  /** The number of things that are kept. */
  get length(): number {
    return this.#items.length;
  }

  /** The number of things that ever came. */
  get seen(): number {
    return this.#seen;
  }

  /** Takes a new state of a thing. */
  put(item: Item): void {
    const id = this.#idOf(item);
    const place = this.#places.get(id);
    if (place !== undefined) {
      this.#items[place] = item;
      return;
    }
    if (this.#items.length >= MAX_ROWS) {
      this.#items = this.#items.slice(MAX_ROWS / 10);
      this.#places = new Map(this.#items.map((one, at) => [this.#idOf(one), at]));
    }
    this.#places.set(id, this.#items.length);
    this.#items.push(item);
    this.#seen += 1;
  }

  /** Returns the thing that is `age` things older than the newest. */
  newest(age: number): Item | undefined {
    return this.#items[this.#items.length - 1 - age];
  }
}

/** Returns the orders of a backtest, none yet. */
export function noOrders(): Latest<OrderUpdate> {
  return new Latest((order) => order.orderId);
}

/** Returns the positions of a backtest, none yet. */
export function noPositions(): Latest<PositionUpdate> {
  return new Latest((position) => position.positionId);
}

/** Fills as they come, in columns that grow. */
export class GrowingFills {
  #times = new Float64Array(1024);
  #prices = new Float64Array(1024);
  #quantities = new Float64Array(1024);
  #sides = new Int8Array(1024);
  #none = new Int32Array(1024).fill(-1);
  #length = 0;
  #seen = 0;

  /** The number of fills that ever came. */
  get seen(): number {
    return this.#seen;
  }

  /** Adds a fill that is not earlier than the last one. */
  add(order: OrderUpdate): void {
    if (order.fillPrice === undefined) return;
    if (this.#length === MAX_FILLS) this.#drop(MAX_FILLS / 2);
    if (this.#length === this.#times.length) this.#grow();
    this.#times[this.#length] = order.timestamp;
    this.#prices[this.#length] = order.fillPrice;
    this.#quantities[this.#length] = order.fillQuantity ?? order.quantity;
    this.#sides[this.#length] = order.side === "buy" ? 1 : -1;
    this.#length += 1;
    this.#seen += 1;
  }

  /** Returns the fills. They belong to no trade yet. */
  columns(): FillColumns {
    const none = this.#none.subarray(0, this.#length);
    return {
      times: this.#times.subarray(0, this.#length),
      prices: this.#prices.subarray(0, this.#length),
      quantities: this.#quantities.subarray(0, this.#length),
      sides: this.#sides.subarray(0, this.#length),
      opens: none,
      closes: none,
    };
  }

  #grow(): void {
    const longer = <Column extends Float64Array | Int8Array>(column: Column): Column => {
      const made = new (column.constructor as new (length: number) => Column)(2 * column.length);
      made.set(column);
      return made;
    };
    this.#times = longer(this.#times);
    this.#prices = longer(this.#prices);
    this.#quantities = longer(this.#quantities);
    this.#sides = longer(this.#sides);
    this.#none = new Int32Array(this.#times.length).fill(-1);
  }

  #drop(count: number): void {
    for (const column of [this.#times, this.#prices, this.#quantities, this.#sides]) column.copyWithin(0, count);
    this.#length -= count;
  }
}

/** A share of the work done at a time, for the time that is left. */
interface Mark {
  readonly at: number;
  readonly percent: number;
}

const WINDOW_MS = 15_000;
const MIN_MS = 1_000;

/** Tells the time that is left from the progress of the last 15 seconds. */
export class TimeLeft {
  #marks: Mark[] = [];
  readonly #from: number;

  /** `from` is the progress in percent when the watch begins: what is told of earlier comes faster than it was made. */
  constructor(from = 0) {
    this.#from = from;
  }

  /** Notes a progress at a time in milliseconds. */
  note(percent: number, at: number): void {
    if (percent < this.#from) return;
    const last = this.#marks.at(-1);
    if (last !== undefined && percent < last.percent) this.#marks = [];
    // Ten marks a second are enough.
    if (last !== undefined && at - last.at < 100) return;
    this.#marks.push({ at, percent });
    while (this.#marks.length > 2 && at - (this.#marks[0] as Mark).at > WINDOW_MS) this.#marks.shift();
  }

  /** Forgets the past, as after a pause. */
  reset(): void {
    this.#marks = [];
  }

  /** Returns the milliseconds that are left; undefined while they cannot be told. */
  left(): number | undefined {
    const [first, last] = [this.#marks[0], this.#marks.at(-1)];
    if (first === undefined || last === undefined || last.at - first.at < MIN_MS || last.percent <= first.percent) {
      return undefined;
    }
    return ((100 - last.percent) * (last.at - first.at)) / (last.percent - first.percent);
  }
}
