/** The utility process in which the client lives, and what becomes of it when it fails. */

import type { MessagePortMain, UtilityProcess } from "electron";
import type { FromClientProcess } from "../channels";

/** So often within `WITHIN_MS` it is started anew; more would be a loop. */
const MAX_RESTARTS = 3;
const WITHIN_MS = 60_000;

/** The parts of Electron that the process of the client uses. */
export interface ClientProcessParts {
  fork(): UtilityProcess;
  now(): number;
  /** The client has a session with a broker, or has none any more. */
  connection(isConnected: boolean): void;
  /** The process was started anew: windows must ask for a new client. */
  restarted(): void;
  /** It has failed so often that it was given up. */
  failed(exitCode: number): void;
}

/** The process of the client: one for all windows. */
export class ClientProcess {
  readonly #parts: ClientProcessParts;
  #process: UtilityProcess;
  #restarts: number[] = [];
  #isEnding = false;
  #isConnected = false;

  constructor(parts: ClientProcessParts) {
    this.#parts = parts;
    this.#process = this.#started();
  }

  /** True while the client has a session with a broker. */
  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** Gives a window, at the other end of the port, a client of its own. */
  serve(port: MessagePortMain): void {
    this.#process.postMessage({ type: "serve" }, [port]);
  }

  /** Ends it with the app. */
  end(): void {
    this.#isEnding = true;
    this.#process.kill();
  }

  #started(): UtilityProcess {
    const started = this.#parts.fork();
    started.on("message", (message: FromClientProcess) => this.#connection(message.status === "ready"));
    started.once("exit", (code) => this.#exited(code));
    return started;
  }

  #connection(isConnected: boolean): void {
    this.#isConnected = isConnected;
    this.#parts.connection(isConnected);
  }

  #exited(code: number): void {
    this.#connection(false);
    if (this.#isEnding) return;
    const now = this.#parts.now();
    this.#restarts = this.#restarts.filter((one) => now - one < WITHIN_MS);
    if (this.#restarts.length >= MAX_RESTARTS) {
      this.#parts.failed(code);
      return;
    }
    this.#restarts.push(now);
    this.#process = this.#started();
    this.#parts.restarted();
  }
}
