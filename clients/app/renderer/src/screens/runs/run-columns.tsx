/** The columns of the list of results. */

import { type JSX, Show } from "solid-js";
import { Progress } from "../../components/states";
import type { Column } from "../../components/virtual-table";
import { change, count, fixed, percent, sense } from "../../format/numbers";
import { day, duration } from "../../format/times";
import { formatRoute } from "../../routes";
import { type RunRow, type RunSummary, subjectOf } from "./run-rows";

const MARKS: { readonly [status: string]: string } = {
  running: "▶",
  queued: "…",
  paused: "❚❚",
  completed: "●",
  stopped: "■",
  failed: "▲",
  stored: "○",
};

export interface RunColumnsOf {
  at(row: number): RunRow | undefined;
  summaryOf(row: RunRow | undefined): RunSummary | undefined;
  isChosen(row: RunRow): boolean;
  toggle(row: RunRow | undefined): void;
  pin(row: RunRow): void;
}

/** Returns the columns; each reads its row through the functions given. */
export function runColumns({ at, summaryOf, isChosen, toggle, pin }: RunColumnsOf): readonly Column[] {
  const isChosenAt = (row: number): boolean => {
    const one = at(row);
    return one !== undefined && isChosen(one);
  };
  const metric = (row: number, name: "totalReturn" | "sharpeRatio" | "maxDrawdown" | "totalTrades"): number | null => {
    const value = summaryOf(at(row))?.metrics?.[name];
    return typeof value === "number" ? value : null;
  };
  const config = (row: number, name: string): unknown => summaryOf(at(row))?.config[name];

  return [
    {
      id: "choice",
      title: "Chosen",
      hideTitle: true,
      width: "2.25rem",
      text: () => "",
      render: (row) => (
        <input
          type="checkbox"
          aria-label={`Compare ${at(row)?.id.slice(0, 8)}`}
          tabindex={-1}
          checked={isChosenAt(row)}
          onClick={(event) => event.stopPropagation()}
          onChange={() => toggle(at(row))}
        />
      ),
    },
    {
      id: "status",
      title: "Status",
      width: "7.25rem",
      text: (row) => at(row)?.status ?? "",
      value: (row) => at(row)?.status,
      render: (row) => <StatusCell row={at(row)} />,
    },
    {
      id: "algorithm",
      title: "Algorithm",
      width: "minmax(8rem, 1.5fr)",
      text: (row) => subject(at(row), summaryOf).algorithm,
      value: (row) => subject(at(row), summaryOf).algorithm,
      render: (row) => (
        <a href={formatRoute({ screen: "backtest", id: at(row)?.id ?? "" })} tabindex={-1}>
          {subject(at(row), summaryOf).algorithm || at(row)?.id.slice(0, 8)}
        </a>
      ),
    },
    {
      id: "symbols",
      title: "Symbol",
      width: "minmax(4.75rem, 1fr)",
      text: (row) => symbolsText(subject(at(row), summaryOf).symbols),
      value: (row) => subject(at(row), summaryOf).symbols.join(" "),
    },
    {
      id: "timeframe",
      title: "Bars",
      definition: "The timeframe.",
      width: "3.5rem",
      text: (row) => String(config(row, "timeframe") ?? ""),
      value: (row) => String(config(row, "timeframe") ?? ""),
    },
    {
      id: "range",
      title: "Range",
      definition: "The dates of the simulated bars; the end is exclusive.",
      width: "11.75rem",
      text: (row) => rangeText(config(row, "startDate"), config(row, "endDate")),
      value: (row) => Date.parse(String(config(row, "startDate"))),
    },
    {
      id: "return",
      title: "Return",
      width: "5.25rem",
      align: "end",
      text: (row) => change(metric(row, "totalReturn")),
      value: (row) => metric(row, "totalReturn"),
      class: (row) => sense(metric(row, "totalReturn")),
    },
    {
      id: "sharpe",
      title: "Sharpe",
      width: "4.5rem",
      align: "end",
      text: (row) => fixed(metric(row, "sharpeRatio")),
      value: (row) => metric(row, "sharpeRatio"),
    },
    {
      id: "drawdown",
      title: "Drawdown",
      definition: "The deepest one, as a fraction of the highest equity before.",
      width: "6rem",
      align: "end",
      text: (row) => percent(metric(row, "maxDrawdown")),
      value: (row) => metric(row, "maxDrawdown"),
    },
    {
      id: "trades",
      title: "Trades",
      width: "4.5rem",
      align: "end",
      text: (row) => count(metric(row, "totalTrades")),
      value: (row) => metric(row, "totalTrades"),
    },
    {
      id: "time",
      title: "Submitted",
      width: "6.75rem",
      text: (row) => submitted(at(row)?.time ?? Number.NaN),
      value: (row) => at(row)?.time,
    },
    {
      id: "took",
      title: "Took",
      width: "4.75rem",
      align: "end",
      text: (row) => duration(at(row)?.took ?? Number.NaN),
      value: (row) => at(row)?.took,
    },
    {
      id: "pinned",
      title: "Kept",
      definition: "A pinned result is never deleted by itself.",
      width: "3.25rem",
      text: (row) => (at(row)?.pinned ? "pinned" : ""),
      value: (row) => (at(row)?.pinned ? 1 : 0),
      render: (row) => (
        <Show when={at(row)?.bytes !== undefined}>
          <button
            type="button"
            class="pin"
            tabindex={-1}
            aria-pressed={at(row)?.pinned}
            aria-label={`Pin ${at(row)?.id.slice(0, 8)}`}
            onClick={(event) => {
              event.stopPropagation();
              const one = at(row);
              if (one) pin(one);
            }}
          >
            {at(row)?.pinned ? "★" : "☆"}
          </button>
        </Show>
      ),
    },
  ];
}

function StatusCell(props: { readonly row: RunRow | undefined }): JSX.Element {
  const running = (): boolean => ["running", "paused"].includes(props.row?.status ?? "");
  return (
    <span class={`run-status ${props.row?.status}`} title={props.row?.failure}>
      <span aria-hidden="true">{MARKS[props.row?.status ?? ""]}</span>
      <Show when={running()} fallback={props.row?.status}>
        <Progress
          label={`Progress of ${props.row?.id.slice(0, 8)}`}
          share={(props.row?.progressPercent ?? 0) / 100}
          text={`${count(props.row?.progressPercent)} %`}
        />
      </Show>
    </span>
  );
}

function subject(
  row: RunRow | undefined,
  summaryOf: (row: RunRow) => RunSummary | undefined,
): ReturnType<typeof subjectOf> {
  return row === undefined ? { algorithm: "", symbols: [] } : subjectOf(row, summaryOf(row));
}

function symbolsText(symbols: readonly string[]): string {
  const [first = "", ...others] = symbols;
  return others.length === 0 ? first : `${first} + ${others.length}`;
}

/** Returns `30 Nov 16:54`, or the date where it was in another year. */
function submitted(at: number): string {
  if (Number.isNaN(at)) return "";
  const text = new Date(at).toUTCString(); // Mon, 30 Nov 2026 16:54:00 GMT
  const isOld = new Date(at).getUTCFullYear() !== new Date().getUTCFullYear();
  return isOld ? day(at) : `${text.slice(5, 11)} ${text.slice(17, 22)}`;
}

function rangeText(start: unknown, end: unknown): string {
  const [from, to] = [Date.parse(String(start)), Date.parse(String(end))];
  return Number.isNaN(from) || Number.isNaN(to) ? "" : `${day(from)} – ${day(to)}`;
}
