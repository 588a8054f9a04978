import { StateConflict } from "@backtestr/client/page";
import { createEffect, createMemo, createSignal, type JSX, on, Show } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel, messageOf } from "../../components/error-panel";
import { Field, TextField } from "../../components/field";
import { count } from "../../format/numbers";
import { clock } from "../../format/times";
import type { FollowedKey } from "./followed-state";
import { fileOf, lineOf, parsedValue, textOf } from "./value-text";

/** The value of one key, to be read and edited. It follows the broker until something is typed. */
export function StateEditor(props: { readonly entry: FollowedKey }): JSX.Element {
  const app = useApp();
  const shown = () => textOf(props.entry.value);
  const [typed, setTyped] = createSignal<string>();
  /** The version that the typed text is based on. */
  const [base, setBase] = createSignal(0);
  const [failure, setFailure] = createSignal<unknown>();
  const [saving, setSaving] = createSignal(false);

  const changedBelow = (): boolean => typed() !== undefined && base() !== props.entry.version;
  const parsed = () => parsedValue(typed() ?? shown().text);
  const fault = (): string | undefined => {
    const found = parsed();
    return typed() !== undefined && "error" in found ? found.error : undefined;
  };

  function type(text: string): void {
    if (typed() === undefined) setBase(props.entry.version);
    setTyped(text);
    setFailure(undefined);
  }
  function leave(): void {
    setTyped(undefined);
    setFailure(undefined);
  }
  async function save(expectedVersion: number): Promise<void> {
    const found = parsed();
    if ("error" in found) return;
    setSaving(true);
    setFailure(undefined);
    try {
      await app.client.request("UpdateState", { key: props.entry.key, value: found.value, expectedVersion });
      setTyped(undefined);
    } catch (error) {
      setFailure(error);
    }
    setSaving(false);
  }
  async function remove(): Promise<void> {
    const { key, value, version } = props.entry;
    try {
      await app.client.request("DeleteState", { key, expectedVersion: version });
      leave();
      const undo = async (): Promise<void> => {
        try {
          await app.client.request("UpdateState", { key, value, expectedVersion: 0 });
        } catch (error) {
          app.notices.show(`${key} was not set again: ${messageOf(error)}`, { kind: "error" });
        }
      };
      app.notices.show(`${key} is deleted.`, { action: { label: "Undo", run: () => void undo() }, ms: 15_000 });
    } catch (error) {
      setFailure(error);
    }
  }
  // Another key is another text.
  const key = createMemo(() => props.entry.key);
  createEffect(on(key, leave, { defer: true }));

  return (
    <section class="panel" aria-label={props.entry.key}>
      <header class="panel-header">
        <h2 class="state-key">{props.entry.key}</h2>
        <span class="muted small">
          version {count(props.entry.version)}
          <Show when={props.entry.changedAt}>{(at) => <>, changed at {clock(at())}</>}</Show>
        </span>
        <div class="actions">
          <Button
            kind="quiet"
            onClick={() =>
              void app.host.save(
                `${props.entry.key}.json`,
                new Blob([fileOf(props.entry.value)], { type: "application/json" }),
              )
            }
          >
            Save as a file
          </Button>
          <Button kind="danger" onClick={() => void remove()}>
            Delete
          </Button>
        </div>
      </header>
      <div class="panel-body state-body">
        <Show when={failure()}>
          {(error) => (
            <ErrorPanel
              error={error()}
              mild={error() instanceof StateConflict}
              title={
                error() instanceof StateConflict ? "Another program was faster; nothing was overwritten" : "Not saved"
              }
            />
          )}
        </Show>
        <Show when={changedBelow()}>
          <div class="state-conflict" role="status">
            <p>
              <strong>It was changed while you typed.</strong> The broker now has version {count(props.entry.version)}:
            </p>
            <pre class="state-theirs">{lineOf(props.entry.value)}</pre>
            <div class="state-actions">
              <Button onClick={leave}>Take theirs</Button>
              <Button disabled={fault() !== undefined} onClick={() => void save(props.entry.version)}>
                Put mine over it
              </Button>
            </div>
          </div>
        </Show>
        <Field label="Value as JSON" hint={shown().fixed} error={fault()}>
          {(ids) => (
            <textarea
              id={ids.id}
              class="input state-text"
              aria-describedby={ids.describedBy}
              aria-invalid={fault() ? true : undefined}
              spellcheck={false}
              readonly={shown().fixed !== undefined}
              value={typed() ?? shown().text}
              onInput={(event) => type(event.currentTarget.value)}
            />
          )}
        </Field>
        <Show when={shown().characters > shown().text.length}>
          <p class="muted small">
            The first {count(shown().text.length)} of {count(shown().characters)} characters. Save it as a file to read
            all of it.
          </p>
        </Show>
        <div class="state-actions">
          <Button
            kind="primary"
            busy={saving()}
            disabled={typed() === undefined || fault() !== undefined || changedBelow()}
            onClick={() => void save(base())}
          >
            Save
          </Button>
          <Show when={typed() !== undefined}>
            <Button onClick={leave}>Discard what I typed</Button>
          </Show>
        </div>
      </div>
    </section>
  );
}

/** The form of a key that is not there yet. */
export function NewKey(props: { onDone(key: string | undefined): void }): JSX.Element {
  const { client } = useApp();
  const [key, setKey] = createSignal("");
  const [text, setText] = createSignal("{}");
  const [tried, setTried] = createSignal(false);
  const [failure, setFailure] = createSignal<unknown>();
  const parsed = () => parsedValue(text());
  const fault = (): string | undefined => {
    const found = parsed();
    return "error" in found ? found.error : undefined;
  };
  async function create(): Promise<void> {
    setTried(true);
    const found = parsed();
    if ("error" in found || key() === "") return;
    try {
      await client.request("UpdateState", { key: key(), value: found.value, expectedVersion: 0 });
      props.onDone(key());
    } catch (error) {
      setFailure(error);
    }
  }
  return (
    <section class="panel" aria-label="New key">
      <header class="panel-header">
        <h2>New key</h2>
      </header>
      <form
        class="panel-body state-body"
        onSubmit={(event) => {
          event.preventDefault();
          void create();
        }}
      >
        <Show when={failure()}>
          {(error) => (
            <ErrorPanel
              error={error()}
              mild={error() instanceof StateConflict}
              title={error() instanceof StateConflict ? "This key has a value already" : "Not created"}
            />
          )}
        </Show>
        <TextField
          label="Key"
          value={key()}
          onInput={setKey}
          hint="Parts with dots between them, such as notebook.theme."
          error={tried() && key() === "" ? "Name the key." : undefined}
        />
        <Field label="Value as JSON" error={tried() ? fault() : undefined}>
          {(ids) => (
            <textarea
              id={ids.id}
              class="input state-text short"
              aria-describedby={ids.describedBy}
              spellcheck={false}
              value={text()}
              onInput={(event) => setText(event.currentTarget.value)}
            />
          )}
        </Field>
        <div class="state-actions">
          <Button kind="primary" type="submit">
            Create
          </Button>
          <Button onClick={() => props.onDone(undefined)}>Cancel</Button>
        </div>
      </form>
    </section>
  );
}
