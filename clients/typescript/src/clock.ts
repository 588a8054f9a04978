/** Time, chance and ids as a client gets them, from the machine or from a test. */

/** A clock has all that a client takes from its machine. All durations and monotonic times are in seconds. */
export interface Clock {
  /** The monotonic time. */
  now(): number;
  /** Milliseconds since the Unix epoch. */
  wallMs(): number;
  /** A random number from 0 to 1. */
  random(): number;
  /** Calls `due` after `seconds`, once; returns what prevents that. */
  after(seconds: number, due: () => void): () => void;
  /** Resolves once timers and I/O had their turn. */
  turn(): Promise<void>;
  /** A new id of 32 hexadecimal characters. */
  newId(): string;
}

// setTimeout takes a 32-bit number of milliseconds, and fires at once for more.
const MAX_TIMEOUT_MS = 2_147_483_647;

/** Returns 16 random bytes as hexadecimal text. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Resolves in the next turn of the event loop: by setImmediate where there is one, else by a message to ourselves. */
export function nextTurn(): Promise<void> {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** The clock of this machine. */
export const systemClock: Clock = {
  now: () => performance.now() / 1000,
  wallMs: () => Date.now(),
  random: () => Math.random(),
  after: (seconds, due) => {
    const timer = setTimeout(due, Math.min(MAX_TIMEOUT_MS, Math.max(0, Math.ceil(seconds * 1000))));
    return () => clearTimeout(timer);
  },
  turn: nextTurn,
  newId: randomId,
};
