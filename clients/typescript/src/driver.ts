/**
 * The driver of one client owns its link, and joins the machines of the core to it, to the clock and to the callers.
 *
 * It feeds events into the session and the subscriptions and executes their effects. When the link breaks, or another
 * instance of the broker has announced itself, it makes another link, and the machines continue where they were.
 */

import { BacktestEnds } from "./backtest-ends.js";
import type { Clock } from "./clock.js";
import { backoff } from "./core/backoff.js";
import type { Decompress } from "./core/batches.js";
import { CircuitBreaker } from "./core/circuit-breaker.js";
import { CONNECTION, type ConnectionEvent, type ConnectionState } from "./core/connection-state.js";
import { type Statistics, statistics } from "./core/counters.js";
import type { Ask, Delivery, SessionEffect, SubscriptionEffect, TopicRepair } from "./core/effects.js";
import {
  AuthenticationError,
  BacktestrError,
  ClosedError,
  MessagesLost,
  NetworkError,
  Recovered,
} from "./core/errors.js";
import { Exchange, type Recipient } from "./core/exchange.js";
import { Handshakes, lockedOut } from "./core/handshakes.js";
import type { Packed } from "./core/msgpack-encoder.js";
import type { Recovery } from "./core/recovery.js";
import { requestPayload, type Session } from "./core/session.js";
import { StreamErrors } from "./core/stream-errors.js";
import { Subscriptions, type Wanted } from "./core/subscriptions.js";
import { socketsFor } from "./core/topics.js";
import type { Link, LinkEvent, Signer, TableFiles, Transport } from "./core/transport.js";
import type { BacktestStatus, Welcome } from "./generated/contracts.js";
import { MAX_UNREAD, Mailbox } from "./mailbox.js";

// Seconds before a client whose key was denied connects again: the user has to allow the key first.
const LOCKED_OUT_INTERVAL = 5;
// Seconds after which a connection has lasted. One that breaks earlier, again and again, is made again ever more slowly.
const LASTING_SECONDS = 5;
// Seconds for a request of the subscriptions: its answer is small, or cut to size by the broker.
const REPAIR_TIMEOUT = 30;

/** The driver tells its client these events. */
export interface DriverEvents {
  state(state: ConnectionState, previous: ConnectionState): void;
  report(error: BacktestrError, about: string): void;
  /** Messages are missing in a topic, and are being fetched. */
  gap(topic: string, fromSeq: number, toSeq: number): void;
  /** Messages that were missing have come. */
  repaired(topic: string): void;
  /** Messages of a topic are lost. */
  lost(topic: string, fromSeq: number, toSeq: number): void;
  /** The reader of a subscription has left so many deliveries unread that no more are taken before it reads. */
  slow(prefix: string): void;
}

/** A reading is the topic or prefix of a subscription, and where it begins and ends. */
export type Reading = Omit<Wanted, "space">;

interface Reader {
  readonly prefix: string;
  readonly mailbox: Mailbox;
  isSlow: boolean;
}

/** The driver of one client, from its construction to `close`. */
export class Driver {
  /** Decompresses batches. */
  readonly decompress: Decompress;
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #recovery: Recovery;
  readonly #events: DriverEvents;
  readonly #session: Session;
  readonly #subscriptions: Subscriptions;
  readonly #breaker: CircuitBreaker;
  readonly #exchange: Exchange;
  readonly #streamErrors = new StreamErrors();
  readonly #readers = new Map<number, Reader>();
  readonly #ends = new BacktestEnds();
  readonly #closings = new Set<Promise<void>>();
  readonly #welcomes: { resolve(welcome: Welcome): void; reject(error: Error): void }[] = [];
  #unwatch: (() => void) | null = null;
  #state: ConnectionState = "connecting";
  #keyRefusal: BacktestrError | null = null; // why the state is `authFailed`
  #lastReason: string | null = null; // why the last link was given up
  #losses = 0; // of connections in a row, none of which lasted
  #welcomedAt: number | null = null;
  #connectAt: number | null = null;
  #isAccepted = false; // true if the broker has accepted the key of this connection before
  #link: Link | null = null;
  #isOpen = false;
  #signer: Signer | null = null;
  #publicKey: string | null = null;
  #instanceId: string | null = null;
  #handshakes = new Handshakes();
  #subscriptionIds = 0;
  #gapsSeen = 0;
  readonly #waits: { readonly at: number; readonly repair: TopicRepair }[] = []; // the earliest first
  #cancelTimer: (() => void) | null = null;
  #timerAt = Number.POSITIVE_INFINITY;
  #welcome: Welcome | null = null;
  #fault: unknown = null;

  constructor(
    transport: Transport,
    session: Session,
    clock: Clock,
    recovery: Recovery,
    decompress: Decompress,
    events: DriverEvents,
  ) {
    this.decompress = decompress;
    this.#transport = transport;
    this.#session = session;
    this.#clock = clock;
    this.#recovery = recovery;
    this.#events = events;
    this.#subscriptions = new Subscriptions(decompress);
    this.#breaker = new CircuitBreaker(recovery);
    this.#exchange = new Exchange(session, this.#breaker, (error, about) => events.report(error, about));
  }

  // --- calls of the client -------------------------------------------------------------------------------------------

  /** Begins to connect. Whatever happens from here on, `close` ends it. */
  start(): void {
    this.#unwatch = this.#transport.watch(() => this.#replaced());
    this.#guarded(() => this.#connect());
  }

  /** The state of the connection. */
  get state(): ConnectionState {
    return this.#state;
  }

  /** The reason why the state is `authFailed`, or the last refusal of this client's key; null if there was none. */
  get keyRefusal(): BacktestrError | null {
    return this.#keyRefusal;
  }

  /** The reason why the last link was given up; null if none was. */
  get lastReason(): string | null {
    return this.#lastReason;
  }

  /** The latest answer to Hello; null before the first. */
  get welcome(): Welcome | null {
    return this.#welcome;
  }

  /** The table files of a broker on this machine; null where they cannot be read. */
  get tables(): TableFiles | null {
    const tables = this.#transport.tables;
    return tables?.areReadable() === true ? tables : null;
  }

  /** Resolves with the next answer to Hello, or that of the present session; rejects once the broker refuses. */
  welcomed(): Promise<Welcome> {
    if (this.#state === "closed") return Promise.reject(this.#closed());
    if (this.#session.welcome !== null) return Promise.resolve(this.#session.welcome);
    return new Promise((resolve, reject) => this.#welcomes.push({ resolve, reject }));
  }

  /**
   * Sends a request, and returns its answer and attachments. `timeout` is in seconds. Raises a `TypeError` at once for
   * data that cannot be sent. Errors have the stack of `origin`.
   */
  request(
    requestType: string,
    data: unknown,
    timeout: number,
    origin: Error,
  ): Promise<readonly [data: unknown, attachments: readonly Uint8Array[]]> {
    const payload = requestPayload(requestType, data);
    if (this.#state === "closed") return Promise.reject(this.#closed());
    return new Promise((resolve, reject) => {
      const caller = {
        requestType,
        succeed: (answer: unknown, attachments: readonly Uint8Array[]) => resolve([answer, attachments] as const),
        fail: (error: Error) => reject(error instanceof BacktestrError ? error.at(origin) : error),
      };
      this.#guarded(() => this.#ask(requestType, payload, timeout, caller));
    });
  }

  /** Begins a subscription (see `Subscriptions.open`), and returns its number and the mailbox of its deliveries. */
  open(reading: Reading): readonly [number, Mailbox] {
    this.#subscriptionIds += 1;
    const id = this.#subscriptionIds;
    const mailbox = new Mailbox((count) => this.#run(() => this.#taken(id, count)));
    if (this.#state === "closed") {
      mailbox.end(this.#closed());
      return [id, mailbox];
    }
    this.#readers.set(id, { prefix: reading.prefix, mailbox, isSlow: false });
    this.#streamErrors.subscribed(id, reading.prefix);
    this.#run(() => this.#subscriptions.open(id, { ...reading, space: MAX_UNREAD }));
    return [id, mailbox];
  }

  /** Ends a subscription. Deliveries that have arrived can still be read. */
  shut(id: number): void {
    const reader = this.#readers.get(id);
    if (reader === undefined) return;
    this.#readers.delete(id);
    this.#streamErrors.unsubscribed(id);
    this.#run(() => this.#subscriptions.close(id));
    reader.mailbox.end(null);
  }

  /** Returns the final status of a backtest once it has ended. One that `isNew` has not been started yet. */
  follow(backtestId: string, isNew: boolean): Promise<BacktestStatus> {
    if (this.#state === "closed") return Promise.reject(this.#closed());
    const end = this.#ends.wait(backtestId);
    this.#run(() => this.#subscriptions.follow(backtestId, isNew));
    return end;
  }

  /** Notes that the broker has accepted a backtest that is followed as new. */
  started(backtestId: string): void {
    this.#run(() => this.#subscriptions.started(backtestId));
  }

  /** Waits for the end of this backtest no more; what waits for it fails with `error`. */
  unfollow(backtestId: string, error: Error): void {
    this.#ends.finish(backtestId, error);
    this.#subscriptions.unfollow(backtestId);
  }

  /** Returns all counters at this moment, also of a closed client. */
  statistics(errors: number): Statistics {
    const { counters } = this.#session;
    return statistics(this.#exchange.counters, counters, this.#subscriptions.counters, this.#session.queued, errors);
  }

  /** Says Goodbye and ends the link. Whatever still waits fails with a `ClosedError`. */
  async close(): Promise<void> {
    if (this.#state !== "closed") {
      try {
        this.#execute(this.#session.farewell(this.#clock.now(), this.#clock.wallMs()));
      } catch (error) {
        this.#fault ??= error; // what cannot be sent any more keeps nothing from ending
      }
      this.#changeState("closed");
      this.#cancelTimer?.();
      this.#unwatch?.();
      this.#disconnect();
      this.#abandonAll(this.#closed());
      this.#closings.add(this.#transport.close());
    }
    await Promise.allSettled([...this.#closings]);
  }

  // --- the link ------------------------------------------------------------------------------------------------------

  #connect(): void {
    this.#disconnect();
    this.#handshakes = new Handshakes();
    const link: Link = this.#transport.connect((event) => {
      if (link !== this.#link) return; // of a link that was given up
      this.#guarded(() => this.#handle(event));
    });
    this.#link = link;
  }

  #disconnect(): void {
    this.#connectAt = null;
    this.#isOpen = false;
    const link = this.#link;
    if (link === null) return;
    this.#link = null;
    this.#session.disconnected();
    const closing = link.close().finally(() => this.#closings.delete(closing));
    this.#closings.add(closing);
  }

  #handle(event: LinkEvent): void {
    switch (event.type) {
      case "answer":
        this.#execute(
          this.#session.receive(event.frames, this.#clock.now(), this.#clock.wallMs(), this.#clock.random()),
        );
        break;
      case "message":
        this.#execute(this.#subscriptions.receive(event.frames));
        break;
      case "opened":
        this.#opened(event.instanceId, event.signer, event.publicKey ?? null);
        break;
      case "handshake":
        this.#shookHands(this.#handshakes.ended(event.outcome, event.ofRequests));
        break;
      case "absent":
        this.#reconnect(event.reason);
        break;
      case "lost":
        this.#reconnect(event.reason);
        break;
    }
  }

  #opened(instanceId: string, signer: Signer | null, publicKey: string | null): void {
    const isOther = this.#instanceId !== null && this.#instanceId !== instanceId;
    this.#instanceId = instanceId;
    this.#signer = signer;
    this.#publicKey = publicKey;
    this.#isOpen = true;
    if (isOther) {
      this.#isAccepted = false;
      this.#losses = 0;
      this.#keyRefusal = null;
      this.#streamErrors.restarted();
      this.#changeState("replaced");
    }
    for (const prefix of this.#subscriptions.prefixes) this.#subscribe(prefix);
    this.#execute(this.#session.connected(signer, this.#clock.now(), this.#clock.wallMs()));
    this.#execute(this.#subscriptions.connected(signer, instanceId));
  }

  #shookHands(verdict: "reconnected" | "lockedOut" | null): void {
    if (verdict === "reconnected") {
      this.#connectAt = null;
      this.#execute(this.#session.connected(this.#signer, this.#clock.now(), this.#clock.wallMs()));
    } else if (verdict === "lockedOut") {
      this.#lockOut(lockedOut(this.#publicKey));
    }
  }

  /** Another instance of the broker has announced itself. */
  #replaced(): void {
    if (this.#state === "closed") return;
    this.#guarded(() => {
      this.#losses = 0;
      this.#changeState("lost");
      this.#connect();
    });
  }

  /** Fails every wait for an answer, a message or an end, because the broker denies this client's key. */
  #lockOut(error: AuthenticationError): void {
    this.#isAccepted = false;
    this.#keyRefused(error);
    this.#connectAt = this.#clock.now() + LOCKED_OUT_INTERVAL;
    this.#execute(this.#session.denied(error));
    for (const [id, { mailbox }] of [...this.#readers]) {
      this.#readers.delete(id);
      this.#streamErrors.unsubscribed(id);
      this.#execute(this.#subscriptions.close(id));
      mailbox.end(error);
    }
    for (const backtestId of this.#ends.ids) this.unfollow(backtestId, error);
  }

  /**
   * Gives up this link and makes another: at once after one that lasted, otherwise after the back-off. Only the first of
   * several losses in a row is reported: an hour without a broker is one error.
   */
  #reconnect(reason: string): void {
    const now = this.#clock.now();
    if (this.#welcomedAt !== null && now - this.#welcomedAt >= LASTING_SECONDS) this.#losses = 0;
    this.#welcomedAt = null;
    this.#lastReason = reason;
    if (this.#losses === 0) {
      this.#events.report(new NetworkError(`connecting to the broker again: ${reason}`), "connection");
    }
    this.#disconnect();
    this.#changeState("lost");
    const wait = this.#losses === 0 ? 0 : backoff(this.#recovery, this.#losses, this.#clock.random());
    this.#losses += 1;
    this.#connectAt = now + wait;
  }

  /**
   * Notes that the broker at this address does not accept this client's key. A key that was accepted before stays valid
   * for its broker: so another broker is there now, and its announcement will follow.
   */
  #keyRefused(error: BacktestrError): void {
    if (this.#recovery.automatic) this.#transport.reread(); // as AUTHENTICATION_ERROR advises
    if (this.#isAccepted) {
      this.#changeState("lost");
      return;
    }
    this.#keyRefusal = error;
    this.#events.report(error, "connection");
    this.#changeState("keyRefused");
  }

  #subscribe(prefix: string): void {
    for (const socket of socketsFor(prefix)) this.#link?.subscribe(socket, prefix);
  }

  #unsubscribe(prefix: string): void {
    for (const socket of socketsFor(prefix)) this.#link?.unsubscribe(socket, prefix);
  }

  #changeState(event: ConnectionEvent): void {
    const previous = this.#state;
    this.#state = CONNECTION[previous][event];
    if (this.#state !== previous) this.#events.state(this.#state, previous);
  }

  // --- effects -------------------------------------------------------------------------------------------------------

  /** Executes what a machine wants. */
  #run(effects: () => readonly (SessionEffect | SubscriptionEffect)[]): void {
    if (this.#state !== "closed") this.#guarded(() => this.#execute(effects()));
  }

  /**
   * Does a step, and looks when the next one is due. A step that fails has a defect, which may have left the machines in
   * any state: then everything that waits fails, instead of waiting for ever.
   */
  #guarded(step: () => void): void {
    try {
      step();
      this.#arm();
    } catch (error) {
      this.#fault = error;
      this.#abandonAll(this.#closed());
      void this.close();
    }
  }

  #closed(): ClosedError {
    if (this.#fault === null) return new ClosedError("this client is closed");
    return new ClosedError(`this client has ended by a fault: ${String(this.#fault)}`, { cause: this.#fault });
  }

  #ask(requestType: string, payload: Packed, timeout: number, recipient: Recipient): void {
    const now = this.#clock.now();
    this.#execute(this.#exchange.ask(requestType, payload, timeout, recipient, now, this.#clock.wallMs()));
  }

  #execute(effects: readonly (SessionEffect | SubscriptionEffect)[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "send":
          // What cannot be sent waits for the next connection, or is sent again as the recovery says.
          this.#link?.send(effect.frames);
          break;
        case "answered": {
          const { requestId, data, attachments } = effect;
          const purpose = this.#exchange.answered(requestId, data, attachments, this.#clock.now());
          if (purpose !== null) this.#execute(this.#subscriptions.answered(purpose, data));
          break;
        }
        case "failed": {
          const purpose = this.#exchange.failed(effect.requestId, effect.error, this.#clock.now());
          if (purpose !== null) this.#execute(this.#subscriptions.failed(purpose, effect.error));
          break;
        }
        case "deliver":
          this.#deliver(effect.subscriptionId, effect.deliveries);
          break;
        case "ask":
          this.#askForStreams(effect);
          break;
        case "wait":
          this.#waits.push({ at: this.#clock.now() + effect.seconds, repair: effect.repair });
          break;
        case "end":
          this.#end(effect.subscriptionId, effect.error);
          break;
        case "finished":
          this.#ends.finish(effect.backtestId, effect.outcome);
          break;
        case "subscribe":
          if (this.#isOpen) this.#subscribe(effect.prefix);
          break;
        case "unsubscribe":
          if (this.#isOpen) this.#unsubscribe(effect.prefix);
          break;
        case "welcomed":
          this.#isWelcomed(effect.welcome);
          break;
        case "refused":
          this.#isRefused(effect.error);
          break;
        case "keyRefused":
          this.#keyRefused(effect.error);
          break;
        case "reconnect":
          this.#reconnect(effect.reason);
          break;
        case "unattributed":
          // Messages of the next broker may come before its announcement.
          if (!(effect.error instanceof AuthenticationError) || this.#state === "ready") {
            this.#events.report(effect.error, "connection");
          }
          break;
      }
    }
  }

  #askForStreams({ requestType, data, purpose }: Ask): void {
    const { gapsSeen } = this.#subscriptions.counters;
    if (gapsSeen !== this.#gapsSeen) {
      this.#gapsSeen = gapsSeen;
      const { topic, fromSeq, toSeq } = data;
      if (typeof topic === "string" && typeof fromSeq === "number" && typeof toSeq === "number") {
        this.#events.gap(topic, fromSeq, toSeq);
      }
    }
    this.#ask(requestType, requestPayload(requestType, data), REPAIR_TIMEOUT, purpose);
  }

  #isWelcomed(welcome: Welcome): void {
    this.#isAccepted = true;
    this.#keyRefusal = null;
    this.#welcome = welcome;
    this.#welcomedAt = this.#clock.now();
    this.#breaker.welcomed();
    if (this.#state === "reconnecting") {
      this.#events.report(new Recovered("the client is connected to the broker again"), "connection");
    }
    this.#changeState("welcomed");
    for (const { resolve } of this.#welcomes.splice(0)) resolve(welcome);
  }

  #isRefused(error: BacktestrError): void {
    this.#events.report(error, "connection");
    this.#changeState("lost");
    for (const { reject } of this.#welcomes.splice(0)) reject(error);
  }

  #deliver(id: number, deliveries: readonly Delivery[]): void {
    for (const { error, topic } of this.#streamErrors.find(id, deliveries, this.#subscriptions.counters)) {
      this.#events.report(error, topic);
      if (error instanceof Recovered) this.#events.repaired(topic);
      else if (error instanceof MessagesLost) {
        this.#events.lost(topic, Number(error.details?.fromSeq), Number(error.details?.toSeq));
      }
    }
    const reader = this.#readers.get(id);
    if (reader === undefined) return;
    reader.mailbox.put(deliveries);
    if (!reader.isSlow && reader.mailbox.held >= MAX_UNREAD) {
      reader.isSlow = true;
      this.#events.slow(reader.prefix);
    }
  }

  #taken(id: number, count: number): readonly SubscriptionEffect[] {
    const reader = this.#readers.get(id);
    if (reader !== undefined) reader.isSlow = false;
    return this.#subscriptions.taken(id, count);
  }

  #end(id: number, error: BacktestrError | null): void {
    this.#streamErrors.unsubscribed(id);
    if (error !== null) this.#events.report(error, "subscription");
    const reader = this.#readers.get(id);
    this.#readers.delete(id);
    reader?.mailbox.end(error);
  }

  #abandonAll(error: Error): void {
    this.#exchange.abandon(error);
    this.#ends.abandon(error);
    for (const { mailbox } of this.#readers.values()) mailbox.end(error);
    this.#readers.clear();
    for (const { reject } of this.#welcomes.splice(0)) reject(error);
  }

  // --- time ----------------------------------------------------------------------------------------------------------

  /** Has the clock call when something is due. A timer that fires too early costs less than one that is set anew. */
  #arm(): void {
    if (this.#state === "closed") return;
    const never = Number.POSITIVE_INFINITY;
    const due = Math.min(this.#session.nextDeadline, this.#connectAt ?? never, this.#waits[0]?.at ?? never);
    if (due >= this.#timerAt) return;
    this.#cancelTimer?.();
    this.#timerAt = due;
    this.#cancelTimer = this.#clock.after(Math.max(0, due - this.#clock.now()), () => this.#tick());
  }

  #tick(): void {
    this.#cancelTimer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    if (this.#state === "closed") return;
    this.#guarded(() => {
      const now = this.#clock.now();
      if (this.#connectAt !== null && this.#connectAt <= now) this.#connect();
      if (this.#session.nextDeadline <= now) this.#execute(this.#session.tick(now, this.#clock.wallMs()));
      for (let next = this.#waits[0]; next !== undefined && next.at <= now; next = this.#waits[0]) {
        this.#waits.shift();
        this.#execute(this.#subscriptions.waited(next.repair));
      }
    });
  }
}
