/**
 * A pending request counts how often it was sent and why, and knows when it is sent again.
 *
 * Every number that the retry policy bounds is counted here; the session decides what an answer means.
 */

import type { Packed } from "./msgpack-encoder.js";
import type { Recovery } from "./recovery.js";

/**
 * A request that waits for its answer. At most one of two times is set: `retryAt` after an answer that advises a retry,
 * `resendAt` while there is no answer.
 */
export class PendingRequest {
  readonly requestType: string;
  readonly payload: Packed;
  readonly timeout: number;
  readonly deadline: number;
  /** True for a request of the client itself, not of the program. */
  readonly isOwn: boolean;
  /** The session in which it was last sent, null while unsent. */
  sessionId: string | null = null;
  sendings = 0;
  /** Because the broker did not accept the session or the counter. */
  resends = 0;
  /** For a busy broker. */
  waits = 0;
  /** Of the broker. */
  faults = 0;
  silences = 0;
  retryAt: number | null = null;
  resendAt: number | null = null;

  constructor(requestType: string, payload: Packed, now: number, timeout: number, isOwn: boolean) {
    this.requestType = requestType;
    this.payload = payload;
    this.timeout = timeout;
    this.deadline = now + timeout;
    this.isOwn = isOwn;
  }

  /** True if it waits for a broker and was never sent. */
  get isQueued(): boolean {
    return this.sendings === 0 && !this.isOwn;
  }

  /** Returns true if the policy allows one more attempt after a fault or silence. */
  mayRetry(recovery: Recovery): boolean {
    return this.faults + this.silences + 1 < recovery.maxAttempts;
  }

  /** Schedules a retry after `delay` seconds, or returns false if the deadline comes before. */
  retryAfter(now: number, delay: number): boolean {
    if (now + delay >= this.deadline) return false;
    this.retryAt = now + delay;
    this.resendAt = null;
    return true;
  }

  /** Notes a sending. Without an answer the next is due after `resendAfterMs`, doubled each time. */
  sent(sessionId: string, now: number, recovery: Recovery): void {
    this.sessionId = sessionId;
    this.sendings += 1;
    this.retryAt = null;
    this.resendAt = null;
    if (recovery.resendAfterMs !== null && this.mayRetry(recovery)) {
      const resendAt = now + (recovery.resendAfterMs / 1000) * 2 ** this.silences;
      if (resendAt < this.deadline) this.resendAt = resendAt;
    }
  }

  /** The time of the next sending, or null if none is planned. */
  get due(): number | null {
    return this.retryAt ?? this.resendAt;
  }
}
