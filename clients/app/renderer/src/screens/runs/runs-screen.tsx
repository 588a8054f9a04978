import type { StoredResult } from "@backtestr/client/page";
import { createEffect, createMemo, createSignal, type JSX, Match, on, onMount, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { Button, LinkButton } from "../../components/button";
import { ErrorPanel, messageOf, OldNote } from "../../components/error-panel";
import { Select, TextField } from "../../components/field";
import { EmptyState } from "../../components/states";
import { VirtualTable } from "../../components/virtual-table";
import { count } from "../../format/numbers";
import { formatRoute } from "../../routes";
import { WaitingForBroker } from "../../shell/start-broker";
import { createListing } from "../../stores/listing";
import { failedOf, staleOf, thereOf, waitingOf } from "../../stores/loadable";
import { runColumns } from "./run-columns";
import { joinRows, type RunRow, type RunSummary, shownRows } from "./run-rows";
import { summaries } from "./summaries";
import "./runs-screen.css";

const STATUSES = ["running", "queued", "paused", "completed", "stopped", "failed", "stored", "pinned"] as const;
const ENDED: readonly string[] = ["completed", "stopped", "stored"];

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
  const [current, setCurrent] = createSignal<string>();

  onMount(() => app.reread(stored));
  const ended = createMemo(
    () => (thereOf(app.backtests.state()) ?? []).filter((one) => one.endTime !== undefined).length,
  );
  createEffect(on([ended, app.connection.status], () => app.reread(stored), { defer: true }));

  const rows = createMemo(() =>
    joinRows(thereOf(app.backtests.state()) ?? [], thereOf(stored.state()) ?? []).filter(
      (one) => !app.deletions.pending().has(one.id),
    ),
  );
  const at = (row: number): RunRow | undefined => rows()[row];
  const summaryOf = (row: RunRow | undefined): RunSummary | undefined =>
    row === undefined ? undefined : known.of(row.id, ENDED.includes(row.status));
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
    setChosen(new Set<string>());
    app.deletions.start(ids, ids.length === 1 ? "A backtest" : `${ids.length} backtests`, () => removeNow(ids));
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
  }
  const columns = runColumns({
    at,
    summaryOf,
    isChosen: (row) => chosen().has(row.id),
    toggle,
    pin: (row) => void pin(row),
  });

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
      <OldNote error={staleOf(app.backtests.state())} />
      <Switch>
        <Match when={waitingOf(app.backtests.state())}>
          {(state) => <WaitingForBroker what={state().what} since={state().since} />}
        </Match>
        <Match when={failedOf(app.backtests.state())}>
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

function placeOf(rows: readonly RunRow[], id: string | undefined): number | undefined {
  const place = id === undefined ? -1 : rows.findIndex((one) => one.id === id);
  return place < 0 ? undefined : place;
}
