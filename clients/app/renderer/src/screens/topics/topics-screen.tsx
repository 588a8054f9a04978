import { createMemo, createSignal, For, type JSX, onMount, Show } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel } from "../../components/error-panel";
import { TextField } from "../../components/field";
import { EmptyState } from "../../components/states";
import { type Column, VirtualTable } from "../../components/virtual-table";
import { compact, count, fixed } from "../../format/numbers";
import { clock } from "../../format/times";
import { fileOf, lineOf } from "../state/value-text";
import { MOST_MESSAGES, MOST_TOPICS, topicError } from "./inspected";
import { createInspector, type Inspector, MOST_SUBSCRIPTIONS, type ShownTopic } from "./inspector";
import "./topics-screen.css";

/** The beginnings of topics that every broker has. */
const USUAL = ["progress.", "orders.", "positions.", "prices.", "state.", "system."] as const;
/** Characters of a message that are shown. */
const MOST_CHARACTERS = 8_192;

/** The topic inspector: what comes on topics, how fast, and what was lost. */
export function TopicsScreen(props: { readonly topic?: string | undefined }): JSX.Element {
  const { client, connection } = useApp();
  const inspector = createInspector(client);
  const [typed, setTyped] = createSignal("");
  const [tried, setTried] = createSignal(false);
  const [topic, setTopic] = createSignal<string>();
  const chosen = createMemo(() => inspector.topics().find((one) => one.topic === topic()));
  const suggestions = createMemo((): readonly string[] => {
    const published = connection.health()?.streams?.perTopic.map((one) => one.topic) ?? [];
    return [...USUAL, ...published];
  });
  const fault = (): string | undefined => {
    if (inspector.subscriptions().length >= MOST_SUBSCRIPTIONS) {
      return `There are ${MOST_SUBSCRIPTIONS} subscriptions; end one first.`;
    }
    return topicError(
      typed(),
      inspector.subscriptions().map((one) => one.prefix),
    );
  };
  function subscribe(prefix: string): void {
    inspector.subscribe(prefix);
    setTyped("");
    setTried(false);
  }
  onMount(() => {
    if (props.topic !== undefined) subscribe(props.topic);
  });

  return (
    <section class="screen" aria-label="Topics">
      <header class="screen-header">
        <h1>Topics</h1>
        <Show when={inspector.topics().length > 0}>
          <span class="muted">
            {count(inspector.topics().length)} topics,{" "}
            {compact(inspector.topics().reduce((sum, one) => sum + one.rate, 0))} messages a second
          </span>
        </Show>
        <div class="actions">
          <Button
            aria-pressed={inspector.paused()}
            disabled={inspector.subscriptions().length === 0}
            onClick={() => inspector.pause(!inspector.paused())}
          >
            {inspector.paused() ? "Go on" : "Pause"}
          </Button>
          <Button disabled={inspector.topics().length === 0} onClick={() => inspector.clear()}>
            Clear
          </Button>
        </div>
      </header>
      <form
        class="topics-form"
        onSubmit={(event) => {
          event.preventDefault();
          setTried(true);
          if (fault() === undefined) subscribe(typed());
        }}
      >
        <TextField
          label="Topic, or the beginning of topics with a dot at its end"
          value={typed()}
          onInput={setTyped}
          placeholder="progress."
          suggestions={suggestions()}
          error={tried() ? fault() : undefined}
        />
        <Button kind="primary" type="submit">
          Subscribe
        </Button>
      </form>
      <Subscriptions inspector={inspector} />
      <Show
        when={inspector.subscriptions().length > 0}
        fallback={
          <EmptyState
            title="Nothing is subscribed"
            actions={<For each={USUAL}>{(one) => <Button onClick={() => subscribe(one)}>{one}</Button>}</For>}
          >
            <p>
              Subscribe to see what the broker publishes, how fast, and whether this page has missed any of it. Your
              subscription is one of a client like any other: it slows nobody down.
            </p>
          </EmptyState>
        }
      >
        <div class="topics-columns">
          <div class="panel topics-list">
            <Show
              when={inspector.topics().length > 0}
              fallback={<p class="panel-body muted">No message has come yet.</p>}
            >
              <TopicTable topics={inspector.topics()} chosen={chosen()} choose={setTopic} />
            </Show>
            <Show when={inspector.others() > 0}>
              <p class="panel-body muted small">
                {count(inspector.others())} messages came on further topics; {count(MOST_TOPICS)} are told apart.
              </p>
            </Show>
          </div>
          <Show
            when={chosen()}
            fallback={<div class="panel panel-body muted">Choose a topic to read its latest messages.</div>}
          >
            {(one) => <Messages topic={one()} paused={inspector.paused()} />}
          </Show>
        </div>
      </Show>
    </section>
  );
}

function Subscriptions(props: { readonly inspector: Inspector }): JSX.Element {
  return (
    <Show when={props.inspector.subscriptions().length > 0}>
      <ul class="subscriptions" aria-label="Subscriptions">
        <For each={props.inspector.subscriptions()}>
          {(one) => (
            <li>
              <code>{one.prefix}</code>
              <Button
                kind="quiet"
                aria-label={`End the subscription to ${one.prefix}`}
                onClick={() => props.inspector.unsubscribe(one.prefix)}
              >
                ✕
              </Button>
            </li>
          )}
        </For>
      </ul>
      <For each={props.inspector.subscriptions()}>
        {(one) => (
          <Show when={one.error()}>
            {(error) => (
              <ErrorPanel
                error={error()}
                title={`The subscription to ${one.prefix} has ended`}
                actions={[{ label: "Remove it", run: () => props.inspector.unsubscribe(one.prefix) }]}
              />
            )}
          </Show>
        )}
      </For>
    </Show>
  );
}

function TopicTable(props: {
  readonly topics: readonly ShownTopic[];
  readonly chosen: ShownTopic | undefined;
  choose(topic: string): void;
}): JSX.Element {
  const of = (row: number): ShownTopic | undefined => props.topics[row];
  const columns: readonly Column[] = [
    {
      id: "topic",
      title: "Topic",
      width: "minmax(12rem, 1fr)",
      text: (row) => of(row)?.topic ?? "",
      render: (row) => <code title={of(row)?.topic}>{of(row)?.topic}</code>,
      value: (row) => of(row)?.topic,
    },
    {
      id: "rate",
      title: "A second",
      definition: "Messages a second, over the last three seconds.",
      width: "6rem",
      align: "end",
      text: (row) => rateText(of(row)?.rate ?? 0),
      value: (row) => of(row)?.rate,
    },
    {
      id: "messages",
      title: "Messages",
      definition: "Those that came here since the subscription, or since Clear.",
      width: "6.5rem",
      align: "end",
      text: (row) => count(of(row)?.messages),
      value: (row) => of(row)?.messages,
    },
    {
      id: "seq",
      title: "Number",
      definition: "The sequence number of the last message; each topic counts from 1.",
      width: "6.5rem",
      align: "end",
      text: (row) => count(of(row)?.lastSeq),
      value: (row) => of(row)?.lastSeq,
    },
    {
      id: "lost",
      title: "Lost",
      definition:
        "Messages that this page missed and the broker no longer had. Other gaps were repaired without a loss.",
      width: "5rem",
      align: "end",
      text: (row) => count(of(row)?.lost),
      value: (row) => of(row)?.lost,
      class: (row) => ((of(row)?.lost ?? 0) > 0 ? "loss" : ""),
    },
    {
      id: "last",
      title: "Last",
      definition: "When the last message came, in the time of this machine.",
      width: "6rem",
      align: "end",
      text: (row) => clock(of(row)?.lastAt ?? 0),
      value: (row) => of(row)?.lastAt,
    },
  ];
  return (
    <VirtualTable
      label="Topics"
      rows={props.topics.length}
      columns={columns}
      revision={props.topics}
      initialSort={{ column: "topic", descending: false }}
      selected={props.chosen === undefined ? undefined : props.topics.indexOf(props.chosen)}
      onSelect={(row) => props.choose(of(row)?.topic ?? "")}
      visibleRows={20}
    />
  );
}

function rateText(rate: number): string {
  return rate >= 100 ? compact(Math.round(rate)) : fixed(rate, rate >= 10 ? 0 : 1);
}

function Messages(props: { readonly topic: ShownTopic; readonly paused: boolean }): JSX.Element {
  return (
    <section class="panel" aria-label={`Messages of ${props.topic.topic}`}>
      <header class="panel-header">
        <h2 class="topic-name">{props.topic.topic}</h2>
        <span class="muted small">
          the last {count(props.topic.kept.length)} of {count(props.topic.messages)}
          <Show when={props.paused}>, paused</Show>
        </span>
      </header>
      <Show when={props.topic.gaps.length > 0}>
        <ul class="topic-gaps small" aria-label="Gaps">
          <For each={props.topic.gaps}>
            {(gap) => (
              <li class="loss">
                {clock(gap.at)}: {count(gap.fromSeq)} to {count(gap.toSeq)} are lost
              </li>
            )}
          </For>
        </ul>
      </Show>
      <div
        class="messages"
        tabindex={0}
        role="group"
        aria-label={`The last ${MOST_MESSAGES} messages, the latest first`}
      >
        <For each={props.topic.kept}>
          {(message) => {
            const [open, setOpen] = createSignal(false);
            return (
              <details class="message" onToggle={(event) => setOpen(event.currentTarget.open)}>
                <summary>
                  <span class="message-seq">{count(message.seq)}</span>
                  <span class="muted">{clock(message.at)}</span>
                  <span class="message-line mono">{lineOf(message.data)}</span>
                </summary>
                <Show when={open()}>
                  <pre>
                    {message.type} {whole(message.data)}
                  </pre>
                </Show>
              </details>
            );
          }}
        </For>
      </div>
    </section>
  );
}

function whole(data: unknown): string {
  const text = fileOf(data);
  return text.length <= MOST_CHARACTERS
    ? text
    : `${text.slice(0, MOST_CHARACTERS)}\n… ${text.length} characters in all`;
}
