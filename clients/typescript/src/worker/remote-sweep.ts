/** A sweep as a program sees it whose client lives in another thread or process. */

import type { SweepAccepted, SweepDetails, TrialGroup } from "../generated/contracts.js";
import type { RowsOptions } from "../options.js";
import type { Waiting } from "../run.js";
import type { Sweep, SweepState, SweepUpdate } from "../sweep.js";
import type { Table } from "../tables/table.js";
import { type OfSweep, revivedTable } from "./messages.js";
import type { RemoteStream } from "./remote-stream.js";

/** The client that a sweep in another thread belongs to, as its handle needs it. */
export interface SweepCalls {
  /** Calls a method of the sweep's handle at the other end. */
  call(sweepId: string, method: OfSweep, ...args: readonly unknown[]): Promise<unknown>;
  /** Opens the stream of its updates. */
  updates(sweepId: string): RemoteStream<SweepUpdate>;
}

/** One sweep, with the methods of `Sweep`. Tables and the cells of updates are handed over as typed arrays. */
export class RemoteSweep implements Omit<Sweep, "run" | "updates" | "close" | typeof Symbol.asyncDispose> {
  readonly id: string;
  readonly accepted: SweepAccepted | null;
  readonly #calls: SweepCalls;

  /** Called by `RemoteClient.sweep` and `RemoteClient.findSweep`. */
  constructor(calls: SweepCalls, id: string, accepted: SweepAccepted | null) {
    this.#calls = calls;
    this.id = id;
    this.accepted = accepted;
  }

  /** Asks the broker for the sweep's status, with the best row so far and the time left. */
  status(): Promise<SweepDetails> {
    return this.#call("status") as Promise<SweepDetails>;
  }

  /** Gives the progress after each block up to the end. `return` ends it at once. */
  updates(): RemoteStream<SweepUpdate> {
    return this.#calls.updates(this.id);
  }

  /** Waits for the final status, however long the broker is away. Raises `TimedOut` after `timeoutMs`. */
  wait(options: Waiting = {}): Promise<SweepDetails> {
    return this.#call("wait", options) as Promise<SweepDetails>;
  }

  /** Raises the error of a sweep that has failed; does nothing for any other. */
  async raiseFailure(): Promise<void> {
    await this.#call("raiseFailure");
  }

  /** Returns the rows that are finished. */
  async results(options: RowsOptions = {}): Promise<Table> {
    return revivedTable((await this.#call("results", options)) as Table);
  }

  /** Returns the `n` rows that are best by the objective. Raises `InvalidConfiguration` where none has a value of it. */
  async best(n = 10, options: Pick<RowsOptions, "where" | "columns" | "timeoutMs"> = {}): Promise<Table> {
    return revivedTable((await this.#call("best", n, options)) as Table);
  }

  /** Starts the backtest of a row, by its `cell`, and resolves as soon as the broker has accepted it. */
  run(
    row: number | bigint,
    options: { readonly backtestId?: string | undefined } = {},
  ): Promise<{ readonly backtestId: string }> {
    return this.#call("run", row, options) as Promise<{ backtestId: string }>;
  }

  /** Returns how many combinations of its algorithm were ever run on its bars; null before any was. */
  trials(): Promise<TrialGroup | null> {
    return this.#call("trials") as Promise<TrialGroup | null>;
  }

  /** Gives out no further block. Raises `StateConflict` when it has ended. */
  pause(): Promise<SweepState> {
    return this.#call("pause") as Promise<SweepState>;
  }

  /** Goes on, also after a failure. Raises `StateConflict` when it is completed or stopped. */
  resume(): Promise<SweepState> {
    return this.#call("resume") as Promise<SweepState>;
  }

  /** Ends the sweep early; the rows so far stay. */
  stop(): Promise<SweepState> {
    return this.#call("stop") as Promise<SweepState>;
  }

  /** Deletes the sweep with its rows, and returns the bytes that this freed. */
  delete(): Promise<number> {
    return this.#call("delete") as Promise<number>;
  }

  #call(method: OfSweep, ...args: readonly unknown[]): Promise<unknown> {
    return this.#calls.call(this.id, method, ...args);
  }
}
