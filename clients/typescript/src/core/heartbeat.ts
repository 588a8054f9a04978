/**
 * The heartbeats of the broker, apart from what they say: whether they come is one thing, its own status another.
 *
 * A broker that is silent for 30 seconds is taken for dead, however the connection looks. `now` is monotonic, in seconds.
 */

import type { SystemStatus } from "../generated/contracts.js";

/** Seconds without a heartbeat after which the broker is silent (PROTOCOL.md: `sessionTimeoutMs`). */
export const SILENCE = 30;

/** `unknown`: none has come yet, and 30 seconds have not passed. `alive`: they come. `silent`: none for 30 seconds. */
export type Pulse = "unknown" | "alive" | "silent";

/** A change of the heartbeat. */
export interface HeartbeatChange {
  readonly pulse: Pulse;
  /** The latest status of the broker, null if none has come. */
  readonly status: SystemStatus | null;
  /** True if the broker's own health (`healthy`, `warning`, `error`) is another than before. */
  readonly isOtherHealth: boolean;
}

/** The heartbeats of one broker. */
export class Heartbeat {
  readonly #silence: number;
  #pulse: Pulse = "unknown";
  #status: SystemStatus | null = null;
  #dueBy: number;

  /** Begins to wait at `now`. */
  constructor(now: number, silence = SILENCE) {
    this.#silence = silence;
    this.#dueBy = now + silence;
  }

  /** Whether heartbeats come. */
  get pulse(): Pulse {
    return this.#pulse;
  }

  /** The latest status that the broker gave of itself, null if none has come. */
  get status(): SystemStatus | null {
    return this.#status;
  }

  /** When `tick` is due; infinity while the broker is silent. */
  get nextDeadline(): number {
    return this.#pulse === "silent" ? Number.POSITIVE_INFINITY : this.#dueBy;
  }

  /** Takes in a heartbeat. */
  received(status: SystemStatus, now: number): HeartbeatChange {
    const isOtherHealth = status.status !== this.#status?.status;
    this.#pulse = "alive";
    this.#status = status;
    this.#dueBy = now + this.#silence;
    return { pulse: "alive", status, isOtherHealth };
  }

  /** Returns the change to `silent` where it is due, else null. */
  tick(now: number): HeartbeatChange | null {
    if (now < this.nextDeadline) return null;
    this.#pulse = "silent";
    return { pulse: "silent", status: this.#status, isOtherHealth: false };
  }
}
