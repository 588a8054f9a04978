/**
 * The exchange holds the program's and the client's requests, and gives each answer to its recipient.
 *
 * It joins the session, the circuit breaker and the counters of requests.
 */

import type { CircuitBreaker } from "./circuit-breaker.js";
import { RequestCounters } from "./counters.js";
import type { Purpose, SessionEffect } from "./effects.js";
import { type BacktestrError, Busy } from "./errors.js";
import type { Packed } from "./msgpack-encoder.js";
import type { Session } from "./session.js";

/** Requests that may wait for an answer: a program with more has a bug, and the broker's own queues are shorter. */
export const MAX_WAITING = 1_000;

/** Somebody in the program who waits for the answer to one request. */
export interface Caller {
  readonly requestType: string;
  succeed(data: unknown, attachments: readonly Uint8Array[]): void;
  fail(error: Error): void;
}

/** A caller belongs to the program, a purpose to the client's subscriptions. */
export type Recipient = Caller | Purpose;

function isPurpose(recipient: Recipient): recipient is Purpose {
  return "kind" in recipient;
}

/** The requests of one client that wait for an answer, each with its recipient. */
export class Exchange {
  readonly session: Session;
  readonly counters = new RequestCounters();
  readonly #breaker: CircuitBreaker;
  readonly #failed: (error: BacktestrError, about: string) => void;
  readonly #recipients = new Map<string, Recipient>();

  /** `failed` is told of every request of the program that fails. */
  constructor(session: Session, breaker: CircuitBreaker, failed: (error: BacktestrError, about: string) => void) {
    this.session = session;
    this.#breaker = breaker;
    this.#failed = failed;
  }

  /** Makes a request, and returns the effects; one that is refused here fails at once and has none. */
  ask(
    requestType: string,
    payload: Packed,
    timeout: number,
    recipient: Recipient,
    now: number,
    wallMs: number,
  ): SessionEffect[] {
    const isOwn = isPurpose(recipient);
    if (!isOwn) {
      this.counters.requests += 1;
      const refusal = this.#breaker.refusal(now) ?? this.#tooMany();
      if (refusal !== null) {
        this.counters.refused += 1;
        this.#fail(recipient, refusal);
        return [];
      }
    }
    const [requestId, effects] = this.session.request(requestType, payload, now, wallMs, timeout, isOwn);
    if (!isOwn) this.#breaker.sent(requestId, now);
    this.#recipients.set(requestId, recipient);
    return effects;
  }

  /** Gives an answer to the program; returns the purpose of one that is for the subscriptions. */
  answered(requestId: string, data: unknown, attachments: readonly Uint8Array[], now: number): Purpose | null {
    const recipient = this.#recipients.get(requestId);
    this.#recipients.delete(requestId);
    if (recipient === undefined) return null;
    if (isPurpose(recipient)) return recipient;
    this.counters.answered += 1;
    this.#breaker.ended(requestId, null, now);
    recipient.succeed(data, attachments);
    return null;
  }

  /** Gives an error to the program; returns the purpose of a request that was for the subscriptions. */
  failed(requestId: string, error: BacktestrError, now: number): Purpose | null {
    const recipient = this.#recipients.get(requestId);
    this.#recipients.delete(requestId);
    if (recipient === undefined) return null;
    if (isPurpose(recipient)) return recipient;
    this.#breaker.ended(requestId, error, now);
    this.#fail(recipient, error);
    return null;
  }

  /** Fails every request of the program. */
  abandon(error: Error): void {
    const recipients = [...this.#recipients.values()];
    this.#recipients.clear();
    for (const one of recipients) {
      if (isPurpose(one)) continue;
      this.counters.failed += 1;
      one.fail(error);
    }
  }

  #tooMany(): Busy | null {
    if (this.session.waiting < MAX_WAITING) return null;
    return new Busy(`${MAX_WAITING} requests wait for an answer already; wait for some of them first`);
  }

  #fail(caller: Caller, error: BacktestrError): void {
    this.counters.failed += 1;
    this.#failed(error, caller.requestType);
    caller.fail(error);
  }
}
