/** The screen of a sweep: what it has come to so far, and its rows as they come. */

import type { SweepDetails, SweepStatus } from "@backtestr/client/page";
import { createMemo, createSignal, type JSX, Match, onCleanup, Show, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { Button, LinkButton } from "../../components/button";
import { Definition } from "../../components/definition";
import { codeOf, ErrorPanel, messageOf } from "../../components/error-panel";
import { EmptyState, Progress } from "../../components/states";
import { count, percent } from "../../format/numbers";
import { duration, moment, seconds } from "../../format/times";
import { formatRoute } from "../../routes";
import { WaitingForBroker } from "../../shell/start-broker";
import { failedOf, thereOf, waitingOf } from "../../stores/loadable";
import { createReading } from "../result/loading";
import { type Brushes, whereOf } from "./brushes";
import { SweepCharts } from "./sweep-charts";
import { isFinal, labelOf, SweepModel } from "./sweep-model";
import { SweepRows } from "./sweep-rows";
import { figureText, parametersText, titleOf } from "./sweep-text";
import "../result/result.css";
import "../live/live.css";
import "./sweeps.css";

/** Milliseconds between two drawings of what has come, and of many cells. */
const DRAWING_MS = 120;
const MANY_MS = 1_000;
const MANY_CELLS = 8_000;
/** Milliseconds in which a second click stops for good. */
const SURE_MS = 5_000;

/** Shows a sweep by its id. */
export function SweepScreen(props: { readonly id: string }): JSX.Element {
  const app = useApp();
  const reading = createReading("the sweep", () => app.client.request("GetSweepStatus", { sweepId: props.id }));
  return (
    <Switch>
      <Match when={waitingOf(reading.state())}>
        {(state) => <WaitingForBroker what={state().what} since={state().since} />}
      </Match>
      <Match when={failedOf(reading.state())}>
        {(state) => (
          <div class="screen">
            <Show
              when={codeOf(state().error) === "NOT_FOUND"}
              fallback={
                <ErrorPanel
                  title="The sweep could not be read"
                  error={state().error}
                  actions={[{ label: "Read it again", run: reading.again }]}
                />
              }
            >
              <EmptyState
                title="There is no such sweep"
                actions={<LinkButton href={formatRoute({ screen: "sweeps" })}>Show all sweeps</LinkButton>}
              >
                The broker knows none of this id. It may have been deleted.
              </EmptyState>
            </Show>
          </div>
        )}
      </Match>
      <Match when={thereOf(reading.state())}>{(details) => <Found details={details()} />}</Match>
    </Switch>
  );
}

function Found(props: { readonly details: SweepDetails }): JSX.Element {
  const app = useApp();
  const { details } = props;
  const [status, setStatus] = createSignal<SweepStatus>(details);
  const [drawn, setDrawn] = createSignal(0);
  const [chosen, setChosen] = createSignal<number>();
  const [brushes, setBrushes] = createSignal<Brushes>({});
  const [where, setWhere] = createSignal<string>();
  let pause: ReturnType<typeof setTimeout> | undefined;
  const model = new SweepModel(app.client, details, () => {
    pause ??= setTimeout(
      () => {
        pause = undefined;
        setStatus(model.status);
        setDrawn((last) => last + 1);
      },
      model.cells.count > MANY_CELLS ? MANY_MS : DRAWING_MS,
    );
  });
  onCleanup(() => {
    model.stop();
    clearTimeout(pause);
  });
  async function open(cell: number): Promise<void> {
    // The same row is the same backtest, however often it is opened.
    const own = `${details.sweepId}-${cell}`;
    const backtestId = own.length > 64 ? crypto.randomUUID() : own;
    try {
      await app.client.request("GetSweepRun", { sweepId: details.sweepId, row: cell, backtestId });
    } catch (error) {
      // One of that id is this row, opened before.
      if (codeOf(error) !== "STATE_CONFLICT") {
        app.notices.show(`The row was not started: ${messageOf(error)}`, { kind: "error" });
        return;
      }
    }
    app.go({ screen: "backtest", id: backtestId });
  }
  return (
    <div class="screen" data-testid="sweep-screen">
      <header class="screen-header">
        <h1>{titleOf(details)}</h1>
        <span class={`status-word ${status().status}`} data-testid="sweep-status">
          {status().status}
        </span>
        <Controls status={status()} model={model} />
      </header>
      <State details={details} status={status()} onOpen={(cell) => void open(cell)} />
      <Show when={status().error}>
        {(error) => (
          <div class="error-panel" role="alert">
            <strong>{status().status === "failed" ? "The sweep has failed; its rows stay" : "The sweep waits"}</strong>
            <p>{error().message}</p>
          </div>
        )}
      </Show>
      <SweepCharts
        model={model}
        drawn={drawn()}
        chosen={chosen()}
        onChoose={setChosen}
        onOpen={(cell) => void open(cell)}
        brushes={brushes()}
        onBrushes={(next, axes) => {
          setBrushes(next);
          setWhere(whereOf(next, axes));
        }}
      />
      <SweepRows
        details={details}
        status={status()}
        where={where()}
        chosen={chosen()}
        onChoose={setChosen}
        onOpen={(cell) => void open(cell)}
      />
    </div>
  );
}

type Steering = "PauseSweep" | "ResumeSweep" | "StopSweep";

function Controls(props: { readonly status: SweepStatus; readonly model: SweepModel }): JSX.Element {
  const app = useApp();
  const id = props.status.sweepId;
  const [busy, setBusy] = createSignal<Steering>();
  const [error, setError] = createSignal<unknown>();
  const [isSure, setIsSure] = createSignal(false);
  let timer: ReturnType<typeof setTimeout> | undefined;
  onCleanup(() => clearTimeout(timer));
  async function ask(request: Steering): Promise<void> {
    setBusy(request);
    setError(undefined);
    try {
      await app.client.request(request, { sweepId: id });
      await props.model.again();
    } catch (reason) {
      setError(reason);
    }
    setBusy(undefined);
  }
  function stop(): void {
    clearTimeout(timer);
    if (isSure()) {
      setIsSure(false);
      void ask("StopSweep");
      return;
    }
    setIsSure(true);
    timer = setTimeout(() => setIsSure(false), SURE_MS);
  }
  function remove(): void {
    app.deletions.start([id], "The sweep with its rows", async () => {
      try {
        await app.client.request("DeleteSweep", { sweepId: id });
      } catch (reason) {
        app.notices.show(`The sweep was not deleted: ${messageOf(reason)}`, { kind: "error" });
      }
    });
    app.go({ screen: "sweeps" });
  }
  const is = (...some: readonly string[]): boolean => some.includes(props.status.status);
  return (
    <>
      <div class="actions">
        <Show when={is("running", "queued")}>
          <Button busy={busy() === "PauseSweep"} onClick={() => void ask("PauseSweep")}>
            Pause
          </Button>
        </Show>
        <Show when={is("paused", "failed")}>
          <Button kind="primary" busy={busy() === "ResumeSweep"} onClick={() => void ask("ResumeSweep")}>
            Resume
          </Button>
        </Show>
        <Show
          when={isFinal(props.status.status)}
          fallback={
            <Button kind={isSure() ? "danger" : "plain"} busy={busy() === "StopSweep"} onClick={stop}>
              {isSure() ? "Stop for good, keep the rows so far" : "Stop"}
            </Button>
          }
        >
          <Button kind="danger" onClick={remove}>
            Delete
          </Button>
        </Show>
        <LinkButton href={formatRoute({ screen: "sweep", copyOf: id })}>Open the form …</LinkButton>
      </div>
      <Show when={error()}>{(found) => <ErrorPanel mild title="The sweep was not changed" error={found()} />}</Show>
    </>
  );
}

interface StateProps {
  readonly details: SweepDetails;
  readonly status: SweepStatus;
  onOpen(cell: number): void;
}

function State(props: StateProps): JSX.Element {
  const share = (): number => props.status.progressPercent / 100;
  const words = createMemo(() => {
    const { status, timeLeftMs, startTime, endTime } = props.status;
    if (status === "queued") return "It waits for a worker";
    if (isFinal(status)) {
      const took = startTime === undefined || endTime === undefined ? "" : `, took ${duration(endTime - startTime)}`;
      return `${percent(share(), 0)}${took}`;
    }
    const left =
      status === "paused" ? ", paused" : timeLeftMs === undefined ? "" : `, about ${seconds(timeLeftMs)} left`;
    return `${percent(share(), 0)}${left}`;
  });
  const trials = (): number | undefined => props.status.trialsAfter ?? props.status.trialsBefore;
  return (
    <section class="panel" aria-label="State of the sweep">
      <div class="panel-body">
        <Progress label="Progress of the sweep" share={share()} text={words()} />
      </div>
      <dl class="live-top" data-testid="sweep-figures">
        <div>
          <dt>Rows</dt>
          <dd class="sweep-wraps">
            {count(props.status.done)} of {props.status.exact === false ? "about " : ""}
            {count(props.status.of)}
          </dd>
        </div>
        <Show
          when={isFinal(props.status.status)}
          fallback={
            <div>
              <dt>Rate</dt>
              <dd>{props.status.rate === undefined ? "—" : `${count(props.status.rate)} a second`}</dd>
            </div>
          }
        >
          <div>
            <dt>Time of workers</dt>
            <dd>{duration(props.status.workMs ?? 0)}</dd>
          </div>
        </Show>
        <div class="sweep-best">
          <dt>
            Best {labelOf(props.status.objective)}
            {props.status.direction === "minimize" ? ", the lowest" : ""}
          </dt>
          <dd data-testid="sweep-best">
            <Show when={props.status.best} fallback="—">
              {(best) => (
                <>
                  {figureText(props.status.objective, best().value)}{" "}
                  <span class="small muted">{parametersText(best().parameters)}</span>{" "}
                  <Button onClick={() => props.onOpen(best().cell)}>Open as a backtest</Button>
                </>
              )}
            </Show>
          </dd>
        </div>
        <div>
          <dt>
            <Definition term="Failed">
              Rows whose algorithm raised an error, or that ended their worker. Each has its reason; the others are not
              touched by it.
            </Definition>
          </dt>
          <dd classList={{ loss: props.status.failed > 0 }}>{count(props.status.failed)}</dd>
        </div>
        <Show when={trials() !== undefined}>
          <div>
            <dt>
              <Definition term={props.status.trialsAfter === undefined ? "Trials before" : "Trials"}>
                Every combination of this algorithm that this broker ever ran on these bars, in sweeps and alone. The
                more there were, the better the best of them looks by chance.
              </Definition>
            </dt>
            <dd data-testid="sweep-trials">{count(trials())}</dd>
          </div>
        </Show>
        <div>
          <dt>Submitted</dt>
          <dd class="sweep-wraps">{moment(60_000 * Math.floor(props.status.submitTime / 60_000))}</dd>
        </div>
      </dl>
      <p class="sweep-notes small muted">
        Path <code>{props.details.path}</code>: {props.details.pathReason}.
        <Show when={props.details.sweep.where}>
          {(where) => (
            <>
              {" "}
              Constraint <code>{where()}</code>.
            </>
          )}
        </Show>
        <Show when={props.status.cluster}>
          {(cluster) => (
            <>
              {" "}
              On the cluster <code>{cluster().scheduler}</code> with {count(cluster().workers)} workers
              {(cluster().refused ?? []).map((reason) => `; refused: ${reason}`)}.
            </>
          )}
        </Show>
        {(props.details.notes ?? []).map((note) => ` Note: ${note}.`)}
      </p>
    </section>
  );
}
