import { createMemo, createSignal, type JSX, Match, Show, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel } from "../../components/error-panel";
import { TextField } from "../../components/field";
import { EmptyState, Waiting } from "../../components/states";
import { type Column, VirtualTable } from "../../components/virtual-table";
import { count } from "../../format/numbers";
import { clock } from "../../format/times";
import { type FollowedKey, followedState } from "./followed-state";
import { NewKey, StateEditor } from "./state-editor";
import { lineOf } from "./value-text";
import "./state-screen.css";

/** The shared state: keys that programs, notebooks and this app have in common, as they are now. */
export function StateScreen(props: { readonly key?: string | undefined }): JSX.Element {
  const { client, go } = useApp();
  const state = followedState(client);
  const [filter, setFilter] = createSignal("");
  const [adding, setAdding] = createSignal(false);
  const chosen = createMemo(() => state.keys().find((one) => one.key === props.key));
  return (
    <section class="screen" aria-label="Shared state">
      <header class="screen-header">
        <h1>Shared state</h1>
        <Show when={state.ready()}>
          <span class="muted">{count(state.keys().length)} keys</span>
        </Show>
        <div class="actions">
          <TextField
            label="Filter keys"
            hideLabel
            type="search"
            placeholder="Filter"
            value={filter()}
            onInput={setFilter}
          />
          <Button onClick={() => setAdding(true)}>New key</Button>
        </div>
      </header>
      <Show when={adding()}>
        <NewKey
          onDone={(key) => {
            setAdding(false);
            if (key !== undefined) go({ screen: "state", key });
          }}
        />
      </Show>
      <Switch>
        <Match when={state.failure()}>
          {(error) => <ErrorPanel error={error()} title="The shared state could not be followed" />}
        </Match>
        <Match when={!state.ready()}>
          <Waiting what="the broker's shared state" />
        </Match>
        <Match when={state.keys().length === 0}>
          <EmptyState title="There are no keys yet" actions={<Button onClick={() => setAdding(true)}>New key</Button>}>
            <p>
              The shared state holds values that programs have in common: settings, drafts, the state of a notebook.
              Every program sees a change at once, and one that is based on an old value is refused.
            </p>
            <p>In Python:</p>
            <pre>
              client.state.set("notebook.theme", {"{"}"dark": True{"}"})
            </pre>
          </EmptyState>
        </Match>
        <Match when={true}>
          <div class="state-columns">
            <div class="panel state-list">
              <Keys keys={state.keys()} filter={filter()} chosen={chosen()} />
            </div>
            <Show
              when={chosen()}
              fallback={
                <div class="panel panel-body muted">
                  {props.key === undefined
                    ? "Choose a key to read or edit its value."
                    : `${props.key} has no value, or was deleted.`}
                </div>
              }
            >
              {(entry) => <StateEditor entry={entry()} />}
            </Show>
          </div>
        </Match>
      </Switch>
    </section>
  );
}

function Keys(props: {
  readonly keys: readonly FollowedKey[];
  readonly filter: string;
  readonly chosen: FollowedKey | undefined;
}): JSX.Element {
  const { go } = useApp();
  const of = (row: number): FollowedKey | undefined => props.keys[row];
  const shown = createMemo(() => {
    const words = props.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = props.keys.flatMap((one, row) => {
      const key = one.key.toLowerCase();
      return words.every((word) => key.includes(word)) ? [row] : [];
    });
    return Uint32Array.from(rows);
  });
  const columns: readonly Column[] = [
    {
      id: "key",
      title: "Key",
      width: "minmax(10rem, 1fr)",
      text: (row) => of(row)?.key ?? "",
      render: (row) => <code title={of(row)?.key}>{of(row)?.key}</code>,
      value: (row) => of(row)?.key,
    },
    {
      id: "value",
      title: "Value",
      width: "minmax(9rem, 2fr)",
      text: (row) => lineOf(of(row)?.value),
      render: (row) => <span class="mono muted">{lineOf(of(row)?.value)}</span>,
    },
    {
      id: "version",
      title: "Version",
      definition: "The number of changes of this key.",
      width: "5.5rem",
      align: "end",
      text: (row) => count(of(row)?.version),
      value: (row) => of(row)?.version,
    },
    {
      id: "changed",
      title: "Changed",
      definition: "When this page has seen it change, in the time of this machine.",
      width: "6rem",
      align: "end",
      text: (row) => {
        const at = of(row)?.changedAt;
        return at === undefined ? "—" : clock(at);
      },
      value: (row) => of(row)?.changedAt,
    },
  ];
  return (
    <Show when={shown().length > 0} fallback={<p class="panel-body muted">No key has these words.</p>}>
      <VirtualTable
        label="Keys"
        rows={props.keys.length}
        shown={shown()}
        columns={columns}
        revision={props.keys}
        initialSort={{ column: "key", descending: false }}
        selected={props.chosen === undefined ? undefined : props.keys.indexOf(props.chosen)}
        onSelect={(row) => go({ screen: "state", key: of(row)?.key ?? "" })}
        visibleRows={24}
      />
    </Show>
  );
}
