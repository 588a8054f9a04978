/**
 * Drafts: what was typed and not yet sent. Each is a value of the shared state under `app.draft.`, so that it outlives the
 * page, and two pages have the same. While the broker is away a draft is kept in memory, and written once it is back.
 */

import { type Accessor, batch, createSignal } from "solid-js";

/** The part of the shared state that drafts need: values by their full keys. */
export interface DraftState {
  set(key: string, value: unknown): Promise<unknown>;
  /** Calls `callback` with the value of a key once it is known, undefined for none, and with each change of it. */
  subscribe(key: string, callback: (value: unknown) => void): () => void;
}

export interface Draft<Value> {
  readonly value: Accessor<Value>;
  /** True while the broker does not have what was typed last. */
  readonly unsaved: Accessor<boolean>;
  /** True once the broker has said what was kept, if anything. Only then may a draft be filled in for the user. */
  readonly known: Accessor<boolean>;
  change(make: (value: Value) => Value): void;
}

export interface DraftsStore {
  /** Returns the draft of a name; `check` makes a whole value of whatever was kept, or undefined where it cannot. */
  open<Value>(name: string, initial: Value, check: (kept: unknown) => Value | undefined): Draft<Value>;
  /** Writes what is not written yet; called when the broker is back, and when the page is left. */
  flush(): void;
}

/** Milliseconds of rest after which a draft is written. */
const REST_MS = 400;
/** Changes that are kept to be made again, more than anybody types while a broker is away. */
const MOST_EARLY = 10_000;

interface Entry {
  readonly draft: Draft<unknown>;
  write(): void;
}

export function createDrafts(state: DraftState): DraftsStore {
  const entries = new Map<string, Entry>();

  function open<Value>(name: string, initial: Value, check: (kept: unknown) => Value | undefined): Draft<Value> {
    const opened = entries.get(name);
    if (opened !== undefined) return opened.draft as Draft<Value>;
    const key = `app.draft.${name}`;
    const [value, setValue] = createSignal<Value>(initial);
    const [unsaved, setUnsaved] = createSignal(false);
    const [known, setKnown] = createSignal(false);
    let timer: ReturnType<typeof setTimeout> | undefined;
    let version = 0; // of what was typed here
    const early: ((value: Value) => Value)[] = []; // changes before it was known what was kept, to be made to that
    let writing = false;
    let sent: string | undefined; // the value that is being written, as text
    let isEchoed = false; // the broker has told of it
    let later: { readonly value: unknown } | undefined; // told behind it: another page was the last to write

    async function write(): Promise<void> {
      clearTimeout(timer);
      if (!unsaved() || writing || !known()) return;
      writing = true;
      const written = version;
      [sent, isEchoed, later] = [JSON.stringify(value()), false, undefined];
      try {
        const stored = await state.set(key, value());
        if (version === written) {
          setUnsaved(false);
          const other = later as { readonly value: unknown } | undefined; // set meanwhile
          if (other !== undefined) take(other.value);
          else if (JSON.stringify(stored) !== sent) take(stored); // joined with what another page had changed
        }
      } catch {
        // It stays unsaved in memory; `flush` tries again once the broker is back.
      }
      writing = false;
      if (unsaved() && version !== written) void write();
    }
    function take(kept: unknown): void {
      if (unsaved() && known()) {
        // What is typed here is newer than all that the broker tells of before it.
        if (isEchoed) later = { value: kept };
        else isEchoed = JSON.stringify(kept) === sent;
        return;
      }
      batch(() => {
        setKnown(true);
        const checked = check(kept);
        if (checked === undefined) return;
        let joined: Value = checked;
        for (const make of early) joined = make(joined);
        setValue(() => joined);
      });
      early.length = 0;
      void write();
    }

    state.subscribe(key, take);
    const draft: Draft<Value> = {
      value,
      unsaved,
      known,
      change: (make) => {
        version += 1;
        if (!known()) early.push(make);
        if (early.length > MOST_EARLY) early.shift();
        setValue((now) => make(now));
        setUnsaved(true);
        clearTimeout(timer);
        timer = setTimeout(() => void write(), REST_MS);
      },
    };
    entries.set(name, { draft: draft as Draft<unknown>, write: () => void write() });
    return draft;
  }

  return {
    open,
    flush: () => {
      for (const one of entries.values()) one.write();
    },
  };
}
