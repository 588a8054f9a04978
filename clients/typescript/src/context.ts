/** The context that the handles of one client share: its driver, its clock, and its way to ask. */

import type { Clock } from "./clock.js";
import { checkRequest } from "./core/request-check.js";
import type { Driver } from "./driver.js";
import type { Requests } from "./generated/contracts.js";
import type { Turns } from "./turns.js";

/** The name of a request. */
export type RequestType = keyof Requests & string;

/** An answer with its attachments. */
export type Answer<Type extends RequestType> = readonly [
  data: Requests[Type]["answer"],
  attachments: readonly Uint8Array[],
];

/** Seconds within which the broker answers requests that read or write whole files. */
export const BULK_SECONDS = 600;

/** The handles of one client share this. */
export class Context {
  readonly driver: Driver;
  readonly clock: Clock;
  readonly turns: Turns;
  /** Seconds that ordinary requests may take. */
  readonly requestSeconds: number;
  /** Gives an exception of a function of the program to the client's errors. */
  readonly report: (error: unknown, about: string) => void;

  readonly #closing = new Set<() => void>();

  constructor(
    driver: Driver,
    clock: Clock,
    turns: Turns,
    requestSeconds: number,
    report: (error: unknown, about: string) => void,
  ) {
    this.driver = driver;
    this.clock = clock;
    this.turns = turns;
    this.requestSeconds = requestSeconds;
    this.report = report;
  }

  /** Has `close` called when the client is closed; returns what takes that back. */
  whenClosed(close: () => void): () => void {
    this.#closing.add(close);
    return () => {
      this.#closing.delete(close);
    };
  }

  /** Closes every handle that wants to know. */
  close(): void {
    for (const close of [...this.#closing]) close();
    this.#closing.clear();
  }

  /** Resolves after `seconds`, or once `sleep` is told to end by what is given to `cancellable`. */
  sleep(seconds: number, cancellable: Set<() => void>): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        cancel();
        cancellable.delete(end);
        resolve();
      };
      const cancel = this.clock.after(seconds, end);
      cancellable.add(end);
    });
  }

  /**
   * Sends a request, and returns its answer with the attachments. Raises a `TypeError` at once for data of a wrong type.
   * Errors have the stack of the caller.
   */
  ask<Type extends RequestType>(
    requestType: Type,
    data: Requests[Type]["data"],
    seconds = this.requestSeconds,
  ): Promise<Answer<Type>> {
    checkRequest(requestType, data);
    const origin = new Error(requestType);
    return this.driver.request(requestType, data, seconds, origin) as Promise<Answer<Type>>;
  }

  /** Sends a request, and returns its answer. */
  async answer<Type extends RequestType>(
    requestType: Type,
    data: Requests[Type]["data"],
    seconds?: number,
  ): Promise<Requests[Type]["answer"]> {
    const [answer] = await this.ask(requestType, data, seconds);
    return answer;
  }
}
