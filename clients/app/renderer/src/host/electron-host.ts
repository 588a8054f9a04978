/** The host of a window of the Electron app: its client lives in a utility process, at the other end of a port. */

import { type Port, RemoteClient } from "@backtestr/client/page";
import { type Answered, CLIENT_PORT, type ElectronBridge } from "./electron-bridge";
import { type Host, HostError, type HostSession, type HostState, type Upload } from "./host";

/** Makes the host of a window, with what its preload gives. */
export class ElectronHost implements Host {
  readonly kind = "electron";
  readonly #bridge: ElectronBridge;
  readonly #client: RemoteClient;

  /** `post` gives a port to the preload; `show` shows the screen of a route such as `#/data`. */
  constructor(
    bridge: ElectronBridge,
    post: (message: unknown, port: MessagePort) => void,
    show: (route: string) => void,
  ) {
    this.#bridge = bridge;
    bridge.onRoute(show);
    const { port1, port2 } = new MessageChannel();
    this.#client = new RemoteClient(port1 as unknown as Port);
    post(CLIENT_PORT, port2);
  }

  async session(): Promise<HostSession> {
    return unwrapped(await this.#bridge.session());
  }

  connect(): RemoteClient {
    return this.#client;
  }

  /** The main process is there as long as the window is. */
  onState(listener: (state: HostState) => void): () => void {
    listener({ kind: "reachable" });
    return () => undefined;
  }

  /** Copies nothing: the broker reads the user's own file. */
  async upload(file: File, progress: (share: number) => void, signal?: AbortSignal): Promise<Upload> {
    signal?.throwIfAborted();
    const path = this.#bridge.pathOf(file);
    if (path === "") {
      throw new HostError("NO_SUCH_FILE", `${file.name} is not a file on this machine; save it first, and drop that`);
    }
    progress(1);
    return { path };
  }

  /** Leaves the user's own file where it is. */
  async discard(_path: string): Promise<void> {
    // nothing was copied
  }

  async startBroker(): Promise<void> {
    unwrapped(await this.#bridge.startBroker());
  }

  async save(name: string, blob: Blob): Promise<void> {
    unwrapped(await this.#bridge.save(name, await blob.arrayBuffer()));
  }
}

function unwrapped<Value>(answer: Answered<Value>): Value {
  if ("value" in answer) return answer.value;
  throw new HostError(answer.error.code, answer.error.message);
}
