import type { SweepProgress, SweepStatus } from "@backtestr/client/page";
import { createEffect, createMemo, type JSX, Match, on, onCleanup, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { LinkButton } from "../../components/button";
import { ErrorPanel, OldNote } from "../../components/error-panel";
import { EmptyState, Progress } from "../../components/states";
import { type Column, VirtualTable } from "../../components/virtual-table";
import { count, percent } from "../../format/numbers";
import { moment } from "../../format/times";
import { formatRoute } from "../../routes";
import { WaitingForBroker } from "../../shell/start-broker";
import { createListing } from "../../stores/listing";
import { failedOf, staleOf, thereOf, waitingOf } from "../../stores/loadable";
import { keepReading } from "../../stores/reading";
import { isFinal, labelOf } from "./sweep-model";
import { figureText, parametersText, titleOf } from "./sweep-text";
import "../runs/runs-screen.css";
import "../result/result.css";

/** As many sweeps as a broker keeps. */
const MOST = 1_000;

/** Every sweep that the broker knows, with its progress and its best row. */
export function SweepsScreen(): JSX.Element {
  const app = useApp();
  const listing = createListing<readonly SweepStatus[]>("the broker's list of sweeps", async () => {
    const { sweeps } = await app.client.request("ListSweeps", { limit: MOST });
    return sweeps;
  });
  createEffect(
    on(app.connection.status, (status) => {
      if (status === "ready") void listing.refresh();
    }),
  );
  onCleanup(
    keepReading(
      () => app.client.subscribe("progress."),
      (received) => {
        if (received.kind !== "update") void listing.refresh();
        else if ("sweepId" in received.data) {
          const { cellsDone: _, ...status } = received.data as unknown as SweepProgress;
          listing.change((known) => withStatus(known, status));
        }
      },
    ),
  );
  const rows = createMemo(() =>
    (thereOf(listing.state()) ?? []).filter((one) => !app.deletions.pending().has(one.sweepId)),
  );
  const at = (row: number): SweepStatus => rows()[row] as SweepStatus;
  const new_ = (): JSX.Element => (
    <LinkButton kind="primary" href={formatRoute({ screen: "sweep" })}>
      New sweep
    </LinkButton>
  );
  return (
    <section class="screen runs-screen" aria-label="Sweeps">
      <header class="screen-header">
        <h1>Sweeps</h1>
        <span class="muted">{count(rows().length)}</span>
        <div class="actions">{new_()}</div>
      </header>
      <OldNote error={staleOf(listing.state())} />
      <Switch>
        <Match when={waitingOf(listing.state())}>
          {(state) => <WaitingForBroker what={state().what} since={state().since} />}
        </Match>
        <Match when={failedOf(listing.state())}>
          {(state) => (
            <ErrorPanel
              error={state().error}
              title="The list of sweeps could not be read"
              actions={[{ label: "Try again", run: () => void listing.refresh() }]}
            />
          )}
        </Match>
        <Match when={rows().length === 0}>
          <EmptyState title="There are no sweeps yet" actions={new_()}>
            A sweep runs an algorithm with many combinations of its parameters, and draws what comes of it. Every sweep
            appears here, whichever program starts it.
          </EmptyState>
        </Match>
        <Match when={true}>
          <div class="panel runs-table">
            <VirtualTable
              label="Sweeps"
              rows={rows().length}
              columns={columnsOf(at)}
              revision={rows()}
              initialSort={{ column: "time", descending: true }}
              onActivate={(row) => app.go({ screen: "sweeps", id: at(row).sweepId })}
              fill
            />
          </div>
        </Match>
      </Switch>
    </section>
  );
}

function columnsOf(at: (row: number) => SweepStatus): readonly Column[] {
  const done = (row: number): number => at(row).progressPercent / 100;
  return [
    {
      id: "status",
      title: "Status",
      width: "9rem",
      text: (row) => at(row).status,
      value: (row) => at(row).status,
      render: (row) => (
        <span class={`run-status ${at(row).status}`} title={at(row).error?.message}>
          {isFinal(at(row).status) || at(row).status === "queued" ? (
            at(row).status
          ) : (
            <Progress label={`Progress of ${titleOf(at(row))}`} share={done(row)} text={percent(done(row), 0)} />
          )}
        </span>
      ),
    },
    {
      id: "title",
      title: "Sweep",
      width: "minmax(12rem, 1.5fr)",
      text: (row) => titleOf(at(row)),
      value: (row) => titleOf(at(row)),
      render: (row) => (
        <a href={formatRoute({ screen: "sweeps", id: at(row).sweepId })} tabindex={-1}>
          {titleOf(at(row))}
        </a>
      ),
    },
    {
      id: "method",
      title: "Method",
      width: "5.5rem",
      text: (row) => at(row).method,
      value: (row) => at(row).method,
    },
    {
      id: "done",
      title: "Rows",
      width: "9rem",
      align: "end",
      text: (row) => `${count(at(row).done)} of ${count(at(row).of)}`,
      value: (row) => at(row).done,
    },
    {
      id: "failed",
      title: "Failed",
      width: "4.5rem",
      align: "end",
      text: (row) => (at(row).failed === 0 ? "" : count(at(row).failed)),
      value: (row) => at(row).failed,
      class: () => "loss",
    },
    {
      id: "objective",
      title: "Objective",
      width: "minmax(8rem, 1fr)",
      text: (row) => labelOf(at(row).objective),
      value: (row) => labelOf(at(row).objective),
    },
    {
      id: "value",
      title: "Best",
      width: "6rem",
      align: "end",
      text: (row) => figureText(at(row).objective, at(row).best?.value ?? Number.NaN),
      value: (row) => at(row).best?.value,
    },
    {
      id: "best",
      title: "With",
      definition: "The swept parameters of the best row.",
      width: "minmax(8rem, 1.5fr)",
      text: (row) => parametersText(at(row).best?.parameters ?? {}),
    },
    {
      id: "time",
      title: "Submitted",
      width: "9.5rem",
      text: (row) => moment(60_000 * Math.floor(at(row).submitTime / 60_000)),
      value: (row) => at(row).submitTime,
    },
  ];
}

function withStatus(known: readonly SweepStatus[], status: SweepStatus): readonly SweepStatus[] {
  const at = known.findIndex((one) => one.sweepId === status.sweepId);
  return at < 0 ? [status, ...known] : known.with(at, status);
}
