import type { SweepDetails, SweepStatus, Table } from "@backtestr/client/page";
import { createEffect, createMemo, createSignal, type JSX, on, onCleanup, Show } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel } from "../../components/error-panel";
import { Waiting } from "../../components/states";
import { type Column, type Sort, VirtualTable } from "../../components/virtual-table";
import { count } from "../../format/numbers";
import { numberText } from "./axes";
import { isFinal } from "./sweep-model";
import { METRICS } from "./sweep-request";
import { figureText } from "./sweep-text";

/** Rows of the first page, and of each further one. */
const PAGE = 200;
/** Rows that are shown at most: whoever looks for more filters or sorts. */
const MOST = 5_000;
/** Milliseconds between two readings of a sweep that runs, and at least so many times what a reading took. */
const AGAIN_MS = 2_000;
const REST_TIMES = 8;
/** Milliseconds of rest before the rows of another filter are read. */
const REST_MS = 250;

/** Figures that are shown beside the objective, by their names in Python. */
const SHOWN = [
  "total_return",
  "sharpe_ratio",
  "sortino_ratio",
  "max_drawdown",
  "profit_factor",
  "win_rate",
  "total_trades",
] as const;

export interface SweepRowsProps {
  readonly details: SweepDetails;
  readonly status: SweepStatus;
  /** The filter of the brushes. */
  readonly where: string | undefined;
  readonly chosen: number | undefined;
  onChoose(cell: number): void;
  onOpen(cell: number): void;
}

/** The rows in the order of a figure, the best first, as the broker has them on disk. */
export function SweepRows(props: SweepRowsProps): JSX.Element {
  const app = useApp();
  const { objective, direction, sweep } = props.details;
  const initial: Sort = { column: objective, descending: direction === "maximize" };
  const [sort, setSort] = createSignal(initial);
  const [limit, setLimit] = createSignal(PAGE);
  const [table, setTable] = createSignal<Table>();
  const [error, setError] = createSignal<unknown>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isOver = false;
  let isReading = false;
  let isWanted = false; // of another filter or order, while one is read
  let read = -1; // rows that were finished when the table was read

  const figures = [...new Set([objective, ...SHOWN.filter((one) => sweep.metrics?.includes(one) ?? true)])];
  const parameters = Object.keys(sweep.space);

  async function readNow(): Promise<void> {
    if (isReading) {
      isWanted = true; // the broker has one reading of this page at a time
      return;
    }
    isReading = true;
    isWanted = false;
    const began = performance.now();
    const { done, status } = props.status;
    if (done > 0) {
      try {
        const handle = await app.client.findSweep(props.details.sweepId);
        const { column, descending } = sort();
        const found = await handle.results({
          sort: column,
          descending,
          where: props.where,
          limit: limit(),
          columns: [...parameters, ...figures, "failure"],
        });
        read = done;
        if (!isOver && !isWanted) setTable(found);
        setError(undefined);
      } catch (reason) {
        if (!isOver) setError(reason);
      }
    }
    isReading = false;
    if (isOver) return;
    const took = performance.now() - began;
    if (isWanted) void readNow();
    else if (!isFinal(status)) later(Math.max(AGAIN_MS, REST_TIMES * took));
  }
  function later(ms: number): void {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (props.status.done === read && document.visibilityState === "visible") later(AGAIN_MS);
      else if (document.visibilityState === "hidden") later(AGAIN_MS);
      else void readNow();
    }, ms);
  }
  function soon(ms: number): void {
    clearTimeout(timer);
    timer = setTimeout(() => void readNow(), ms);
  }
  createEffect(on([sort, limit, () => props.where], () => soon(table() === undefined ? 0 : REST_MS)));
  createEffect(on([() => isFinal(props.status.status), () => props.status.done > 0], () => soon(0), { defer: true }));
  onCleanup(() => {
    isOver = true;
    clearTimeout(timer);
  });

  const columns = createMemo(() => columnsOf(table(), parameters, figures, objective));
  const cellOf = (row: number): number => Number((table()?.columns.cell as BigInt64Array | undefined)?.[row] ?? 0);
  const selected = createMemo(() => {
    const { chosen } = props;
    const cells = table()?.columns.cell as BigInt64Array | undefined;
    const place = chosen === undefined ? -1 : (cells?.indexOf(BigInt(chosen)) ?? -1);
    return place < 0 ? undefined : place;
  });
  return (
    <section class="panel" aria-label="Rows">
      <div class="panel-header">
        <h2>Rows</h2>
        <span class="small muted">
          <Show when={props.where} fallback="Enter opens a row as a backtest; a click on a title sorts all rows.">
            {(where) => <code>{where()}</code>}
          </Show>
        </span>
        <div class="actions">
          <Show when={props.status.failed > 0}>
            <Button onClick={() => setSort({ column: "failure", descending: false })}>
              Failed first ({count(props.status.failed)})
            </Button>
          </Show>
          <Show when={(table()?.rows ?? 0) >= limit() && limit() < MOST}>
            <Button onClick={() => setLimit((now) => Math.min(MOST, now + PAGE))}>{count(PAGE)} more</Button>
          </Show>
        </div>
      </div>
      <Show when={error()}>{(reason) => <ErrorPanel error={reason()} title="The rows could not be read" mild />}</Show>
      <Show
        when={table()}
        fallback={
          <Show when={error() === undefined}>
            <Waiting what={props.status.done > 0 ? "the rows" : "the first finished row"} />
          </Show>
        }
      >
        {(found) => (
          <VirtualTable
            label="Rows of the sweep"
            rows={found().rows}
            columns={columns()}
            revision={found()}
            initialSort={initial}
            onSort={setSort}
            selected={selected()}
            onSelect={(row) => props.onChoose(cellOf(row))}
            onActivate={(row) => props.onOpen(cellOf(row))}
            visibleRows={12}
          />
        )}
      </Show>
    </section>
  );
}

function columnsOf(
  table: Table | undefined,
  parameters: readonly string[],
  figures: readonly string[],
  objective: string,
): readonly Column[] {
  const valueIn = (name: string, row: number): number | string => {
    const column = table?.columns[name];
    if (column === undefined) return Number.NaN;
    if (!ArrayBuffer.isView(column)) return column.at(row) ?? "";
    return table?.nulls[name]?.[row] === 1 ? Number.NaN : Number(column[row]);
  };
  const plain = (name: string, row: number): string => {
    const value = valueIn(name, row);
    if (typeof value === "string") return value;
    return table?.types[name] === "bool" ? String(value === 1) : numberText(value);
  };
  const hasFailures = table?.nulls.failure?.includes(0) ?? false;
  return [
    ...parameters.map(
      (name): Column => ({
        id: name,
        title: name,
        width: "minmax(5rem, 1fr)",
        align: "end",
        text: (row) => plain(name, row),
        value: (row) => valueIn(name, row),
      }),
    ),
    ...figures.map(
      (name): Column => ({
        id: name,
        title: METRICS.get(name)?.label ?? name,
        definition: METRICS.get(name)?.formula,
        width: "minmax(6.5rem, 1fr)",
        align: "end",
        text: (row) => figureText(name, valueIn(name, row) as number),
        value: (row) => valueIn(name, row),
        class: () => (name === objective ? "objective" : ""),
      }),
    ),
    ...(hasFailures
      ? [
          {
            id: "failure",
            title: "Why it failed",
            width: "minmax(14rem, 3fr)",
            text: (row: number) => String(valueIn("failure", row)),
            value: (row: number) => String(valueIn("failure", row)),
            class: () => "loss",
          },
        ]
      : []),
  ];
}
