/** The screen of a backtest: what it does while it runs, and its result once it has ended. */

import type { BacktestStatus, Metrics, RemoteResults } from "@backtestr/client/page";
import { createEffect, createMemo, type JSX, lazy, Match, Show, Suspense, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { LinkButton } from "../../components/button";
import { codeOf, ErrorPanel } from "../../components/error-panel";
import { EmptyState, Waiting } from "../../components/states";
import { formatRoute } from "../../routes";
import { thereOf } from "../../stores/loadable";
import { createReading } from "../result/loading";
import { ResultScreen } from "../result/result-screen";
import { FailedScreen } from "./failed-screen";

// Candles are drawn by a library of their own, which a result is shown without at first.
const LiveScreen = lazy(async () => ({ default: (await import("./live-screen")).LiveScreen }));

export interface BacktestScreenProps {
  readonly id: string;
  readonly view?: string | undefined;
}

/** Shows a backtest by its id. */
export function BacktestScreen(props: BacktestScreenProps): JSX.Element {
  const app = useApp();
  const { id } = props;
  const reading = createReading("the backtest", () => app.client.results(id, { tables: [] }));
  // The broker tells every change of a status, and all statuses after a reconnection.
  const status = createMemo((): BacktestStatus | undefined =>
    thereOf(app.backtests.state())?.find((one) => one.backtestId === id),
  );
  const state = createMemo(() => status()?.status ?? thereOf(reading.state())?.status);
  // What was read before the end has no metrics: the end is read too, however the two came.
  createEffect(() => {
    const read = thereOf(reading.state());
    if (read !== undefined && !isFinal(read.status) && isFinal(state())) reading.again();
  });
  // What was read stays in sight while the end is read.
  const results = createMemo((last: RemoteResults | undefined) => thereOf(reading.state()) ?? last, undefined);
  const ended = createMemo(() => {
    const found = thereOf(reading.state());
    return found !== undefined && found.metrics !== null && isFinal(found.status) ? (found as Ended) : undefined;
  });
  const failed = (): unknown => {
    const now = reading.state();
    return now.state === "failed" ? now.error : undefined;
  };
  return (
    <Switch fallback={<Waiting what="the backtest" />}>
      <Match when={failed()}>{(error) => <NotRead error={error()} again={reading.again} />}</Match>
      <Match when={state() === "failed" && results()}>
        {(found) => <FailedScreen id={id} config={found().config} status={status()} />}
      </Match>
      <Match when={ended()}>
        {(found) => <ResultScreen results={found()} metrics={found().metrics} view={props.view} />}
      </Match>
      <Match when={results() !== undefined && !isFinal(state()) && results()}>
        {(found) => (
          <Suspense fallback={<Waiting what="the code of this screen" />}>
            <LiveScreen id={id} config={found().config} status={status()} />
          </Suspense>
        )}
      </Match>
      <Match when={isFinal(state()) && reading.state().state === "there"}>
        <div class="screen">
          <EmptyState
            title="There is no result"
            actions={
              <LinkButton href={formatRoute({ screen: "run", copyOf: id })}>
                Open the form with its parameters
              </LinkButton>
            }
          >
            The backtest was stopped before its first bar.
          </EmptyState>
        </div>
      </Match>
    </Switch>
  );
}

type Ended = RemoteResults & { readonly metrics: Metrics };

function isFinal(status: string | undefined): boolean {
  return status === "completed" || status === "stopped" || status === "failed";
}

function NotRead(props: { readonly error: unknown; readonly again: () => void }): JSX.Element {
  return (
    <div class="screen">
      <Show
        when={codeOf(props.error) === "NOT_FOUND"}
        fallback={
          <ErrorPanel
            title="The backtest could not be read"
            error={props.error}
            actions={[{ label: "Read it again", run: props.again }]}
          />
        }
      >
        <EmptyState
          title="There is no such backtest"
          actions={<LinkButton href={formatRoute({ screen: "runs" })}>Show all backtests</LinkButton>}
        >
          The broker knows none of this id, and has no result of it. It may have been deleted.
        </EmptyState>
      </Show>
    </div>
  );
}
