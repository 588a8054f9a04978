/** A sweep is the handle of many backtests over the values of some parameters: watch it, steer it, read its rows. */

import { asSeconds, checkOptions } from "./arguments.js";
import { BULK_SECONDS, type Context } from "./context.js";
import { columnsByName } from "./core/columns.js";
import { BacktestrError, errorFromData, InvalidConfiguration, SystemFault, TimedOut } from "./core/errors.js";
import type { StartSweep, SweepAccepted, SweepDetails, SweepProgress, TrialGroup } from "./generated/contracts.js";
import type { RowsOptions } from "./options.js";
import { type Run, STREAMS, type Stream, startRun, type Waiting } from "./run.js";
import { type Received, Subscription } from "./subscription.js";
import { fetchRows } from "./sweep-rows.js";
import type { Table } from "./tables/index.js";
import { trialsOf } from "./trials.js";

/** The state of a sweep. */
export type SweepState = SweepDetails["status"];

/** The progress of a sweep, with the cells that a block has finished as columns of numbers. */
export interface SweepUpdate extends Omit<SweepProgress, "cellsDone" | "stride"> {
  /**
   * `cell`, the swept parameters, and `value`, that of the objective, NaN where it is undefined. A parameter that is true
   * or false is 1 or 0, and one that is text is the place of its value in the list of the space.
   */
  readonly cellsDone: { readonly [name: string]: Float64Array };
  /** Every `stride`th cell is named. */
  readonly stride: number;
}

// Seconds between two looks at the status where a program waits and no progress comes.
const LOOK_AFTER = 2;
const FINAL: readonly SweepState[] = ["completed", "failed", "stopped"];

/** One sweep: its progress, its rows, and what steers it. It goes on whether or not anybody watches it. */
export class Sweep {
  /** The id of the sweep. */
  readonly id: string;
  /** What was counted and estimated when it was started; null for a sweep that was found. */
  readonly accepted: SweepAccepted | null;
  readonly #context: Context;
  readonly #watched = new Set<Subscription>();

  /** Called by `Client.sweep` and `Client.findSweep`. */
  constructor(context: Context, id: string, accepted: SweepAccepted | null) {
    this.#context = context;
    this.id = id;
    this.accepted = accepted;
  }

  // --- watching ------------------------------------------------------------------------------------------------------

  /** Asks the broker for the sweep's status, with the best row so far and the time left. */
  status(): Promise<SweepDetails> {
    return this.#context.answer("GetSweepStatus", { sweepId: this.id });
  }

  /**
   * Gives the progress after each block up to the end, with the cells that it has finished. Messages that the broker still
   * retains come first. It ends with a sweep that is completed, failed or stopped.
   */
  async *updates(): AsyncGenerator<SweepUpdate, void, undefined> {
    if (isFinal(await this.status())) return; // its topic may be silent for good
    const subscription = this.#subscription("retained");
    this.#watched.add(subscription);
    try {
      for (;;) {
        const received = await this.#next(subscription, LOOK_AFTER);
        if (received === null) return;
        if (received?.kind === "update" && received.type === "SweepProgress") {
          const { cellsDone = {}, stride = 1, ...progress } = received.data as SweepProgress;
          yield { ...progress, cellsDone: columnsByName(cellsDone, "the cells of a sweep"), stride };
          // One that failed may have been resumed since: the message is then an earlier one that the broker retains.
          if (progress.status === "failed" ? isFinal(await this.#statusWithin(LOOK_AFTER)) : isFinal(progress)) return;
        } else if (received === undefined && isFinal(await this.#statusWithin(LOOK_AFTER))) {
          return;
        }
      }
    } finally {
      this.#watched.delete(subscription);
      subscription.close();
    }
  }

  /**
   * Waits for the final status: `completed`, `failed` or `stopped`, however long the broker is away. Raises `TimedOut`
   * after `timeoutMs`, while the sweep continues.
   */
  async wait(options: Waiting = {}): Promise<SweepDetails> {
    const origin = new Error("wait");
    checkOptions(options, ["timeoutMs"], "wait");
    const seconds = options.timeoutMs === undefined ? Infinity : asSeconds(options.timeoutMs, "timeoutMs");
    const { clock } = this.#context;
    const until = clock.now() + seconds;
    const subscription = this.#subscription("now");
    try {
      for (;;) {
        const status = await this.#statusWithin(until - clock.now());
        if (status !== null && isFinal(status)) return status;
        const left = until - clock.now();
        if (left <= 0) throw late(this.id, status, seconds).at(origin);
        await this.#news(subscription, Math.min(left, LOOK_AFTER));
      }
    } finally {
      subscription.close();
    }
  }

  /** Raises the error of a sweep that has failed; does nothing for any other. */
  async raiseFailure(): Promise<void> {
    const origin = new Error("raiseFailure");
    const { status, error } = await this.status();
    if (status !== "failed") return;
    throw (error ? errorFromData(error) : new SystemFault(`sweep ${this.id} failed without a reason`)).at(origin);
  }

  // --- rows ----------------------------------------------------------------------------------------------------------

  /**
   * Returns the rows that are finished: `cell`, the swept parameters, the metrics, sums of returns, and `failure`, the
   * reason for which a combination has no figures. Rows without a value of `sort` come last. They are read 50,000 at a
   * time: of more in the order of `sort`, while the sweep runs, one may be missing or there twice. Raises a `ValidationError` for a column that
   * does not exist and for a filter that cannot be read.
   */
  async results(options: RowsOptions = {}): Promise<Table> {
    const { timeoutMs } = options;
    const seconds = timeoutMs === undefined ? BULK_SECONDS : asSeconds(timeoutMs, "timeoutMs");
    return fetchRows(this.#context, this.id, options, seconds);
  }

  /**
   * Returns the `n` rows that are best by the objective, without those in which it is undefined. Raises
   * `InvalidConfiguration` where it is undefined for every row.
   */
  async best(n = 10, options: Pick<RowsOptions, "where" | "columns" | "timeoutMs"> = {}): Promise<Table> {
    const origin = new Error("best");
    if (!(n >= 1)) throw new RangeError(`best(${n}): ask for one row at least`);
    checkOptions(options, ["where", "columns", "timeoutMs"], "best");
    const { objective, direction, done } = await this.status();
    const columns = options.columns && [objective, ...options.columns];
    const wanted = { ...options, columns, sort: objective, descending: direction === "maximize" };
    const rows = await this.results({ ...wanted, limit: n });
    const undefinedOnes = rows.nulls[objective]?.reduce((count, one) => count + one, 0) ?? 0; // they come last
    if (undefinedOnes === 0) return rows;
    if (undefinedOnes < rows.rows) return this.results({ ...wanted, limit: rows.rows - undefinedOnes });
    throw new InvalidConfiguration(
      `${objective} is undefined for each of the ${done} finished rows, so none is the best; ` +
        "the metrics of run(row) say why, by their reasons",
      { path: "$.objective" },
    ).at(origin);
  }

  /** Starts the backtest of a row, by its `cell`, with streams and tables. Raises `ValidationError`. */
  async run(
    row: number | bigint,
    options: { readonly backtestId?: string | undefined; readonly watch?: readonly Stream[] | undefined } = {},
  ): Promise<Run> {
    checkOptions(options, ["backtestId", "watch"], "run");
    const backtestId = options.backtestId ?? this.#context.clock.newId();
    // A column of cells has bigints.
    const request = { sweepId: this.id, row: typeof row === "bigint" ? Number(row) : row, backtestId };
    return startRun(this.#context, "GetSweepRun", request, options.watch ?? STREAMS);
  }

  /** Returns how many combinations of its algorithm were ever run on its bars, those of others too; null before any was. */
  async trials(): Promise<TrialGroup | null> {
    const { trialGroup } = await this.status();
    return trialsOf(this.#context, trialGroup);
  }

  // --- control -------------------------------------------------------------------------------------------------------

  /** Gives out no further block; those being computed still count. Raises `StateConflict` when it has ended. */
  pause(): Promise<SweepState> {
    return this.#control("PauseSweep");
  }

  /** Goes on, also after a failure. Raises `StateConflict` when it is completed or stopped. */
  resume(): Promise<SweepState> {
    return this.#control("ResumeSweep");
  }

  /** Ends the sweep early; the rows so far stay. One that has ended stays as it is. */
  stop(): Promise<SweepState> {
    return this.#control("StopSweep");
  }

  /**
   * Deletes the sweep with its rows, and returns the bytes that this freed. Raises `StateConflict` while it has not ended.
   */
  async delete(): Promise<number> {
    const deleted = await this.#context.answer("DeleteSweep", { sweepId: this.id }, BULK_SECONDS);
    return deleted.freedBytes;
  }

  /** Ends `updates` at once, also while it waits for the next one. The sweep continues. */
  close(): void {
    for (const subscription of this.#watched) subscription.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  // --- within --------------------------------------------------------------------------------------------------------

  #subscription(since: "now" | "retained"): Subscription {
    return new Subscription<string>(this.#context, `progress.${this.id}`, { since });
  }

  /** Returns what comes next within `seconds`: undefined for nothing, null where nothing more will come. */
  async #next(subscription: Subscription, seconds: number): Promise<Received | null | undefined> {
    try {
      return await subscription.next({ timeoutMs: 1000 * seconds });
    } catch (error) {
      if (error instanceof TimedOut) return undefined;
      throw error;
    }
  }

  /** Resolves when a message says that the sweep has ended or may have, or after `seconds`. */
  async #news(subscription: Subscription, seconds: number): Promise<void> {
    const { clock } = this.#context;
    const until = clock.now() + seconds;
    for (let left = seconds; left > 0; left = until - clock.now()) {
      const received = await this.#next(subscription, left);
      if (received?.kind !== "update" || isFinal(received.data as SweepProgress)) return;
    }
  }

  /** Returns the status; null if the broker is away. */
  async #statusWithin(seconds: number): Promise<SweepDetails | null> {
    const within = Math.min(this.#context.requestSeconds, Math.max(seconds, LOOK_AFTER));
    try {
      return await this.#context.answer("GetSweepStatus", { sweepId: this.id }, within);
    } catch (error) {
      if (error instanceof BacktestrError && error.retriable) return null;
      throw error;
    }
  }

  async #control(request: "PauseSweep" | "ResumeSweep" | "StopSweep"): Promise<SweepState> {
    const { status } = await this.#context.answer(request, { sweepId: this.id });
    if (status === undefined) throw new SystemFault(`the answer to ${request} has no status`);
    return status;
  }
}

function isFinal(progress: Pick<SweepProgress, "status"> | null): boolean {
  return progress !== null && FINAL.includes(progress.status);
}

function late(sweepId: string, progress: SweepDetails | null, seconds: number): TimedOut {
  const text = `sweep ${sweepId} has not ended within ${seconds} s; it goes on`;
  if (progress === null) return new TimedOut(text, { timeoutSeconds: seconds });
  const { status, done, of, progressPercent } = progress;
  return new TimedOut(`${text}: it is ${status}, at ${done} of ${of}`, {
    timeoutSeconds: seconds,
    status,
    progressPercent,
  });
}

/** Has the broker start a sweep, whose request has an id. */
export async function startSweep(
  context: Context,
  request: StartSweep & { readonly sweepId: string },
  seconds: number,
): Promise<Sweep> {
  const accepted = await context.answer("StartSweep", request, seconds);
  return new Sweep(context, request.sweepId, accepted);
}
