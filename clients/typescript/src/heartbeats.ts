/** Watches the broker's heartbeats, once somebody is interested. */

import type { Context } from "./context.js";
import { Heartbeat, type HeartbeatChange, type Pulse } from "./core/heartbeat.js";
import { STATUS } from "./core/topics.js";
import type { SystemStatus } from "./generated/contracts.js";
import { Subscription } from "./subscription.js";

/** The heartbeats of the broker of one client. */
export class Heartbeats {
  readonly #context: Context;
  readonly #changed: (change: HeartbeatChange) => void;
  #machine: Heartbeat | null = null;
  #subscription: Subscription<typeof STATUS> | null = null;
  #cancel: () => void = () => undefined;

  /** `changed` is called at every heartbeat, and when they are missing. */
  constructor(context: Context, changed: (change: HeartbeatChange) => void) {
    this.#context = context;
    this.#changed = changed;
  }

  /** Whether heartbeats come. */
  get pulse(): Pulse {
    return this.#machine?.pulse ?? "unknown";
  }

  /** The latest status that the broker gave of itself, null if none has come. */
  get status(): SystemStatus | null {
    return this.#machine?.status ?? null;
  }

  /** Begins to watch. */
  begin(): void {
    if (this.#machine !== null) return;
    this.#machine = new Heartbeat(this.#context.clock.now());
    this.#subscription = new Subscription(this.#context, STATUS, { since: "now" });
    this.#context.whenClosed(() => this.#end());
    this.#arm(this.#machine);
    void this.#follow(this.#machine, this.#subscription);
  }

  async #follow(machine: Heartbeat, subscription: Subscription<typeof STATUS>): Promise<void> {
    try {
      for await (const received of subscription) {
        if (received.kind !== "update") continue;
        this.#changed(machine.received(received.data, this.#context.clock.now()));
      }
    } catch {
      // The broker refuses this client, or the client is closed: then there is no heartbeat any more.
    }
  }

  #arm(machine: Heartbeat): void {
    this.#cancel();
    // While the broker is silent, the next heartbeat is what matters; it is looked for as often.
    const left = machine.nextDeadline - this.#context.clock.now();
    this.#cancel = this.#context.clock.after(Number.isFinite(left) ? Math.max(left, 0.001) : 1, () => {
      const change = machine.tick(this.#context.clock.now());
      if (change !== null) this.#changed(change);
      this.#arm(machine);
    });
  }

  #end(): void {
    this.#cancel();
    this.#subscription?.close();
  }
}
