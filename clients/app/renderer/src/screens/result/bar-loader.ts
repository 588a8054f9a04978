/** Loads the bars of a symbol slice by slice: those in view first. */

import type { RemoteClient } from "@backtestr/client/page";
import { BarColumns } from "../../charts/bar-columns";
import { numbers, type RunConfig } from "./result-data";

/** Slices that are asked for at once. */
const AT_ONCE = 2;

/** The bars of one symbol of a backtest, as far as they are loaded. */
export class BarLoader {
  readonly columns: BarColumns;
  readonly symbol: string;
  readonly #client: RemoteClient;
  readonly #config: RunConfig;
  readonly #changed: () => void;
  readonly #wanted: number[] = [];
  readonly #asked = new Set<number>();
  #error: unknown;
  #isOver = false;

  /** `changed` is called whenever a slice has come, or one has failed. */
  constructor(client: RemoteClient, config: RunConfig, symbol: string, times: Float64Array, changed: () => void) {
    this.#client = client;
    this.#config = config;
    this.#changed = changed;
    this.symbol = symbol;
    this.columns = new BarColumns(times);
  }

  /** The error of the last slice that could not be read; undefined if there is none. */
  get error(): unknown {
    return this.#error;
  }

  /** Wants the slices of a window of candles before all others. */
  want(level: number, first: number, end: number): void {
    this.#add(this.columns.missing(level, first, end), true);
  }

  /** Wants all slices, after those that are wanted already. */
  wantAll(): void {
    this.#add(this.columns.missing(0, 0, this.columns.times.length), false);
  }

  /** Asks again for what has failed. */
  retry(): void {
    this.#error = undefined;
    this.#changed();
    this.#next();
  }

  /** Asks for nothing more. */
  stop(): void {
    this.#isOver = true;
  }

  #add(slices: readonly number[], isUrgent: boolean): void {
    const fresh = slices.filter((one) => !this.#asked.has(one));
    if (isUrgent) {
      const rest = this.#wanted.filter((one) => !fresh.includes(one));
      this.#wanted.splice(0, this.#wanted.length, ...fresh, ...rest);
    } else this.#wanted.push(...fresh.filter((one) => !this.#wanted.includes(one)));
    this.#next();
  }

  #next(): void {
    while (!this.#isOver && this.#error === undefined && this.#asked.size < AT_ONCE) {
      const slice = this.#wanted.shift();
      if (slice === undefined) return;
      void this.#load(slice);
    }
  }

  async #load(slice: number): Promise<void> {
    this.#asked.add(slice);
    try {
      const { from, to } = this.columns.spanOf(slice);
      const { timeframe, price } = this.#config;
      const table = await this.#client.marketData(this.symbol, timeframe, {
        start: Math.floor(from),
        ...(to === null ? {} : { end: Math.floor(to) }),
        ...(price === undefined ? {} : { price }),
      });
      if (this.#isOver) return;
      const column = (name: string): Float64Array => numbers(table, name);
      this.columns.put(slice, {
        times: column("timestamp"),
        open: column("open"),
        high: column("high"),
        low: column("low"),
        close: column("close"),
      });
    } catch (error) {
      this.#wanted.unshift(slice);
      this.#error = error;
    } finally {
      this.#asked.delete(slice);
    }
    if (this.#isOver) return;
    this.#changed();
    this.#next();
  }
}
