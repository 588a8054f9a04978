/**
 * The client's session makes requests into messages, matches answers to them, and resends where that is safe.
 *
 * The client reports events (`connected`, `receive`, `tick`) with the monotonic time in seconds as `now` and wall-clock
 * time as data; the session returns effects, which are executed in order. It owns the session id and counter, the
 * requests that wait for an answer or for a broker, and their deadlines. It resends a request under the same id where
 * that is safe (PROTOCOL.md, section 4) and the `Recovery` says so.
 */

import type { ErrorData, Welcome } from "../generated/contracts.js";
import { PROTOCOL_VERSION, SCHEMA_VERSION, VERSION } from "../generated/protocol.js";
import { backoff } from "./backoff.js";
import { decodeMessage, type Envelope, encodeMessage, isMap, isWhole, shown } from "./codec.js";
import { SessionCounters } from "./counters.js";
import type { SessionEffect } from "./effects.js";
import {
  AuthenticationError,
  type BacktestrError,
  Busy,
  errorFromData,
  MessageError,
  MessageTooLarge,
  NetworkError,
  OfflineQueueFull,
  RateLimitExceeded,
  ReplayDetected,
  SerializationError,
  SessionUnknown,
  SystemFault,
  TimedOut,
  ValidationError,
} from "./errors.js";
import { encode, Packed } from "./msgpack-encoder.js";
import { PendingRequest } from "./pending-request.js";
import { DEFAULT_RECOVERY, type Recovery } from "./recovery.js";
import type { Signer } from "./transport.js";

/** A request that is refused for its session or counter more often meets a broker that will never accept it. */
export const MAX_RESENDS = 8;
/** The broker refuses counters that are so far behind the highest one, and within that those that were used. */
export const REPLAY_WINDOW = 1_024;
/** A broker on the same machine answers Hello within milliseconds; the next attempt is made on a new connection. */
export const HELLO_TIMEOUT = 5;
// The wait in milliseconds when an error asks to wait and does not say how long.
const DEFAULT_RETRY_MS = 100;

/**
 * `disconnected`: no connection. `greeting`: Hello was sent. `ready`: a session is open. `refused`: the broker refused
 * this client, and no request is sent until the next connection.
 */
export type SessionState = "disconnected" | "greeting" | "ready" | "refused";

/** Returns the payload of a request. Raises a `TypeError` with the path of a value that cannot be sent. */
export function requestPayload(requestType: string, data: unknown): Packed {
  return new Packed(encode({ type: requestType, data: new Packed(encode(data)) }));
}

/** The session of one client, across connections and instances of the broker. */
export class Session {
  readonly counters = new SessionCounters();
  readonly #recovery: Recovery;
  readonly #hello: Packed;
  readonly #nonce: string;
  #signer: Signer | null = null;
  #state: SessionState = "disconnected";
  #refusal: BacktestrError | null = null;
  #keyError: AuthenticationError | null = null;
  #welcome: Welcome | null = null;
  #messages = 0; // numbers the request ids
  #counter = 0;
  readonly #pending = new Map<string, PendingRequest>();
  #helloId: string | null = null;
  #helloDeadline = 0;
  #pingId: string | null = null;
  #lastSent = 0;
  #deadline = Number.POSITIVE_INFINITY; // the earliest of all, or earlier

  /**
   * Makes a session without a connection. `clientId` is the client's own stable name. `nonce` must be new for every
   * session object: request ids are made of it, and an id must not be used twice under one `clientId`.
   */
  constructor(clientId: string, nonce: string, policy: Recovery = DEFAULT_RECOVERY, clientName = "@backtestr/client") {
    this.#recovery = policy;
    this.#nonce = nonce;
    this.#hello = requestPayload("Hello", {
      clientId,
      clientName,
      clientVersion: VERSION,
      protocolVersions: [PROTOCOL_VERSION],
    });
  }

  /** The state of the session. */
  get state(): SessionState {
    return this.#state;
  }

  /** The broker's answer to Hello, null without a session. */
  get welcome(): Welcome | null {
    return this.#welcome;
  }

  /** The number of requests that wait for an answer. */
  get waiting(): number {
    return this.#pending.size;
  }

  /** The number of the program's requests that wait for a broker and were never sent. */
  get queued(): number {
    let count = 0;
    for (const one of this.#pending.values()) count += one.isQueued ? 1 : 0;
    return count;
  }

  /** Says Hello on a new connection; `signer` has the key of the broker at its other end. */
  connected(signer: Signer | null, now: number, wallMs: number): SessionEffect[] {
    this.#signer = signer;
    this.#keyError = null;
    return [this.#greet(now, wallMs)];
  }

  /** Notes that the connection is gone. Requests wait for the next one until their deadlines. */
  disconnected(): void {
    this.#forgetSession();
    this.#state = "disconnected";
    this.#signer = null;
  }

  /** Fails all requests until the next connection, because the broker does not admit this client. */
  denied(error: BacktestrError): SessionEffect[] {
    this.#forgetSession();
    this.#state = "refused";
    this.#refusal = error;
    this.counters.dropped += this.queued;
    const failed = [...this.#pending.keys()].map((requestId): SessionEffect => ({ kind: "failed", requestId, error }));
    this.#pending.clear();
    return [{ kind: "refused", error }, ...failed];
  }

  /**
   * Makes a request of a payload (`requestPayload`), and returns its id and the effects. `timeout` in seconds covers
   * every attempt.
   *
   * Without a session the request waits for one, in order, as one of at most `offlineQueue`. Requests of the client
   * itself (`isOwn`) are bounded by the number of its subscriptions instead.
   */
  request(
    requestType: string,
    payload: Packed,
    now: number,
    wallMs: number,
    timeout: number,
    isOwn = false,
  ): [requestId: string, effects: SessionEffect[]] {
    const requestId = this.#newId();
    const isWaiting = this.#state === "disconnected" || this.#state === "greeting";
    if (isWaiting && !isOwn && this.queued >= this.#recovery.offlineQueue) {
      this.counters.dropped += 1;
      return [requestId, [{ kind: "failed", requestId, error: this.#queueFull(requestType) }]];
    }
    const pending = new PendingRequest(requestType, payload, now, timeout, isOwn);
    this.#wakeBy(pending.deadline);
    if (this.#refusal !== null) {
      this.counters.dropped += pending.isQueued ? 1 : 0;
      return [requestId, [{ kind: "failed", requestId, error: this.#refusal }]];
    }
    this.#pending.set(requestId, pending);
    return [requestId, this.#state === "ready" ? [this.#send(requestId, pending, now, wallMs)] : []];
  }

  #queueFull(requestType: string): OfflineQueueFull {
    return new OfflineQueueFull(
      `${requestType} was not sent: there is no broker, and ${this.#recovery.offlineQueue} requests wait for one ` +
        "already; wait for some of them, ask again later, or connect with recovery: { offlineQueue: ... }",
      { waiting: this.queued },
    );
  }

  /** Ends the session at once instead of by silence, without waiting for the answer. */
  farewell(now: number, wallMs: number): SessionEffect[] {
    if (this.#state !== "ready") return [];
    const goodbye = new PendingRequest("Goodbye", requestPayload("Goodbye", {}), now, 0, true);
    const send = this.#send(this.#newId(), goodbye, now, wallMs);
    this.disconnected();
    return [send];
  }

  /**
   * Takes in an answer, and never raises: what cannot be believed becomes an `unattributed` effect. `chance` is a random
   * number from 0 to 1, for the jitter of a wait that may follow.
   */
  receive(frames: readonly Uint8Array[], now: number, wallMs: number, chance: number): SessionEffect[] {
    if (this.#state === "disconnected") return [];
    try {
      const { envelope, attachments } = decodeMessage(this.#signer, "rep", frames);
      const error = errorIn(envelope);
      if (envelope.correlationId === undefined) {
        const reason = error ?? new SerializationError(`${envelope.messageType} without correlationId`);
        return [{ kind: "unattributed", error: reason }];
      }
      if (envelope.correlationId === this.#helloId) return this.#greeted(envelope, error, now, wallMs);
      return this.#answered(envelope.correlationId, envelope, error, attachments, now, wallMs, chance);
    } catch (error) {
      if (!(error instanceof MessageError)) throw error;
      if (error instanceof AuthenticationError && this.#state === "greeting") {
        this.#keyError = error;
        return [{ kind: "keyRefused", error }];
      }
      return [{ kind: "unattributed", error }];
    }
  }

  /** Does what is due: times requests out, resends after a wait, keeps the session alive. */
  tick(now: number, wallMs: number): SessionEffect[] {
    if (now < this.#deadline) return [];
    const effects: SessionEffect[] = [];
    for (const [requestId, pending] of [...this.#pending]) {
      if (pending.deadline <= now) {
        this.#pending.delete(requestId);
        effects.push(this.#timedOut(requestId, pending));
      } else if (this.#state === "ready" && pending.due !== null && pending.due <= now) {
        if (pending.retryAt === null) pending.silences += 1;
        effects.push(this.#send(requestId, pending, now, wallMs));
      }
    }
    if (this.#state === "greeting" && this.#helloDeadline <= now) {
      this.#helloDeadline = now + HELLO_TIMEOUT;
      effects.push({ kind: "reconnect", reason: "the broker did not take the Hello" });
    } else if (effects.length === 0 && this.#welcome !== null && this.#pingId === null) {
      if (this.#lastSent + pingInterval(this.#welcome) <= now) effects.push(this.#ping(this.#welcome, now, wallMs));
    }
    this.#deadline = this.#earliest();
    return effects;
  }

  /** Returns when `tick` is due, or somewhat before; infinity is never. */
  get nextDeadline(): number {
    return this.#deadline;
  }

  // --- Hello ---------------------------------------------------------------------------------------------------------

  #greet(now: number, wallMs: number): SessionEffect {
    this.#forgetSession();
    this.#state = "greeting";
    this.#helloId = this.#newId();
    this.#helloDeadline = now + HELLO_TIMEOUT;
    this.#wakeBy(this.#helloDeadline);
    return { kind: "send", frames: this.#signed(this.#helloId, this.#hello, wallMs) };
  }

  #greeted(envelope: Envelope, error: BacktestrError | null, now: number, wallMs: number): SessionEffect[] {
    if (error instanceof Busy || error instanceof RateLimitExceeded) {
      this.#helloDeadline = now + retryMs(error) / 1000;
      this.#wakeBy(this.#helloDeadline);
      return [];
    }
    if (error !== null) return this.denied(error);
    const welcome = checkedWelcome(envelope.payload.data);
    this.#helloId = null;
    this.#state = "ready";
    this.#welcome = welcome;
    this.#counter = 0;
    this.#keyError = null;
    this.counters.sessions += 1;
    this.#lastSent = now;
    this.#wakeBy(now + pingInterval(welcome));
    const effects: SessionEffect[] = [{ kind: "welcomed", welcome }];
    for (const [requestId, pending] of [...this.#pending]) effects.push(this.#send(requestId, pending, now, wallMs));
    return effects;
  }

  #forgetSession(): void {
    if (this.#pingId !== null) this.#pending.delete(this.#pingId);
    this.#welcome = null;
    this.#helloId = null;
    this.#pingId = null;
    this.#refusal = null;
  }

  // --- answers -------------------------------------------------------------------------------------------------------

  #answered(
    requestId: string,
    envelope: Envelope,
    error: BacktestrError | null,
    attachments: readonly Uint8Array[],
    now: number,
    wallMs: number,
    chance: number,
  ): SessionEffect[] {
    const pending = this.#pending.get(requestId);
    if (pending === undefined) return []; // it timed out meanwhile, or this is the second answer to a resent request
    if (isOfCopy(error)) return []; // the broker has what was sent, and answers that
    if (error !== null && this.#recovery.automatic) {
      const retry = this.#retry(requestId, pending, error, now, wallMs, chance);
      if (retry !== null) return retry;
    }
    this.#pending.delete(requestId);
    if (requestId === this.#pingId) {
      this.#pingId = null;
      this.#wakeBy(this.#lastSent); // at once, so that `tick` computes when the next Ping is due
      return []; // the broker is there, and no caller waits for this answer
    }
    if (error === null) return [{ kind: "answered", requestId, data: envelope.payload.data, attachments }];
    const greets = error instanceof SessionUnknown && this.#isCurrent(pending) ? [this.#greet(now, wallMs)] : [];
    return [...greets, { kind: "failed", requestId, error }];
  }

  /**
   * Returns the effects that retry the request if the error advises that and attempts and time remain, else null. Advice
   * that this client does not know is left to the program, which finds it in `error.recoveryActions`.
   */
  #retry(
    requestId: string,
    pending: PendingRequest,
    error: BacktestrError,
    now: number,
    wallMs: number,
    chance: number,
  ): SessionEffect[] | null {
    const advises = (action: string): boolean =>
      error.recoveryActions.some((one) => one.automatic && one.action === action);
    if (error instanceof SessionUnknown && advises("hello") && pending.resends < MAX_RESENDS) {
      pending.resends += 1;
      if (this.#isCurrent(pending)) {
        pending.sessionId = null;
        return [this.#greet(now, wallMs)];
      }
      // Otherwise it is sent when the session is open.
      return this.#state === "ready" ? [this.#send(requestId, pending, now, wallMs)] : [];
    }
    if (error instanceof ReplayDetected && advises("resend") && pending.resends < MAX_RESENDS) {
      pending.resends += 1;
      return this.#state === "ready" ? [this.#send(requestId, pending, now, wallMs)] : [];
    }
    if ((error instanceof Busy || error instanceof RateLimitExceeded) && advises("wait")) {
      pending.waits += 1;
      const delay = backoff(this.#recovery, pending.waits, chance);
      return this.#retryAfter(pending, now, Math.max(retryMs(error) / 1000, delay));
    }
    if (error instanceof SystemFault && advises("retry") && pending.mayRetry(this.#recovery)) {
      pending.faults += 1;
      return this.#retryAfter(pending, now, backoff(this.#recovery, pending.faults, chance));
    }
    return null;
  }

  /** Schedules a retry after `delay` seconds, or returns null if the request's time is up before. */
  #retryAfter(pending: PendingRequest, now: number, delay: number): SessionEffect[] | null {
    if (!pending.retryAfter(now, delay)) return null;
    this.#wakeBy(now + delay);
    return [];
  }

  /** Returns true if the request was last sent in the session that is open. */
  #isCurrent(pending: PendingRequest): boolean {
    return this.#welcome !== null && pending.sessionId === this.#welcome.sessionId;
  }

  #timedOut(requestId: string, pending: PendingRequest): SessionEffect {
    if (requestId === this.#pingId) {
      this.#pingId = null;
      return { kind: "reconnect", reason: `no answer to Ping within ${pending.timeout} s` };
    }
    if (pending.isQueued) this.counters.dropped += 1;
    const waited = `${pending.requestType} was not answered within ${pending.timeout} s`;
    if (this.#state === "ready") {
      return { kind: "failed", requestId, error: new TimedOut(waited, { timeoutSeconds: pending.timeout }) };
    }
    const sent = pending.sendings === 0 ? "it was never sent" : "it was sent before, and may have been executed";
    const error =
      this.#keyError === null
        ? new NetworkError(`${waited}: the connection to the broker is lost (${sent})`)
        : new AuthenticationError(`${waited} (${sent}): ${this.#keyError.message}`);
    return { kind: "failed", requestId, error };
  }

  // --- sending -------------------------------------------------------------------------------------------------------

  #send(requestId: string, pending: PendingRequest, now: number, wallMs: number): SessionEffect {
    const { sessionId, maxMessageBytes } = this.#welcome as Welcome;
    const frames = this.#signed(requestId, pending.payload, wallMs, sessionId, this.#counter + 1);
    let size = 0;
    for (const frame of frames) size += frame.length;
    if (size > maxMessageBytes) {
      this.#pending.delete(requestId);
      return { kind: "failed", requestId, error: tooLarge(pending.requestType, size, maxMessageBytes) };
    }
    this.#counter += 1;
    this.#lastSent = now;
    pending.sent(sessionId, now, this.#recovery);
    if (pending.due !== null) this.#wakeBy(pending.due);
    if (pending.sendings > 1 && !pending.isOwn) this.counters.resent += 1;
    return { kind: "send", frames };
  }

  #signed(id: string, payload: Packed, wallMs: number, sessionId?: string, counter?: number): Uint8Array[] {
    const envelope = {
      id,
      timestamp: wallMs,
      schemaVersion: SCHEMA_VERSION,
      messageType: "Request" as const,
      payload,
      sessionId,
      counter,
    };
    return encodeMessage(this.#signer, "req", envelope);
  }

  #ping(welcome: Welcome, now: number, wallMs: number): SessionEffect {
    const id = this.#newId();
    const pending = new PendingRequest("Ping", requestPayload("Ping", {}), now, welcome.sessionTimeoutMs / 1000, true);
    this.#pingId = id;
    this.#pending.set(id, pending);
    const send = this.#send(id, pending, now, wallMs);
    pending.resendAt = null; // a Ping without an answer shows that the connection is lost
    return send;
  }

  #newId(): string {
    this.#messages += 1;
    return `${this.#nonce}-${this.#messages}`;
  }

  // --- time ----------------------------------------------------------------------------------------------------------

  #wakeBy(at: number): void {
    if (at < this.#deadline) this.#deadline = at;
  }

  #earliest(): number {
    let earliest = this.#state === "greeting" ? this.#helloDeadline : Number.POSITIVE_INFINITY;
    for (const pending of this.#pending.values()) {
      earliest = Math.min(earliest, pending.deadline);
      if (this.#state === "ready" && pending.due !== null) earliest = Math.min(earliest, pending.due);
    }
    if (this.#welcome !== null && this.#pingId === null) {
      earliest = Math.min(earliest, this.#lastSent + pingInterval(this.#welcome));
    }
    return earliest;
  }

  /** Returns what is wrong with state, requests and the next deadline; null if they agree. For tests. */
  violation(): string | null {
    if ((this.#state === "ready") !== (this.#welcome !== null)) return "ready without a welcome";
    if ((this.#state === "greeting") !== (this.#helloId !== null)) return "greeting without a Hello";
    if ((this.#state === "refused") !== (this.#refusal !== null)) return "refused without a reason";
    if (this.#state !== "ready" && this.queued > this.#recovery.offlineQueue) return "too many wait for a broker";
    for (const pending of this.#pending.values()) {
      if (pending.retryAt !== null && pending.resendAt !== null) return "two times of a sending";
      if (pending.due !== null && pending.due >= pending.deadline) return "a sending is due after the deadline";
      if (pending.faults + pending.silences >= this.#recovery.maxAttempts) return "more attempts than allowed";
    }
    return this.#deadline <= this.#earliest() ? null : "a deadline would be missed";
  }
}

function pingInterval(welcome: Welcome): number {
  return welcome.heartbeatIntervalMs / 1000;
}

/** Returns the error that an answer carries, null for a success. Raises a `MessageError` for any other message. */
function errorIn(envelope: Envelope): BacktestrError | null {
  const { type, data } = envelope.payload;
  if (type === "Success") return null;
  if (type !== "Failure" && type !== "Error") {
    throw new SerializationError(`expected the answer Success, Failure or Error; ${shown(type)} came`);
  }
  return errorFromWire(data);
}

/** Returns the error that received data describe. Raises a `ValidationError` for data that are no `ErrorData`. */
export function errorFromWire(data: unknown): BacktestrError {
  if (
    !isMap(data) ||
    typeof data.code !== "string" ||
    typeof data.message !== "string" ||
    typeof data.severity !== "string" ||
    !Array.isArray(data.recoveryActions)
  ) {
    throw new ValidationError("$.payload.data: expected ErrorData", { path: "$.payload.data" });
  }
  return errorFromData(data as unknown as ErrorData);
}

const WELCOME_NUMBERS = ["heartbeatIntervalMs", "sessionTimeoutMs", "maxMessageBytes"];

function checkedWelcome(data: unknown): Welcome {
  if (!isMap(data) || typeof data.sessionId !== "string" || !WELCOME_NUMBERS.every((name) => isWhole(data[name]))) {
    throw new ValidationError("$.payload.data: expected Welcome", { path: "$.payload.data" });
  }
  return data as unknown as Welcome;
}

function tooLarge(requestType: string, size: number, most: number): MessageTooLarge {
  return new MessageTooLarge(
    `${requestType} was not sent: it has ${size} bytes, and the broker takes at most ${most} in one message; send less ` +
      "at once, or raise limits.max_message_bytes in broker.toml",
    { bytes: size, maxMessageBytes: most },
  );
}

/**
 * Returns true for the refusal of a copy that somebody between has made of a message that the broker has taken. A counter
 * within the broker's window was refused because it was used, and this client uses none twice.
 */
function isOfCopy(error: BacktestrError | null): boolean {
  if (!(error instanceof ReplayDetected) || error.details === null) return false;
  const { counter, highest } = error.details;
  if (!isWhole(counter) || !isWhole(highest)) return false;
  return highest >= counter && highest - counter < REPLAY_WINDOW;
}

function retryMs(error: BacktestrError): number {
  const stated = error.details?.retryAfterMs;
  return typeof stated === "number" ? Math.max(1, stated) : DEFAULT_RETRY_MS;
}
