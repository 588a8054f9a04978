/**
 * Every error that can cross the wire, as a class by its code, and those that the client itself raises.
 *
 * Mistakes of the calling program itself (a function given a wrong type, a closed client used again) are `TypeError`,
 * `RangeError` and `ClosedError`, and are never sent.
 */

import type { ErrorData, RecoveryAction } from "../generated/contracts.js";
import { ERRORS } from "../generated/protocol.js";

/** The severity of an error, the least first in `SEVERITIES`. `Info` says that something has recovered. */
export type Severity = ErrorData["severity"];
/** The code of an error (PROTOCOL.md, section 5). */
export type ErrorCode = ErrorData["code"];
/** Facts about an error by name, such as `path` or `retryAfterMs`. */
export type Details = { readonly [name: string]: unknown };

/** All severities, the least severe first. */
export const SEVERITIES: readonly Severity[] = ["Info", "Warning", "Error", "Critical"];

/** An error of the broker, of the connection to it, or of what it was sent. */
export class BacktestrError extends Error {
  override readonly name: string = "BacktestrError";
  /** The code of the error; each code has its class. */
  readonly code: ErrorCode = "SYSTEM_ERROR";
  /** Further facts, null if there are none. */
  readonly details: Details | null;
  #severity: Severity | null = null;
  #advice: readonly RecoveryAction[] | null = null;

  /** `details` are further facts; `options.cause` is the error from which this one follows. */
  constructor(message: string, details: Details | null = null, options?: { cause?: unknown }) {
    super(message, options);
    this.details = details;
  }

  /** Its severity. */
  get severity(): Severity {
    return this.#severity ?? this.ownSeverity;
  }

  /** The actions that may help: those that the broker sent, else those of the code. */
  get recoveryActions(): readonly RecoveryAction[] {
    return this.#advice ?? this.ownAdvice;
  }

  /** True if the same request may succeed later without anybody changing anything. */
  get retriable(): boolean {
    return this.recoveryActions.some((one) => one.automatic);
  }

  protected get ownSeverity(): Severity {
    return ERRORS[this.code].severity;
  }

  protected get ownAdvice(): readonly RecoveryAction[] {
    return ERRORS[this.code].recoveryActions;
  }

  /** Returns this error with the severity and the actions that a peer has stated. */
  stated(data: ErrorData): this {
    this.#severity = data.severity;
    this.#advice = data.recoveryActions;
    return this;
  }

  /**
   * Returns the same error for one of its callers: with the stack of `origin`, which was made where the caller called.
   * One error may fail many requests, so each caller has its own.
   */
  at(origin: Error): BacktestrError {
    const Kind = this.constructor as new (
      message: string,
      details: Details | null,
      options?: { cause?: unknown },
    ) => BacktestrError;
    const copy = new Kind(this.message, this.details, "cause" in this ? { cause: this.cause } : undefined);
    copy.#severity = this.#severity;
    copy.#advice = this.#advice;
    const frames = (origin.stack ?? "").split("\n").slice(1).join("\n");
    Object.defineProperty(copy, "stack", {
      value: `${this.name}: ${this.message}\n${frames}`,
      writable: true,
      configurable: true,
    });
    return copy;
  }

  /** The error as a plain value, for a log or for another thread. */
  toJSON(): { [name: string]: unknown } {
    const { name, code, message, details, severity, recoveryActions, retriable } = this;
    return { name, code, message, details, severity, recoveryActions, retriable };
  }
}

/** A received message cannot be accepted; decoding hostile bytes raises this type and no other. */
export class MessageError extends BacktestrError {
  override readonly name: string = "MessageError";
}

/** Frames or MessagePack are not as PROTOCOL.md describes them. */
export class SerializationError extends MessageError {
  override readonly name: string = "SerializationError";
  override readonly code = "IPC_SERIALIZATION_ERROR";
}

/** The signature is wrong, or the right of the client's key does not include the request. */
export class AuthenticationError extends MessageError {
  override readonly name: string = "AuthenticationError";
  override readonly code = "AUTHENTICATION_ERROR";
}

/** A field is missing, ill-typed or out of range; `details.path` names it. */
export class ValidationError extends MessageError {
  override readonly name: string = "ValidationError";
  override readonly code = "VALIDATION_ERROR";
}

/** A request is larger than the broker takes. */
export class MessageTooLarge extends MessageError {
  override readonly name: string = "MessageTooLarge";
  override readonly code = "MESSAGE_TOO_LARGE";
}

/** The broker does not know the type of the request. */
export class UnsupportedCommand extends MessageError {
  override readonly name: string = "UnsupportedCommand";
  override readonly code = "UNSUPPORTED_COMMAND";
}

/** The broker and this client speak no common version. */
export class ProtocolVersionUnsupported extends MessageError {
  override readonly name: string = "ProtocolVersionUnsupported";
  override readonly code = "PROTOCOL_VERSION_UNSUPPORTED";
}

/** The client has no connection to a broker, or has lost it. */
export class NetworkError extends BacktestrError {
  override readonly name: string = "NetworkError";
  override readonly code = "IPC_NETWORK_ERROR";
}

/** There was no answer in time, or work took longer than it may. */
export class TimedOut extends BacktestrError {
  override readonly name: string = "TimedOut";
  override readonly code = "TIMEOUT";
}

/** The fields of a configuration contradict each other. */
export class InvalidConfiguration extends BacktestrError {
  override readonly name: string = "InvalidConfiguration";
  override readonly code = "INVALID_CONFIGURATION";
}

/** An algorithm has failed; `details.traceback` says where. */
export class AlgorithmError extends BacktestrError {
  override readonly name: string = "AlgorithmError";
  override readonly code = "ALGORITHM_ERROR";
}

/** There are no such data, or they cannot be read. */
export class DataError extends BacktestrError {
  override readonly name: string = "DataError";
  override readonly code = "DATA_ERROR";
}

/** The broker or the engine has a defect, or lacks memory or disk space. */
export class SystemFault extends BacktestrError {
  override readonly name: string = "SystemFault";
  override readonly code = "SYSTEM_ERROR";
}

/** A counter was used before, or a Hello was taken before. */
export class ReplayDetected extends BacktestrError {
  override readonly name: string = "ReplayDetected";
  override readonly code = "REPLAY_DETECTED";
}

/** The broker does not know the session. */
export class SessionUnknown extends BacktestrError {
  override readonly name: string = "SessionUnknown";
  override readonly code = "SESSION_UNKNOWN";
}

/** More requests came than the rate allows; `details.retryAfterMs` says when one is taken. */
export class RateLimitExceeded extends BacktestrError {
  override readonly name: string = "RateLimitExceeded";
  override readonly code = "RATE_LIMIT_EXCEEDED";
}

/** There is no such backtest, algorithm, price replay, key, topic or result. */
export class NotFound extends BacktestrError {
  override readonly name: string = "NotFound";
  override readonly code = "NOT_FOUND";
}

/** The state of a key, backtest, price replay or name forbids it. */
export class StateConflict extends BacktestrError {
  override readonly name: string = "StateConflict";
  override readonly code = "STATE_CONFLICT";
}

/** A bounded queue or table is full; `details.retryAfterMs` says when to try again. */
export class Busy extends BacktestrError {
  override readonly name: string = "Busy";
  override readonly code = "BUSY";
}

/** The offline queue is full: there is no broker, and this request was not sent. */
export class OfflineQueueFull extends NetworkError {
  override readonly name: string = "OfflineQueueFull";
}

/** The circuit breaker is open: this request was not sent. `details.retryAfterMs` says when one is tried. */
export class CircuitOpen extends NetworkError {
  override readonly name: string = "CircuitOpen";
}

/** Messages of a topic are lost, and the broker no longer retains them. */
export class MessagesLost extends NetworkError {
  override readonly name: string = "MessagesLost";
}

/** No error, but the end of one: the client is connected again, or has the messages that were missing. */
export class Recovered extends NetworkError {
  override readonly name: string = "Recovered";
  protected override get ownSeverity(): Severity {
    return "Info";
  }

  protected override get ownAdvice(): readonly RecoveryAction[] {
    return [];
  }
}

/** The program has closed the client, or the handle, that it uses. */
export class ClosedError extends Error {
  override readonly name = "ClosedError";
}

type ErrorClass = new (message: string, details?: Details | null, options?: { cause?: unknown }) => BacktestrError;

const BY_CODE: { readonly [code in ErrorCode]: ErrorClass } = {
  IPC_SERIALIZATION_ERROR: SerializationError,
  IPC_NETWORK_ERROR: NetworkError,
  TIMEOUT: TimedOut,
  VALIDATION_ERROR: ValidationError,
  INVALID_CONFIGURATION: InvalidConfiguration,
  ALGORITHM_ERROR: AlgorithmError,
  DATA_ERROR: DataError,
  SYSTEM_ERROR: SystemFault,
  AUTHENTICATION_ERROR: AuthenticationError,
  REPLAY_DETECTED: ReplayDetected,
  SESSION_UNKNOWN: SessionUnknown,
  PROTOCOL_VERSION_UNSUPPORTED: ProtocolVersionUnsupported,
  RATE_LIMIT_EXCEEDED: RateLimitExceeded,
  MESSAGE_TOO_LARGE: MessageTooLarge,
  NOT_FOUND: NotFound,
  STATE_CONFLICT: StateConflict,
  UNSUPPORTED_COMMAND: UnsupportedCommand,
  BUSY: Busy,
};

/** Returns the error that `data` describes. An unknown code, of a later broker, is a `SystemFault`. */
export function errorFromData(data: ErrorData): BacktestrError {
  const Kind = Object.hasOwn(BY_CODE, data.code) ? BY_CODE[data.code] : SystemFault;
  return new Kind(data.message, data.details).stated(data);
}
