/**
 * The encrypted handshakes of one link, and the verdict that follows from each.
 *
 * ZeroMQ itself does not tell its user: with a wrong key it tries again without end, and after a denial it stops.
 */

import { AuthenticationError } from "./errors.js";
import type { HandshakeOutcome } from "./transport.js";

/** A handshake may fail because the broker ended during it, or was too busy to decide; so many in a row do not. */
export const MAX_FAILURES = 3;

/** `reconnected`: the connection for requests was lost and is there again. `lockedOut`: the broker refuses this client. */
export type HandshakeVerdict = "reconnected" | "lockedOut";

/** The handshakes of one link, with those of its streams. */
export class Handshakes {
  #failures = 0; // in a row
  #isAfterFirst = false;

  /** Takes in the outcome of a handshake. `ofRequests`: of the connection for requests, not of a stream's. */
  ended(outcome: HandshakeOutcome, ofRequests: boolean): HandshakeVerdict | null {
    if (outcome === "succeeded") {
      this.#failures = 0;
      if (!ofRequests) return null;
      const before = this.#isAfterFirst;
      this.#isAfterFirst = true;
      return before ? "reconnected" : null;
    }
    this.#failures = outcome === "denied" ? MAX_FAILURES : this.#failures + 1;
    if (this.#failures < MAX_FAILURES) return null;
    this.#failures = 0;
    this.#isAfterFirst = true; // a later success begins a new session
    return "lockedOut";
  }
}

/** Returns the error of a client with this key whose handshakes led to `lockedOut`. */
export function lockedOut(publicKey: string | null): AuthenticationError {
  return new AuthenticationError(
    "the broker does not let this client in: authentication or key mismatch likely. On the broker's machine " +
      `\`backtestr keys list\` says whose keys may connect; this client's is ${publicKey ?? "missing"}. ` +
      "`backtestr keys new NAME` makes one; the key in a connection file is accepted on the broker's machine alone. " +
      "Or the connection file is of another broker",
  );
}
