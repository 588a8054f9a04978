/** Follows a sweep: its status and its finished cells, those before the page was opened among them. */

import type { RemoteClient, SweepDetails, SweepProgress, SweepStatus, Table } from "@backtestr/client/page";
import { keepReading } from "../../stores/reading";
import { type Axis, axesOf } from "./axes";
import { type CellColumns, columnsOf, MOST_CELLS, SweepCells } from "./cells";
import { METRICS } from "./sweep-request";

/** A space as a request has it. */
type Space = { readonly [name: string]: unknown };

export class SweepModel {
  readonly axes: readonly Axis[];
  readonly cells: SweepCells;
  status: SweepStatus;
  /** Why the cells that were finished before could not be read. */
  error: unknown;
  readonly #client: RemoteClient;
  readonly #space: Space;
  readonly #changed: () => void;
  readonly #ends: (() => void)[];
  #isReading = false;
  #isOver = false;

  /** Begins to follow; `changed` is called whenever anything has come. */
  constructor(client: RemoteClient, details: SweepDetails, changed: () => void) {
    this.#client = client;
    this.#changed = changed;
    this.#space = details.sweep.space;
    this.status = details;
    this.axes = axesOf(details.sweep.space, details.method === "grid" ? this.stride : 1);
    this.cells = new SweepCells(this.axes.map((one) => one.name));
    const topic = `progress.${details.sweepId}` as const;
    this.#ends = [
      keepReading(
        () => client.subscribe(topic, { history: true }),
        (received) => {
          // The topics of backtests have the same names.
          if (received.kind === "update") this.#take(received.data as unknown as SweepProgress);
          else void this.read();
        },
      ),
      client.on("status", ({ state }) => {
        if (state === "ready") void this.again();
      }),
    ];
    if (details.done > 0) void this.read();
  }

  /** The number of cells of which charts have one, since they have up to `MOST_CELLS`. */
  get stride(): number {
    const { method, cells, of } = this.status;
    return Math.max(1, Math.ceil((method === "grid" ? cells : of) / MOST_CELLS));
  }

  /** Asks for the status and the cells again. */
  async again(): Promise<void> {
    try {
      this.status = await this.#client.request("GetSweepStatus", { sweepId: this.status.sweepId });
      await this.read();
    } catch (error) {
      this.error = error;
      this.#changed();
    }
  }

  /** Reads the cells that are on disk. */
  async read(): Promise<void> {
    if (this.#isReading || this.#isOver) return;
    this.#isReading = true;
    try {
      const { sweepId, objective } = this.status;
      const sweep = await this.#client.findSweep(sweepId);
      const table = await sweep.results({
        columns: [...this.cells.names, objective],
        limit: MOST_CELLS,
        ...(this.stride > 1 ? { where: `cell % ${this.stride} == 0` } : {}),
      });
      this.error = undefined;
      this.cells.add(columnsOfTable(table, objective, this.#space));
    } catch (error) {
      this.error = error;
    }
    this.#isReading = false;
    if (!this.#isOver) this.#changed();
  }

  /** Follows no more. */
  stop(): void {
    this.#isOver = true;
    for (const end of this.#ends) end();
  }

  #take(progress: SweepProgress): void {
    const { cellsDone, ...status } = progress;
    if (cellsDone !== undefined && "cell" in cellsDone) this.cells.add(columnsOf(cellsDone));
    // What the broker still has of the time before comes first, and is older than what was asked for.
    if (status.done >= this.status.done) this.status = status;
    // Progress that came before the page is not all that is kept for it.
    if (isFinal(status.status) && this.stride === 1 && this.cells.count < status.done) void this.read();
    this.#changed();
  }
}

/** Returns whether a sweep has ended. */
export function isFinal(status: string): boolean {
  return status === "completed" || status === "stopped" || status === "failed";
}

/** Returns a table of rows as columns of cells, as progress has them: texts by their places in the space. */
export function columnsOfTable(table: Table, objective: string, space: Space): CellColumns {
  const column = (name: string): ArrayLike<number> => {
    const values = table.columns[name];
    if (values === undefined) return new Float64Array(table.rows).fill(Number.NaN);
    if (values instanceof Float64Array) return values;
    if (ArrayBuffer.isView(values)) {
      const nulls = table.nulls[name];
      return Float64Array.from(values as ArrayLike<number | bigint>, (one, row) =>
        nulls?.[row] === 1 ? Number.NaN : Number(one),
      );
    }
    const listed = space[name] as readonly unknown[];
    return Array.from(values, (text) => listed.indexOf(text));
  };
  const names = table.names.filter((name) => name !== "cell" && name !== objective);
  return {
    cell: column("cell"),
    value: column(objective),
    parameters: Object.fromEntries(names.map((name) => [name, column(name)])),
  };
}

/** Returns the label of an objective. */
export function labelOf(objective: string): string {
  return METRICS.get(objective)?.label ?? objective;
}
