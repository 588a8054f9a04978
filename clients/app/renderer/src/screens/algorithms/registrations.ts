/** Files of algorithms that this page sends to the broker, and their sources, to show errors in. */

import type { AlgorithmInfo, RemoteClient } from "@backtestr/client/page";
import { type Accessor, createRoot, createSignal } from "solid-js";
import type { Listing } from "../../stores/listing";
import { declaredNames, MOST_CHARACTERS } from "./python-source";

export type RegistrationStage =
  | { readonly kind: "chosen" }
  | { readonly kind: "sending"; readonly since: number }
  | { readonly kind: "done"; readonly info: AlgorithmInfo }
  | { readonly kind: "refused"; readonly error: unknown };

export interface Registration {
  readonly id: number;
  readonly fileName: string;
  readonly source: string;
  /** The names that the source declares. */
  readonly names: readonly string[];
  readonly name: Accessor<string>;
  setName(name: string): void;
  readonly stage: Accessor<RegistrationStage>;
  start(): Promise<void>;
  dismiss(): void;
}

export interface Registrations {
  readonly all: Accessor<readonly Registration[]>;
  /** Reads files; one that is no text of this size raises a `RangeError` or the browser's own error. */
  add(file: File): Promise<void>;
  /** The source of a version that was registered from this page; undefined for others. */
  sourceOf(algorithmId: string): string | undefined;
}

/** Milliseconds that a registration may take: the source is run, and checked on many samples. */
const REGISTER_MS = 300_000;
/** The registrations and sources that are kept; older ones give way. */
const KEPT = 20;

interface Means {
  readonly client: RemoteClient;
  readonly algorithms: Listing<unknown>;
}

const byClient = new WeakMap<RemoteClient, Registrations>();

/** Returns the registrations of the page, which go on while another screen is shown. */
export function registrations(means: Means): Registrations {
  const known = byClient.get(means.client);
  if (known !== undefined) return known;
  const made = createRoot(() => createRegistrations(means));
  byClient.set(means.client, made);
  return made;
}

function createRegistrations({ client, algorithms }: Means): Registrations {
  const [all, setAll] = createSignal<readonly Registration[]>([]);
  const sources = new Map<string, string>();
  let last = 0;

  function remember(algorithmId: string, source: string): void {
    sources.delete(algorithmId);
    sources.set(algorithmId, source);
    const [oldest] = sources.keys();
    if (sources.size > KEPT && oldest !== undefined) sources.delete(oldest);
  }

  function create(fileName: string, source: string): Registration {
    last += 1;
    const id = last;
    const names = declaredNames(source);
    const [name, setName] = createSignal(names[0] ?? fileName.replace(/\.py$/i, ""));
    const [stage, setStage] = createSignal<RegistrationStage>({ kind: "chosen" });
    return {
      id,
      fileName,
      source,
      names,
      name,
      setName,
      stage,
      start: async () => {
        setStage({ kind: "sending", since: Date.now() });
        try {
          const info = await client.request("RegisterAlgorithm", { name: name(), source }, { timeoutMs: REGISTER_MS });
          remember(info.algorithmId, source);
          setStage({ kind: "done", info });
          await algorithms.refresh();
        } catch (error) {
          setStage({ kind: "refused", error });
        }
      },
      dismiss: () => setAll((now) => now.filter((one) => one.id !== id)),
    };
  }

  return {
    all,
    add: async (file) => {
      if (file.size > 4 * MOST_CHARACTERS) {
        throw new RangeError(`${file.name} is too large for a source: it may have ${MOST_CHARACTERS} characters`);
      }
      const source = await file.text();
      // A file that was corrected takes the place of what was refused or not sent.
      setAll((now) => [
        create(file.name, source),
        ...now.filter((one) => one.fileName !== file.name || one.stage().kind === "sending").slice(0, KEPT - 1),
      ]);
    },
    sourceOf: (algorithmId) => sources.get(algorithmId),
  };
}
