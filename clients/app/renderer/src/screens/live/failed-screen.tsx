/** The screen of a backtest that failed: its error with the place in the user's file, and the way back to the form. */

import type { BacktestStatus } from "@backtestr/client/page";
import { errorFromData } from "@backtestr/client/page";
import { createMemo, For, type JSX, Show } from "solid-js";
import { useApp } from "../../app-context";
import { LinkButton } from "../../components/button";
import { ErrorPanel } from "../../components/error-panel";
import { Waiting } from "../../components/states";
import { formatRoute } from "../../routes";
import { thereOf } from "../../stores/loadable";
import { Configuration } from "../result/configuration";
import { createReading } from "../result/loading";
import { configOf, titleOf } from "../result/result-data";
import { framesOf, type TraceFrame } from "./traceback";
import "../result/result.css";
import "./live.css";

export interface FailedScreenProps {
  readonly id: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly status: BacktestStatus | undefined;
}

/** Shows why a backtest failed. */
export function FailedScreen(props: FailedScreenProps): JSX.Element {
  const app = useApp();
  const config = createMemo(() => configOf(props.config));
  // The list of backtests may be older than the failure.
  const reading = createReading("the reason", () =>
    props.status?.error === undefined
      ? app.client.request("GetBacktestStatus", { backtestId: props.id })
      : Promise.resolve(props.status),
  );
  const error = createMemo(() => thereOf(reading.state())?.error ?? props.status?.error);
  const traceback = (): string | undefined => {
    const found = error()?.details?.traceback;
    return typeof found === "string" && found !== "" ? found : undefined;
  };
  return (
    <div class="screen" data-testid="failed-screen">
      <header class="screen-header">
        <h1>{titleOf(config())}</h1>
        <span class="status-word failed">failed</span>
        <div class="actions">
          <LinkButton kind="primary" href={formatRoute({ screen: "run", copyOf: props.id })}>
            Open the form with these parameters
          </LinkButton>
          <LinkButton href={formatRoute({ screen: "algorithms", algorithm: config().algorithm })}>
            Show the algorithm
          </LinkButton>
        </div>
      </header>
      <Show when={error()} fallback={<Waiting what="the reason of the failure" />}>
        {(found) => (
          <ErrorPanel title="The backtest failed" error={errorFromData(found())}>
            <Show when={traceback()}>{(text) => <Traceback text={text()} />}</Show>
          </ErrorPanel>
        )}
      </Show>
      <Configuration config={props.config} />
    </div>
  );
}

/** A traceback, whose last line of the user's own file stands out. */
function Traceback(props: { readonly text: string }): JSX.Element {
  const frames = createMemo(() => framesOf(props.text));
  return (
    <section class="traceback" data-testid="traceback" aria-label="Traceback">
      <For each={frames()}>{(frame) => <Frame frame={frame} />}</For>
      <details class="small">
        <summary>Traceback as Python prints it</summary>
        <pre tabindex={0}>{props.text}</pre>
      </details>
    </section>
  );
}

function Frame(props: { readonly frame: TraceFrame }): JSX.Element {
  return (
    <div class="trace-frame" classList={{ own: props.frame.isOwn }}>
      <span class="small muted">
        <span title={props.frame.file}>{props.frame.file.split(/[\\/]/).at(-1)}</span>, line{" "}
        <strong>{props.frame.line}</strong>, in <code>{props.frame.name}</code>
      </span>
      <Show when={props.frame.code}>
        <code class="trace-code">{props.frame.code}</code>
      </Show>
    </div>
  );
}
