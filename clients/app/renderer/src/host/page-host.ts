/** The host of a page that `backtestr ui` serves. */

import { type Port, RemoteClient } from "@backtestr/client/page";
import { offerDownload } from "./download";
import type { Host, HostSession, HostState, Upload } from "./host";
import { HostWatch } from "./host-watch";
import { askForBroker, askSession, discardUpload, sendFile } from "./page-requests";

/** The part of a `Worker` that is used. */
export type ClientWorker = Port & Pick<Worker, "addEventListener">;

/** Makes the host of a page, with the worker in which its client lives. */
export class PageHost implements Host {
  readonly kind = "page";
  readonly #client: RemoteClient;
  readonly #watch: HostWatch;

  constructor(worker: ClientWorker) {
    this.#client = new RemoteClient(worker);
    this.#watch = new HostWatch({
      ask: askSession,
      isConnected: () => this.#client.status === "ready",
      after: (milliseconds, due) => setTimeout(due, milliseconds),
    });
    worker.addEventListener("error", (event) => {
      const { message } = event as ErrorEvent;
      this.#client.gone(message || "its program could not be loaded; reload the page");
    });
    this.#client.onStatus((status) => {
      if (status !== "ready") this.#watch.look();
    });
    this.#watch.look();
  }

  session(): Promise<HostSession> {
    return this.#noted(askSession());
  }

  connect(): RemoteClient {
    return this.#client;
  }

  onState(listener: (state: HostState) => void): () => void {
    return this.#watch.onState(listener);
  }

  upload(file: File, progress: (share: number) => void, signal?: AbortSignal): Promise<Upload> {
    return this.#noted(sendFile(file, progress, signal));
  }

  discard(path: string): Promise<void> {
    return this.#noted(discardUpload(path));
  }

  startBroker(): Promise<void> {
    return this.#noted(askForBroker());
  }

  async save(name: string, blob: Blob): Promise<void> {
    offerDownload(name, blob);
  }

  async #noted<Answer>(answer: Promise<Answer>): Promise<Answer> {
    try {
      const found = await answer;
      this.#watch.note(undefined);
      return found;
    } catch (error) {
      if (!(error instanceof DOMException)) this.#watch.note(error);
      throw error;
    }
  }
}
