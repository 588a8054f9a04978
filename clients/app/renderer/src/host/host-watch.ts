/** Finds out whether the program that serves a page still answers, and still knows this page. Pure but for its clock. */

import { HostError, type HostState } from "./host";

/** Milliseconds between two questions while something is wrong. */
const EVERY_MS = 2_000;

/** The parts of the page that the watch uses. */
export interface HostProbe {
  /** Asks the host for its session; rejects with a `HostError`. */
  ask(): Promise<unknown>;
  /** True while the connection to the broker stands, which goes through the host. */
  isConnected(): boolean;
  after(milliseconds: number, due: () => void): void;
}

/** The state of the host. It asks as long as the broker is not reached or the host was not, and is quiet otherwise. */
export class HostWatch {
  readonly #probe: HostProbe;
  readonly #listeners = new Set<(state: HostState) => void>();
  #state: HostState = { kind: "reachable" };
  #isAsking = false;

  constructor(probe: HostProbe) {
    this.#probe = probe;
  }

  /** Calls `listener` with the present state, and at every change; returns what ends that. */
  onState(listener: (state: HostState) => void): () => void {
    this.#listeners.add(listener);
    listener(this.#state);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Begins to ask, after a change of the connection. */
  look(): void {
    if (this.#isAsking) return;
    this.#isAsking = true;
    void this.#ask();
  }

  /** Notes the answer to any request of the page; undefined where it succeeded. */
  note(error: unknown): void {
    const state = stateOf(error);
    if (state.kind === this.#state.kind) return;
    this.#state = state;
    for (const one of this.#listeners) one(state);
    if (state.kind !== "reachable") this.look();
  }

  async #ask(): Promise<void> {
    try {
      await this.#probe.ask();
      this.note(undefined);
    } catch (error) {
      this.note(error);
    }
    if (this.#state.kind === "reachable" && this.#probe.isConnected()) this.#isAsking = false;
    else this.#probe.after(EVERY_MS, () => void this.#ask());
  }
}

/** A refusal of one request says nothing of the host, but that it is there. */
function stateOf(error: unknown): HostState {
  if (error instanceof HostError) {
    if (error.code === "SESSION_EXPIRED") return { kind: "expired", message: error.message };
    if (error.code === "HOST_UNREACHABLE") return { kind: "unreachable", message: error.message };
  }
  return { kind: "reachable" };
}
