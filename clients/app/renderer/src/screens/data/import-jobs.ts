/** The imports of this page: each goes from a chosen file through upload and import to a series, or to a refusal. */

import type { Imported, RemoteClient } from "@backtestr/client/page";
import { type Accessor, createRoot, createSignal } from "solid-js";
import type { Host, Upload } from "../../host/host";
import type { Listing } from "../../stores/listing";
import { toldByName } from "./file-names";
import { EMPTY_FORM, type ImportForm, importRequest } from "./import-options";

/** Where an import is. A refused one keeps its upload, so that it can be tried again with other options at once. */
export type ImportStage =
  | { readonly kind: "chosen" }
  | { readonly kind: "uploading"; readonly share: number; readonly since: number }
  | { readonly kind: "importing"; readonly since: number }
  | { readonly kind: "done"; readonly imported: Imported }
  | { readonly kind: "refused"; readonly error: unknown };

export interface ImportJob {
  readonly id: number;
  readonly file: File;
  readonly form: Accessor<ImportForm>;
  setForm(change: Partial<ImportForm>): void;
  readonly stage: Accessor<ImportStage>;
  /** Uploads the file unless that is done, and imports it. */
  start(): Promise<void>;
  /** Ends the upload, and removes what was uploaded. */
  dismiss(): void;
}

export interface ImportJobs {
  readonly jobs: Accessor<readonly ImportJob[]>;
  add(files: Iterable<File>): void;
}

/** Milliseconds that an import may take: as long as the broker gives it. */
const IMPORT_MS = 600_000;

interface Means {
  readonly host: Host;
  readonly client: RemoteClient;
  readonly catalogue: Listing<unknown>;
}

const byHost = new WeakMap<Host, ImportJobs>();

/** Returns the imports of the page, which go on while another screen is shown. */
export function importJobs(means: Means): ImportJobs {
  const known = byHost.get(means.host);
  if (known !== undefined) return known;
  const made = createRoot(() => createJobs(means));
  byHost.set(means.host, made);
  return made;
}

function createJobs(means: Means): ImportJobs {
  const [jobs, setJobs] = createSignal<readonly ImportJob[]>([]);
  let last = 0;
  return {
    jobs,
    add: (files) => {
      const added = Array.from(files, (file) => {
        last += 1;
        const id = last;
        return createJob(id, file, means, () => setJobs((all) => all.filter((one) => one.id !== id)));
      });
      setJobs((all) => [...added, ...all]);
    },
  };
}

function createJob(id: number, file: File, { host, client, catalogue }: Means, forget: () => void): ImportJob {
  const { symbol } = toldByName(file.name);
  const [form, setForm] = createSignal<ImportForm>({ ...EMPTY_FORM, symbol });
  const [stage, setStage] = createSignal<ImportStage>({ kind: "chosen" });
  const ending = new AbortController();
  let upload: Upload | undefined;

  async function start(): Promise<void> {
    try {
      if (upload === undefined) {
        const since = Date.now();
        setStage({ kind: "uploading", share: 0, since });
        upload = await host.upload(
          file,
          (share) => setStage((now) => (now.kind === "uploading" ? { kind: "uploading", share, since } : now)),
          ending.signal,
        );
      }
      setStage({ kind: "importing", since: Date.now() });
      const imported = await client.request("ImportMarketData", importRequest(upload.path, form()), {
        timeoutMs: IMPORT_MS,
      });
      setStage({ kind: "done", imported });
      removeUpload();
      void catalogue.refresh();
    } catch (error) {
      if (!ending.signal.aborted) setStage({ kind: "refused", error });
    }
  }
  function removeUpload(): void {
    const path = upload?.path;
    upload = undefined;
    // The host removes what is left when it ends.
    if (path !== undefined) host.discard(path).catch(() => undefined);
  }
  return {
    id,
    file,
    form,
    setForm: (change) => setForm((now) => ({ ...now, ...change })),
    stage,
    start,
    dismiss: () => {
      ending.abort();
      removeUpload();
      forget();
    },
  };
}
