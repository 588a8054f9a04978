import { createSignal, type JSX, onCleanup, Show } from "solid-js";
import { useApp } from "../app-context";
import { Button } from "../components/button";
import { messageOf } from "../components/error-panel";
import { EmptyState, Waiting, type WaitingProps } from "../components/states";

/** A button that starts a broker, and the command that does the same; of an app server that is away, its words alone. */
export function StartBroker(): JSX.Element {
  const { host, connection, notices } = useApp();
  const [starting, setStarting] = createSignal(false);
  async function start(): Promise<void> {
    setStarting(true);
    try {
      await host.startBroker();
      notices.show("The broker runs. It stays when this page is closed.");
    } catch (error) {
      notices.show(messageOf(error), { kind: "error" });
    }
    setStarting(false);
  }
  const hostProblem = (): string => {
    const state = connection.hostState();
    return state.kind === "reachable" ? "" : state.message;
  };
  return (
    <Show when={hostProblem() === ""} fallback={<span class="muted">{hostProblem()}</span>}>
      <Show when={connection.session()?.brokerMayBeStarted === true}>
        <Button kind="primary" busy={starting()} onClick={() => void start()}>
          {starting() ? "Starting the broker" : "Start a broker"}
        </Button>
      </Show>
      <span class="muted">
        <Show when={connection.session()?.brokerMayBeStarted === true} fallback="Start one in a terminal: ">
          or in a terminal:{" "}
        </Show>
        <code>backtestr run</code>
      </span>
    </Show>
  );
}

/** Waits for something of the broker; where none answers, says so and how to start one. */
export function WaitingForBroker(props: WaitingProps): JSX.Element {
  const { connection } = useApp();
  const [now, setNow] = createSignal(Date.now());
  const timer = setInterval(() => setNow(Date.now()), 500);
  onCleanup(() => clearInterval(timer));
  const isAway = (): boolean => {
    const status = connection.status();
    return status !== "ready" && status !== "closed" && now() - connection.since() > 2_000;
  };
  return (
    <Show when={isAway()} fallback={<Waiting {...props} />}>
      <EmptyState title="No broker answers" actions={<StartBroker />}>
        The app waits for {props.what}, and shows it as soon as a broker runs. What is typed here is kept.
      </EmptyState>
    </Show>
  );
}
