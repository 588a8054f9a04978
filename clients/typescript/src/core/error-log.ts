/** The error log keeps the latest errors of one client, and calls back for each. */

import { shown } from "./codec.js";
import { type BacktestrError, SEVERITIES, type Severity } from "./errors.js";
import { didYouMean } from "./near-miss.js";

/** Errors that are kept for later reading; older ones went to the callbacks. */
export const MAX_ERRORS = 100;

/**
 * An error and its subject: `about` is the type of a request, a topic, `connection`, `subscription` or `callback`.
 * `timestamp` is when the error was found, in milliseconds since the Unix epoch.
 */
export interface ErrorReport {
  readonly error: BacktestrError;
  readonly about: string;
  readonly timestamp: number;
  /** The actions that the client takes by itself, such as `reconnect`; empty where somebody else has to act. */
  readonly automatic: readonly string[];
}

/** Is called for an error. */
export type ErrorCallback = (report: ErrorReport) => void;

/** The latest errors of one client, and the callbacks for further ones. */
export class ErrorLog {
  /** The number of errors that were added, including those that are no longer kept; recoveries are not counted. */
  count = 0;
  readonly #actsByItself: boolean;
  // Each with its number. Recoveries are kept apart, so that a hundred of them do not push out an error.
  readonly #errors: (readonly [number, ErrorReport])[] = [];
  readonly #recoveries: (readonly [number, ErrorReport])[] = [];
  readonly #callbacks = new Map<number, readonly [ErrorCallback, number]>();
  #numbers = 0;

  /** `actsByItself`: the client takes automatic actions (`Recovery.automatic`). */
  constructor(actsByItself: boolean) {
    this.#actsByItself = actsByItself;
  }

  /** Returns the latest reports that are at least so severe, the oldest first; `Info` adds what was recovered. */
  latest(severity: Severity = "Warning"): ErrorReport[] {
    const least = rankOf(severity);
    const all = least === 0 ? [...this.#errors, ...this.#recoveries] : [...this.#errors];
    return all
      .sort(([one], [other]) => one - other)
      .map(([, report]) => report)
      .filter((one) => SEVERITIES.indexOf(one.error.severity) >= least);
  }

  /**
   * Keeps and counts an error, or keeps a recovery, and returns the callbacks that are to be called with the report.
   */
  add(error: BacktestrError, about: string, timestamp: number): [report: ErrorReport, callbacks: ErrorCallback[]] {
    const automatic = this.#actsByItself
      ? error.recoveryActions.filter((one) => one.automatic).map((one) => one.action)
      : [];
    const report: ErrorReport = { error, about, timestamp, automatic };
    const isRecovery = error.severity === "Info";
    const list = isRecovery ? this.#recoveries : this.#errors;
    if (!isRecovery) this.count += 1;
    this.#numbers += 1;
    list.push([this.#numbers, report]);
    if (list.length > MAX_ERRORS) list.shift();
    const rank = SEVERITIES.indexOf(error.severity);
    return [report, [...this.#callbacks.values()].filter(([, least]) => rank >= least).map(([callback]) => callback)];
  }

  /** Has `callback` called for every further error that is at least so severe; returns what ends that. */
  addCallback(callback: ErrorCallback, severity: Severity = "Warning"): () => void {
    if (typeof callback !== "function") throw new TypeError(`expected a function; ${shown(callback)} came`);
    const rank = rankOf(severity);
    this.#numbers += 1;
    const number = this.#numbers;
    this.#callbacks.set(number, [callback, rank]);
    return () => {
      this.#callbacks.delete(number);
    };
  }
}

/** Returns the place of a severity among all, the least severe first. Raises a `TypeError` for another text. */
function rankOf(severity: Severity): number {
  const rank = SEVERITIES.indexOf(severity);
  if (rank < 0) {
    const near = didYouMean(String(severity), SEVERITIES);
    throw new TypeError(`severity: expected one of ${SEVERITIES.join(", ")}; ${shown(severity)} came${near}`);
  }
  return rank;
}
