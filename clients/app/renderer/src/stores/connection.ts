/** The connection to the broker and the broker's own status, apart from each other: either may be well without the other. */

import type { ConnectionState, RemoteClient, SystemStatus } from "@backtestr/client/page";
import { type Accessor, createSignal } from "solid-js";
import type { Host, HostSession, HostState } from "../host/host";
import { keepReading } from "./reading";

/** The repairs and losses that are kept as words. */
const LINES = 5;

/** Messages and requests a second, between the last two heartbeats. */
export interface Rates {
  readonly requests: number;
  readonly messages: number;
}

/** The messages of streams that this page has missed. */
export interface Repairs {
  /** Gaps whose messages were all fetched. */
  readonly repaired: number;
  /** Messages that the broker no longer had. */
  readonly lost: number;
  /** The last of them in words, the latest first. */
  readonly latest: readonly string[];
}

export interface ConnectionStore {
  readonly status: Accessor<ConnectionState>;
  /** When the present status began, in milliseconds since 1970. */
  readonly since: Accessor<number>;
  readonly hostState: Accessor<HostState>;
  readonly session: Accessor<HostSession | undefined>;
  /** The last heartbeat. */
  readonly health: Accessor<SystemStatus | undefined>;
  /** When it came, in milliseconds since 1970. */
  readonly heardAt: Accessor<number | undefined>;
  readonly rates: Accessor<Rates | undefined>;
  readonly repairs: Accessor<Repairs | undefined>;
  /** Calls `callback` now if there is a session, and at every new one. */
  onReady(callback: () => void): void;
}

/** Watches the connection of `client` for as long as the page lives. */
export function createConnection(host: Host, client: RemoteClient): ConnectionStore {
  const [status, setStatus] = createSignal<ConnectionState>(client.status);
  const [since, setSince] = createSignal(Date.now());
  const [hostState, setHostState] = createSignal<HostState>({ kind: "reachable" });
  const [session, setSession] = createSignal<HostSession>();
  const [health, setHealth] = createSignal<SystemStatus>();
  const [heardAt, setHeardAt] = createSignal<number>();
  const [rates, setRates] = createSignal<Rates>();
  const [repairs, setRepairs] = createSignal<Repairs>();
  const callbacks = new Set<() => void>();

  function ready(): void {
    for (const one of callbacks) one();
    void client.request("GetSystemStatus", {}).then(heard, () => undefined);
  }
  function heard(next: SystemStatus): void {
    const before = health();
    setHealth(next);
    setHeardAt(Date.now());
    if (before !== undefined) setRates(ratesBetween(before, next) ?? rates());
  }

  async function count(line?: string): Promise<void> {
    const latest = [...(line === undefined ? [] : [line]), ...(repairs()?.latest ?? [])].slice(0, LINES);
    try {
      const { gapsRepaired, messagesLost } = await client.statistics();
      setRepairs({ repaired: gapsRepaired, lost: messagesLost, latest });
    } catch {
      // The client is closed; its last counts stay.
    }
  }
  client.on("repaired", ({ topic }) => void count(`${topic}: what was missing has come`));
  client.on("lost", ({ topic, fromSeq, toSeq }) => void count(`${topic}: ${fromSeq} to ${toSeq} are lost`));
  void count();

  client.onStatus((next) => {
    setStatus(next);
    setSince(Date.now());
    if (next === "ready") ready();
  });
  host.onState((next) => {
    setHostState(next);
    if (next.kind === "reachable" && session() === undefined) readSession();
  });
  function readSession(): void {
    host.session().then(setSession, () => undefined); // hostState says what is wrong
  }
  readSession();
  keepReading(
    () => client.subscribe("system.status"),
    (received) => {
      if (received.kind === "update") heard(received.data);
    },
  );
  if (client.status === "ready") ready();

  return {
    status,
    since,
    hostState,
    session,
    health,
    heardAt,
    rates,
    repairs,
    onReady: (callback) => {
      callbacks.add(callback);
      if (status() === "ready") callback();
    },
  };
}

/** The rates between two heartbeats of one broker; undefined where they tell none. */
export function ratesBetween(before: SystemStatus, after: SystemStatus): Rates | undefined {
  const passed = (after.lastHeartbeat - before.lastHeartbeat) / 1000;
  if (passed < 0.2 || after.uptimeMs < before.uptimeMs) return undefined;
  const requests = (one: SystemStatus): number =>
    (one.connections?.perClient ?? []).reduce((sum, client) => sum + client.requests, 0);
  const messages = (one: SystemStatus): number =>
    Object.values(one.streams?.byClass ?? {}).reduce((sum, load) => sum + load.messages, 0);
  // A client that has left takes its count along.
  return {
    requests: Math.max(0, requests(after) - requests(before)) / passed,
    messages: Math.max(0, messages(after) - messages(before)) / passed,
  };
}
