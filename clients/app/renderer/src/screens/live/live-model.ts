/** Follows a running backtest: its streams into columns, its bars page by page. */

import type { BacktestProgress, BacktestStatus, RemoteClient } from "@backtestr/client/page";
import { ChartGroup } from "../../charts/chart-group";
import type { FillColumns } from "../../charts/fill-columns";
import { NO_FILLS } from "../../charts/fill-columns";
import { Pyramid } from "../../charts/pyramid";
import { Ring } from "../../charts/ring";
import { upperBound } from "../../charts/search";
import { barAxis } from "../../charts/time-ticks";
import { numbers, type RunConfig } from "../result/result-data";
import { GrowingBars } from "./growing-bars";
import { EquityPoints, GrowingFills, noOrders, noPositions, TimeLeft } from "./live-columns";
import { LOG_LINES, type LogLine, lineOfOrder, lineOfPosition, lineOfStatus } from "./live-log";

/** Bars of a page. */
const PAGE_BARS = 16_384;
/** Bars that are kept at most. */
export const MAX_BARS = 2_000_000;
/** Bars that are loaded ahead of the backtest. */
const AHEAD_BARS = 4_096;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8_000;

/** A running backtest as far as it is known. Its columns are bounded: see `live-columns.ts`. */
export class LiveModel {
  readonly config: RunConfig;
  readonly symbol: string;
  readonly bars = new GrowingBars();
  readonly group: ChartGroup;
  readonly log = new Ring<LogLine>(LOG_LINES);
  readonly timeLeft: TimeLeft;
  points = new EquityPoints();
  /** The bars, as places of the x axis, of the points of the equity curve. */
  places = new Pyramid();
  orders = noOrders();
  positions = noPositions();
  progress: BacktestProgress | undefined;
  /** Messages of all streams that have come. */
  received = 0;
  /** Messages that the broker no longer retained. */
  lost = 0;
  barsError: unknown;
  readonly #client: RemoteClient;
  readonly #changed: () => void;
  #fills = new GrowingFills();
  #fillPlaces = new Pyramid();
  #status: BacktestStatus["status"] | undefined;
  #isLoading = false;
  #hasAllBars = false;
  #isOver = false;
  readonly #ends: (() => void)[] = [];

  /** Begins to follow a backtest that has done so many percent. `changed` is called after anything has come, as often as that is. */
  constructor(client: RemoteClient, id: string, config: RunConfig, percent: number, changed: () => void) {
    this.timeLeft = new TimeLeft(percent);
    this.#client = client;
    this.config = config;
    this.symbol = config.symbols[0] as string;
    this.#changed = changed;
    this.group = new ChartGroup(
      barAxis(() => this.bars.times),
      { from: -0.5, to: 59.5 },
      20,
    );
    this.#follow(
      "progress",
      () => client.progress(id),
      (one) => this.#takeProgress(one),
    );
    this.#follow(
      "orders",
      () => client.orders(id),
      (order) => {
        this.orders.put(order);
        if (order.status === "filled" && order.symbol === this.symbol) this.#fills.add(order);
        this.#say(lineOfOrder(order));
      },
    );
    this.#follow(
      "positions",
      () => client.positions(id),
      (position) => {
        this.positions.put(position);
        this.#say(lineOfPosition(position));
      },
    );
    if (config.hasPrices) this.#followPrices();
    this.#ends.push(
      client.on("lost", ({ topic, fromSeq, toSeq }) => {
        if (!topic.endsWith(`.${id}`)) return;
        this.#noteLost(topic, toSeq - fromSeq + 1);
      }),
      client.on("status", ({ state, previous }) => {
        if (state === previous || this.#isOver) return;
        const text =
          state === "ready"
            ? "Connected to the broker again: what was missed is fetched"
            : `The connection is ${state}`;
        this.#say({ time: undefined, text, kind: state === "ready" ? "plain" : "warning" });
      }),
    );
    void this.#loadPage();
  }

  /** The number of bars that the backtest has simulated, as far as they are loaded. */
  get revealed(): number {
    const now = this.progress?.currentTime;
    return now === undefined ? 0 : upperBound(this.bars.times, now);
  }

  /** The milliseconds that are left, by the pace or else by the progress of the last seconds; undefined if not known. */
  left(): number | undefined {
    const percent = this.progress?.progressPercent ?? 0;
    const { pace } = this.config;
    if (pace === undefined) return this.timeLeft.left();
    if (percent <= 0 || this.revealed === 0) return undefined;
    return ((this.revealed / percent) * (100 - percent) * 1000) / pace;
  }

  /** Notes a status that the broker has told. */
  noteStatus(status: BacktestStatus["status"] | undefined): void {
    if (status === undefined || status === this.#status) return;
    if (status !== "running") this.timeLeft.reset();
    this.#say(lineOfStatus(status, this.#status));
    this.#status = status;
  }

  /** Brings places up to date, before a drawing. */
  place(): void {
    const { times } = this.bars;
    const known = times.length === 0 ? Number.NEGATIVE_INFINITY : (times.at(-1) as number);
    const isKnown = (time: number): boolean => time <= known || this.#hasAllBars;
    const { points } = this;
    while (this.places.length < points.times.length) {
      const time = points.times.values[this.places.length] as number;
      if (!isKnown(time)) break;
      this.places.push(Math.max(0, upperBound(times, time) - 1));
    }
    const fills = this.#fills.columns().times;
    while (this.#fillPlaces.length < fills.length && isKnown(fills[this.#fillPlaces.length] as number)) {
      this.#fillPlaces.push(upperBound(times, fills[this.#fillPlaces.length] as number) - 1);
    }
    const shown = this.revealed;
    if (shown > 0) this.group.extend({ from: -0.5, to: Math.max(60, shown) - 0.5 });
  }

  /** The fills whose bars are known. */
  fills(): FillColumns {
    const all = this.#fills.columns();
    const count = Math.min(this.#fillPlaces.length, all.times.length);
    if (count === 0) return NO_FILLS;
    return {
      times: all.times.subarray(0, count),
      prices: all.prices.subarray(0, count),
      quantities: all.quantities.subarray(0, count),
      sides: all.sides.subarray(0, count),
      opens: all.opens,
      closes: all.closes,
      places: this.#fillPlaces.values.subarray(0, count),
    };
  }

  /** Asks again for bars that could not be read. */
  retryBars(): void {
    this.barsError = undefined;
    void this.#loadPage();
  }

  /** Follows no more. */
  stop(): void {
    this.#isOver = true;
    for (const end of this.#ends) end();
  }

  #say(line: LogLine | undefined): void {
    if (line !== undefined) this.log.push(line);
    this.#changed();
  }

  #noteLost(topic: string, count: number): void {
    this.lost += count;
    this.#say({
      time: undefined,
      text: `${count} messages of ${topic} were lost: the broker no longer had them`,
      kind: "warning",
    });
  }

  #takeProgress(progress: BacktestProgress): void {
    this.progress = progress;
    this.points.add(progress);
    // Points were thinned: their places are found anew.
    if (this.places.length > this.points.times.length) this.places = new Pyramid();
    this.timeLeft.note(progress.progressPercent, performance.now());
    if (!this.#hasAllBars && this.bars.length - this.revealed < AHEAD_BARS) void this.#loadPage();
    this.#changed();
  }

  /** Reads a stream to the end of the backtest; after an error it is read again from its beginning. */
  async #follow<Item>(
    name: "progress" | "orders" | "positions",
    open: () => AsyncIterableIterator<Item>,
    take: (item: Item) => void,
  ): Promise<void> {
    let pause = FIRST_PAUSE_MS;
    while (!this.#isOver) {
      const stream = open();
      const end = (): void => void stream.return?.();
      this.#ends.push(end);
      try {
        for await (const item of stream) {
          if (this.#isOver) return;
          this.received += 1;
          take(item);
          pause = FIRST_PAUSE_MS;
        }
        return;
      } catch (error) {
        if (this.#isOver) return;
        const text = `The stream of ${name} broke off, and is read again: ${(error as Error).message}`;
        this.#say({ time: undefined, text, kind: "warning" });
      } finally {
        this.#ends.splice(this.#ends.indexOf(end), 1);
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(LONGEST_PAUSE_MS, 2 * pause);
      this.#forget(name);
    }
  }

  #forget(name: "progress" | "orders" | "positions"): void {
    if (name === "progress") {
      this.points = new EquityPoints();
      this.places = new Pyramid();
    } else if (name === "orders") {
      this.orders = noOrders();
      this.#fills = new GrowingFills();
      this.#fillPlaces = new Pyramid();
    } else this.positions = noPositions();
  }

  async #followPrices(): Promise<void> {
    const topic = `prices.${this.symbol}.${this.config.timeframe}`;
    const stream = this.#client.batches(topic);
    this.#ends.push(() => void stream.return());
    try {
      for await (const batch of stream) {
        if (this.#isOver) return;
        if (batch.kind === "prices") {
          this.received += batch.rows;
        } else if (batch.kind === "gap") this.#noteLost(topic, batch.toSeq - batch.fromSeq + 1);
        this.#changed();
      }
    } catch (error) {
      if (!this.#isOver) {
        this.#say({
          time: undefined,
          text: `Prices are not followed any more: ${(error as Error).message}`,
          kind: "warning",
        });
      }
    }
  }

  async #loadPage(): Promise<void> {
    if (this.#isLoading || this.#hasAllBars || this.#isOver || this.barsError !== undefined) return;
    this.#isLoading = true;
    try {
      const { timeframe, price, startDate, endDate } = this.config;
      const last = this.bars.times.at(-1);
      const start = last === undefined ? startDate : Math.floor(last) + 1;
      const table = await this.#client.marketData(this.symbol, timeframe, {
        ...(start === undefined ? {} : { start }),
        ...(endDate === undefined ? {} : { end: endDate }),
        ...(price === undefined ? {} : { price }),
        limit: PAGE_BARS,
        keep: "first",
      });
      const column = (name: string): Float64Array => numbers(table, name);
      this.bars.append({
        times: column("timestamp"),
        open: column("open"),
        high: column("high"),
        low: column("low"),
        close: column("close"),
      });
      this.#hasAllBars = table.rows < PAGE_BARS || this.bars.length >= MAX_BARS;
    } catch (error) {
      this.barsError = error;
    }
    this.#isLoading = false;
    if (this.#isOver) return;
    this.#changed();
    if (this.bars.length - this.revealed < AHEAD_BARS) void this.#loadPage();
  }
}
