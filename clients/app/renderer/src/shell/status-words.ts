/** The status bar in words. */

import type { ConnectionState, SystemStatus } from "@backtestr/client/page";
import { count } from "../format/numbers";
import { seconds } from "../format/times";
import type { HostState } from "../host/host";

/** How serious it is: `good`, `wait` and `bad` are told by colour, shape and words. */
export type Sense = "good" | "wait" | "bad";

export interface Words {
  readonly sense: Sense;
  readonly short: string;
  readonly long: string;
}

/** Milliseconds after which a heartbeat is missed: three of the broker's intervals of ten seconds. */
export const SILENCE_MS = 30_000;

/** Says how the connection is; `waitedMs` is how long its status has been so. */
export function connectionWords(host: HostState, status: ConnectionState, waitedMs: number): Words {
  if (host.kind === "expired") return { sense: "bad", short: "Link expired", long: host.message };
  if (host.kind === "unreachable") return { sense: "bad", short: "App server away", long: host.message };
  switch (status) {
    case "ready":
      return { sense: "good", short: "Connected", long: "The connection to the broker is open." };
    case "connecting":
      return waitedMs < 2_000
        ? { sense: "wait", short: "Connecting", long: "The app looks for the broker." }
        : { sense: "bad", short: "No broker", long: `No broker has answered for ${seconds(waitedMs)}.` };
    case "reconnecting":
      return {
        sense: waitedMs < 10_000 ? "wait" : "bad",
        short: waitedMs < 10_000 ? "Reconnecting" : "No broker",
        long: `The broker has been away for ${seconds(waitedMs)}. The app connects again by itself; backtests go on where they were.`,
      };
    case "authFailed":
      return { sense: "bad", short: "Key refused", long: "The broker does not take this client's key." };
    case "closed":
      return { sense: "bad", short: "Closed", long: "This client is closed. Load the page again." };
  }
}

/** Says how the broker is by its last heartbeat, which came `silentMs` ago. */
export function healthWords(status: SystemStatus, silentMs: number): Words {
  if (silentMs > SILENCE_MS) {
    return { sense: "bad", short: "Silent", long: `No heartbeat of the broker came for ${seconds(silentMs)}.` };
  }
  const reasons = (status.reasons ?? []).join(" ");
  if (status.status === "healthy") return { sense: "good", short: "Healthy", long: reasons || "The broker is well." };
  return {
    sense: status.status === "warning" ? "wait" : "bad",
    short: status.status === "warning" ? "Warning" : "Error",
    long: reasons || `The broker states ${status.status} without a reason.`,
  };
}

/** Counts workers by their state, such as `2 idle, 1 busy`. */
export function workerWords(status: SystemStatus): Words {
  const states = new Map<string, number>();
  for (const one of status.workers) states.set(one.state, (states.get(one.state) ?? 0) + 1);
  const lost = states.get("lost") ?? 0;
  const working = status.workers.length - (states.get("spare") ?? 0);
  const long = [...states].map(([state, number]) => `${count(number)} ${state}`).join(", ") || "There are none.";
  return {
    sense: lost > 0 ? "bad" : (states.get("starting") ?? 0) > 0 ? "wait" : "good",
    short: `${count(states.get("busy") ?? 0)}/${count(working)} busy`,
    long,
  };
}
