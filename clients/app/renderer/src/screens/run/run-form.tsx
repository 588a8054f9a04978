/** The form of a backtest as the screens Run and Sweep have it: its draft, what it waits for, what is wrong with it. */

import type { AlgorithmInfo, SeriesInfo } from "@backtestr/client/page";
import { type Accessor, createEffect, createMemo, For, type JSX, Match, onMount, Switch } from "solid-js";
import { type App, useApp } from "../../app-context";
import { ErrorPanel, OldNote } from "../../components/error-panel";
import { EmptyState } from "../../components/states";
import { WaitingForBroker } from "../../shell/start-broker";
import type { Draft } from "../../stores/drafts";
import { failedOf, staleOf, thereOf, waitingOf } from "../../stores/loadable";
import { openRunDraft, type RunDraft } from "./run-draft";
import "./run-screen.css";

/** The properties of the parts of the form. */
export interface FormPart {
  readonly draft: RunDraft;
  change(part: Partial<RunDraft>): void;
  /** The reason of a field, of this page or of the broker. */
  errorOf(field: string): string | undefined;
  readonly algorithms: readonly AlgorithmInfo[];
  readonly series: readonly SeriesInfo[];
}

export interface RunForm {
  readonly draft: Draft<RunDraft>;
  readonly algorithms: Accessor<readonly AlgorithmInfo[]>;
  readonly series: Accessor<readonly SeriesInfo[]>;
}

/** Opens the draft with the lists that it chooses from, and chooses the first algorithm and series for a newcomer. */
export function createRunForm(app: App): RunForm {
  const draft = openRunDraft(app.drafts);
  const algorithms = createMemo(() => thereOf(app.algorithms.state())?.algorithms ?? []);
  const series = createMemo(() => thereOf(app.catalogue.state()) ?? []);
  onMount(() => app.reread(app.catalogue, app.algorithms));
  createEffect(() => {
    const { algorithm, symbols } = draft.value();
    if (!draft.known() || (algorithm !== "" && symbols.length > 0) || algorithms().length === 0) return;
    const first = series().find((one) => one.timeframe !== "tick") ?? series()[0];
    if (first === undefined) return;
    const usual = algorithms().find((one) => one.name === "sma_cross") ?? algorithms()[0];
    const timeframe = first.timeframe === "tick" ? "1m" : first.timeframe;
    draft.change((now) => ({
      ...now,
      algorithm: now.algorithm || (usual?.name ?? ""),
      ...(now.symbols.length > 0 ? {} : { symbols: [first.symbol], timeframe }),
    }));
  });
  return { draft, algorithms, series };
}

/** Says where a draft is kept. */
export function keptWords(app: App, isUnsaved: boolean): string {
  const isReady = app.connection.status() === "ready";
  if (!isUnsaved) return isReady ? "Draft kept by the broker" : "";
  return isReady ? "Draft kept here" : "Draft kept here until a broker answers";
}

/** Shows the form once there are lists to choose from, and why it waits until then. */
export function FormGate(props: {
  readonly series: readonly SeriesInfo[];
  readonly children: JSX.Element;
}): JSX.Element {
  const app = useApp();
  return (
    <>
      <OldNote error={staleOf(app.algorithms.state()) ?? staleOf(app.catalogue.state())} />
      <Switch>
        <Match when={waitingOf(app.algorithms.state()) ?? waitingOf(app.catalogue.state())}>
          {(state) => <WaitingForBroker what={state().what} since={state().since} />}
        </Match>
        <Match when={failedOf(app.algorithms.state()) ?? failedOf(app.catalogue.state())}>
          {(state) => (
            <ErrorPanel
              error={state().error}
              title={`This could not be read: ${state().what}`}
              actions={[
                {
                  label: "Try again",
                  run: () => {
                    void app.algorithms.refresh();
                    void app.catalogue.refresh();
                  },
                },
              ]}
            />
          )}
        </Match>
        <Match when={props.series.length === 0}>
          <EmptyState
            title="There is nothing to run on yet"
            actions={
              <a class="button primary" href="#/data">
                Go to the data
              </a>
            }
          >
            Import a file of bars or ticks first; an empty catalogue offers a made-up sample.
          </EmptyState>
        </Match>
        <Match when={true}>{props.children}</Match>
      </Switch>
    </>
  );
}

/** Says what keeps a form from being sent. */
export function Mistakes(props: { readonly mistakes: readonly string[] }): JSX.Element {
  return (
    <div class="error-panel mild" role="alert">
      <strong>Before it can start</strong>
      <ul class="error-advice small">
        <For each={props.mistakes}>{(error) => <li>{error}</li>}</For>
      </ul>
    </div>
  );
}
