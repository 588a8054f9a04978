import { createSignal, For, type JSX, onCleanup, Show } from "solid-js";
import { useApp } from "../app-context";
import { Definition } from "../components/definition";
import { bytes, compact, count } from "../format/numbers";
import { duration } from "../format/times";
import { StartBroker } from "./start-broker";
import { connectionWords, healthWords, type Words, workerWords } from "./status-words";
import "./status-bar.css";

const MARKS = { good: "●", wait: "◐", bad: "▲" } as const;

function Light(props: { readonly label: string; readonly words: Words; readonly more?: JSX.Element }): JSX.Element {
  return (
    <span class={`status-item ${props.words.sense}`}>
      <span class="status-mark" aria-hidden="true">
        {MARKS[props.words.sense]}
      </span>
      <span class="visually-hidden">{props.label}: </span>
      <Definition term={props.words.short}>
        <p>{props.words.long}</p>
        {props.more}
      </Definition>
    </span>
  );
}

/** The state of everything behind the page, in one line that never takes the focus. */
export function StatusBar(): JSX.Element {
  const { connection } = useApp();
  const [now, setNow] = createSignal(Date.now());
  const timer = setInterval(() => setNow(Date.now()), 1000);
  onCleanup(() => clearInterval(timer));
  const link = (): Words => connectionWords(connection.hostState(), connection.status(), now() - connection.since());
  const silentMs = (): number => now() - (connection.heardAt() ?? now());
  return (
    <footer class="status-bar">
      <Light label="Connection" words={link()} />
      <Show when={link().sense === "bad"}>
        <span class="status-start">
          <StartBroker />
        </span>
      </Show>
      <Show when={connection.status() === "ready" ? connection.health() : undefined}>
        {(status) => (
          <>
            <Light
              label="Broker"
              words={healthWords(status(), silentMs())}
              more={
                <dl class="facts">
                  <Fact name="Up for" value={duration(status().uptimeMs)} />
                  <Fact name="Memory" value={`${bytes(status().memoryUsage.used)}`} />
                  <Fact name="Processor" value={`${count(status().cpuUsage)} %`} />
                  <Fact name="Loop lag" value={`${status().loopLagMs.toFixed(1)} ms`} />
                  <Fact name="Clients" value={count(status().connectedClients)} />
                  <Show when={status().disk}>
                    {(disk) => <Fact name="Free disk" value={bytes(disk().freeBytes)} />}
                  </Show>
                </dl>
              }
            />
            <Light label="Workers" words={workerWords(status())} />
            <span class="status-item">
              <Definition term={`${count(status().activeBacktests)} running`}>
                Backtests that are being computed, or wait for a worker.
              </Definition>
            </span>
            <span class="status-item">
              <Definition term={`${count(status().queuedRequests)} queued`}>
                Requests that wait for a worker: backtests, imports, reads of data.
              </Definition>
            </span>
            <Show when={connection.rates()}>
              {(rates) => (
                <span class="status-item">
                  <Definition term={`${compact(rates().requests)} req/s, ${compact(rates().messages)} msg/s`}>
                    Requests of all clients, and messages on all topics, a second, between the last two heartbeats.
                  </Definition>
                </span>
              )}
            </Show>
          </>
        )}
      </Show>
      <span class="status-end">
        <Repairs />
        <Show when={connection.session()}>{(session) => <span class="muted">backtestr {session().version}</span>}</Show>
      </span>
    </footer>
  );
}

function Fact(props: { readonly name: string; readonly value: string }): JSX.Element {
  return (
    <>
      <dt>{props.name}</dt>
      <dd>{props.value}</dd>
    </>
  );
}

function Repairs(): JSX.Element {
  const { connection } = useApp();
  return (
    <Show when={connection.repairs()}>
      {(repairs) => (
        <span class="status-item" classList={{ bad: repairs().lost > 0 }}>
          <Definition term={`${compact(repairs().repaired)} gaps repaired, ${compact(repairs().lost)} lost`}>
            <p>Gaps in streams whose messages have been fetched, and messages that the broker no longer had.</p>
            <For each={repairs().latest}>{(line) => <p class="mono">{line}</p>}</For>
          </Definition>
        </span>
      )}
    </Show>
  );
}
