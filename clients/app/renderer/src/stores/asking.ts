/** Asks the broker about what is typed, once that has rested, and drops answers about anything older. */

import { NetworkError } from "@backtestr/client/page";
import { type Accessor, createEffect, createSignal, on, onCleanup } from "solid-js";

export type Verdict<Answer> =
  | { readonly kind: "none" }
  | { readonly kind: "asking" }
  | { readonly kind: "passed"; readonly answer: Answer }
  | { readonly kind: "refused"; readonly error: unknown };

/**
 * Asks whenever `asked` has become another value, `restMs` milliseconds after the last change; `keyOf` returns the part of
 * it that counts. Without a broker there is no verdict: the status bar says so.
 */
export function createAsking<Asked, Answer>(
  asked: Accessor<Asked | undefined>,
  keyOf: (asked: Asked) => unknown,
  ask: (asked: Asked) => Promise<Answer>,
  restMs: number,
): Accessor<Verdict<Answer>> {
  const [verdict, setVerdict] = createSignal<Verdict<Answer>>({ kind: "none" });
  let timer: ReturnType<typeof setTimeout> | undefined;
  let last = 0;

  async function askNow(value: Asked): Promise<void> {
    const number = last;
    setVerdict({ kind: "asking" });
    try {
      const answer = await ask(value);
      if (number === last) setVerdict({ kind: "passed", answer });
    } catch (error) {
      if (number === last) setVerdict(error instanceof NetworkError ? { kind: "none" } : { kind: "refused", error });
    }
  }
  createEffect(
    on(
      () => {
        const value = asked();
        return value === undefined ? undefined : JSON.stringify(keyOf(value));
      },
      () => {
        clearTimeout(timer);
        last += 1;
        const value = asked();
        if (value === undefined) setVerdict({ kind: "none" });
        else timer = setTimeout(() => void askNow(value), restMs);
      },
    ),
  );
  onCleanup(() => {
    clearTimeout(timer);
    last += 1;
  });
  return verdict;
}
