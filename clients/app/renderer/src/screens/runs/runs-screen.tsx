import type { StoredResult } from "@backtestr/client/page";
import { createEffect, createMemo, createSignal, type JSX, Match, on, onMount, Show, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { Button, LinkButton } from "../../components/button";
import { ErrorPanel, messageOf } from "../../components/error-panel";
import { Select, TextField } from "../../components/field";
import { EmptyState, Progress } from "../../components/states";
import { type Column, VirtualTable } from "../../components/virtual-table";
import { change, count, fixed, percent, sense } from "../../format/numbers";
import { day, duration } from "../../format/times";
import { formatRoute } from "../../routes";
import { WaitingForBroker } from "../../shell/start-broker";
import { createListing } from "../../stores/listing";
import { thereOf } from "../../stores/loadable";
import { joinRows, type RunRow, type RunSummary, shownRows, subjectOf } from "./run-rows";
import { summaries } from "./summaries";
import "./runs-screen.css";

const STATUSES = ["running", "queued", "paused", "completed", "stopped", "failed", "stored", "pinned"] as const;
const MARKS: { readonly [status: string]: string } = {
  running: "▶",
  queued: "…",
  paused: "❚❚",
  completed: "●",
  stopped: "■",
  failed: "▲",
  stored: "○",
};
const ENDED: readonly string[] = ["completed", "stopped", "stored"];
/** Milliseconds in which a deletion can be undone. */
const UNDO_MS = 8_000;

/** Every backtest that the broker knows or has stored, with its range and its main figures. */
export function RunsScreen(): JSX.Element {
  const app = useApp();
  const { client, notices } = app;
  const known = summaries(client);
  const stored = createListing<readonly StoredResult[]>("the broker's list of stored results", async () => {
    const { results } = await client.request("ListResults", {});
    return results;
  });
  const [words, setWords] = createSignal("");
  const [status, setStatus] = createSignal("");
  const [chosen, setChosen] = createSignal<ReadonlySet<string>>(new Set());
  const [deleting, setDeleting] = createSignal<ReadonlySet<string>>(new Set());
  const [current, setCurrent] = createSignal<string>();

  onMount(() => void stored.refresh());
  const ended = createMemo(
    () => (thereOf(app.backtests.state()) ?? []).filter((one) => one.endTime !== undefined).length,
  );
  createEffect(on([ended, app.connection.status], () => void stored.refresh(), { defer: true }));

  const rows = createMemo(() =>
    joinRows(thereOf(app.backtests.state()) ?? [], thereOf(stored.state()) ?? []).filter(
      (one) => !deleting().has(one.id),
    ),
  );
  const at = (row: number): RunRow | undefined => rows()[row];
  const summaryOf = (row: RunRow | undefined): RunSummary | undefined =>
    row !== undefined && ENDED.includes(row.status) ? known.of(row.id) : undefined;
  const shown = createMemo(() => shownRows(rows(), summaryOf, words(), status()));
  const picked = createMemo(() => rows().filter((one) => chosen().has(one.id)));

  function toggle(row: RunRow | undefined): void {
    if (row === undefined) return;
    setChosen((all) => {
      const next = new Set(all);
      if (!next.delete(row.id)) next.add(row.id);
      return next;
    });
  }
  async function pin(row: RunRow): Promise<void> {
    try {
      const { pinned } = await client.request("PinBacktest", { backtestId: row.id, pinned: !row.pinned });
      stored.change((all) => all.map((one) => (one.backtestId === row.id ? { ...one, pinned } : one)));
    } catch (error) {
      notices.show(messageOf(error), { kind: "error" });
    }
  }
  function remove(some: readonly RunRow[]): void {
    const ids = some.map((one) => one.id);
    setDeleting((all) => new Set([...all, ...ids]));
    setChosen(new Set<string>());
    const timer = setTimeout(() => void removeNow(ids), UNDO_MS);
    notices.show(`${ids.length === 1 ? "A backtest" : `${ids.length} backtests`} will be deleted in 8 seconds.`, {
      ms: UNDO_MS,
      action: {
        label: "Undo",
        run: () => {
          clearTimeout(timer);
          settle(ids);
        },
      },
    });
  }
  async function removeNow(ids: readonly string[]): Promise<void> {
    for (const backtestId of ids) {
      try {
        await client.request("DeleteBacktest", { backtestId });
        app.backtests.forget(backtestId);
        stored.change((all) => all.filter((one) => one.backtestId !== backtestId));
      } catch (error) {
        notices.show(`${backtestId.slice(0, 8)} was not deleted: ${messageOf(error)}`, { kind: "error" });
      }
    }
    settle(ids);
  }
  function settle(ids: readonly string[]): void {
    setDeleting((all) => new Set([...all].filter((one) => !ids.includes(one))));
  }
  const metric = (row: number, name: "totalReturn" | "sharpeRatio" | "maxDrawdown" | "totalTrades"): number | null => {
    const value = summaryOf(at(row))?.metrics?.[name];
    return typeof value === "number" ? value : null;
  };
  const config = (row: number, name: string): unknown => summaryOf(at(row))?.config[name];

  const columns: readonly Column[] = [
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
          checked={chosen().has(at(row)?.id ?? "")}
          onClick={(event) => event.stopPropagation()}
          onChange={() => toggle(at(row))}
        />
      ),
    },
    {
      id: "status",
      title: "Status",
      width: "7.75rem",
      text: (row) => at(row)?.status ?? "",
      value: (row) => at(row)?.status,
      render: (row) => <StatusCell row={at(row)} />,
    },
    {
      id: "algorithm",
      title: "Algorithm",
      width: "minmax(8.5rem, 1.5fr)",
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
      width: "minmax(5rem, 1fr)",
      text: (row) => symbolsText(subject(at(row), summaryOf).symbols),
      value: (row) => subject(at(row), summaryOf).symbols.join(" "),
    },
    {
      id: "timeframe",
      title: "Bars",
      definition: "The timeframe.",
      width: "4rem",
      text: (row) => String(config(row, "timeframe") ?? ""),
      value: (row) => String(config(row, "timeframe") ?? ""),
    },
    {
      id: "range",
      title: "Range",
      definition: "The dates of the simulated bars; the end is exclusive.",
      width: "12rem",
      text: (row) => rangeText(config(row, "startDate"), config(row, "endDate")),
      value: (row) => Date.parse(String(config(row, "startDate"))),
    },
    {
      id: "return",
      title: "Return",
      width: "5.5rem",
      align: "end",
      text: (row) => change(metric(row, "totalReturn")),
      value: (row) => metric(row, "totalReturn"),
      class: (row) => sense(metric(row, "totalReturn")),
    },
    {
      id: "sharpe",
      title: "Sharpe",
      width: "4.75rem",
      align: "end",
      text: (row) => fixed(metric(row, "sharpeRatio")),
      value: (row) => metric(row, "sharpeRatio"),
    },
    {
      id: "drawdown",
      title: "Drawdown",
      definition: "The deepest one, as a fraction of the highest equity before.",
      width: "6.5rem",
      align: "end",
      text: (row) => percent(metric(row, "maxDrawdown")),
      value: (row) => metric(row, "maxDrawdown"),
    },
    {
      id: "trades",
      title: "Trades",
      width: "5rem",
      align: "end",
      text: (row) => count(metric(row, "totalTrades")),
      value: (row) => metric(row, "totalTrades"),
    },
    {
      id: "time",
      title: "Submitted",
      width: "7.5rem",
      text: (row) => submitted(at(row)?.time ?? Number.NaN),
      value: (row) => at(row)?.time,
    },
    {
      id: "took",
      title: "Took",
      width: "5rem",
      align: "end",
      text: (row) => duration(at(row)?.took ?? Number.NaN),
      value: (row) => at(row)?.took,
    },
    {
      id: "pinned",
      title: "Kept",
      definition: "A pinned result is never deleted by itself.",
      width: "4rem",
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
              if (one) void pin(one);
            }}
          >
            {at(row)?.pinned ? "★" : "☆"}
          </button>
        </Show>
      ),
    },
  ];

  return (
    <section class="screen runs-screen" aria-label="Results">
      <header class="screen-header">
        <h1>Results</h1>
        <span class="muted">{count(rows().length)} backtests</span>
        <div class="actions">
          <TextField
            label="Filter backtests"
            hideLabel
            type="search"
            placeholder="Algorithm, symbol, id"
            value={words()}
            onInput={setWords}
          />
          <Select
            label="Status"
            hideLabel
            value={status()}
            choices={[{ value: "", label: "Every status" }, ...STATUSES.map((one) => ({ value: one, label: one }))]}
            onChange={setStatus}
          />
          <Button
            disabled={picked().length < 2}
            onClick={() => app.go({ screen: "compare", ids: picked().map((one) => one.id) })}
          >
            Compare {picked().length > 1 ? count(picked().length) : ""}
          </Button>
          <Button kind="danger" disabled={picked().length === 0} onClick={() => remove(picked())}>
            Delete {picked().length > 0 ? count(picked().length) : ""}
          </Button>
          <LinkButton kind="primary" href={formatRoute({ screen: "run" })}>
            New backtest
          </LinkButton>
        </div>
      </header>
      <Switch>
        <Match when={waits(app.backtests.state())}>
          {(state) => <WaitingForBroker what={state().what} since={state().since} />}
        </Match>
        <Match when={fails(app.backtests.state())}>
          {(state) => (
            <ErrorPanel
              error={state().error}
              title="The list of backtests could not be read"
              actions={[{ label: "Try again", run: () => void app.backtests.refresh() }]}
            />
          )}
        </Match>
        <Match when={rows().length === 0}>
          <EmptyState
            title="There are no results yet"
            actions={
              <LinkButton kind="primary" href={formatRoute({ screen: "run" })}>
                Run a backtest
              </LinkButton>
            }
          >
            Every backtest appears here, whichever program starts it: this app, a notebook or the command line.
          </EmptyState>
        </Match>
        <Match when={shown().length === 0}>
          <EmptyState
            title="No backtest is like that"
            actions={
              <Button
                onClick={() => {
                  setWords("");
                  setStatus("");
                }}
              >
                Show all
              </Button>
            }
          />
        </Match>
        <Match when={true}>
          <div class="panel runs-table">
            <VirtualTable
              label="Backtests"
              rows={rows().length}
              shown={shown()}
              columns={columns}
              revision={known.revision()}
              initialSort={{ column: "time", descending: true }}
              selected={placeOf(rows(), current())}
              onSelect={(row) => setCurrent(at(row)?.id)}
              onActivate={(row) => app.go({ screen: "backtest", id: at(row)?.id ?? "" })}
              onToggle={(row) => toggle(at(row))}
              fill
            />
          </div>
          <p class="small muted">
            Enter opens a backtest, Space chooses it to compare or delete; a click on a title sorts.
          </p>
        </Match>
      </Switch>
    </section>
  );
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

function placeOf(rows: readonly RunRow[], id: string | undefined): number | undefined {
  const place = id === undefined ? -1 : rows.findIndex((one) => one.id === id);
  return place < 0 ? undefined : place;
}

type Waits = { readonly what: string; readonly since: number };

function waits(state: { readonly state: string }): Waits | undefined {
  return state.state === "waiting" ? (state as unknown as Waits) : undefined;
}

function fails(state: { readonly state: string }): { readonly error: unknown } | undefined {
  return state.state === "failed" ? (state as unknown as { error: unknown }) : undefined;
}
