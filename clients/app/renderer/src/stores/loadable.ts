/** The state of data that a view shows: still waiting, failed, or there. */

/** `since` is in milliseconds since 1970. A value that is being read again stays shown. */
export type Loadable<Value> =
  | { readonly state: "waiting"; readonly what: string; readonly since: number }
  | { readonly state: "failed"; readonly what: string; readonly error: unknown }
  | { readonly state: "there"; readonly value: Value; readonly error?: unknown };

/** Returns the value where it is there. */
export function thereOf<Value>(loadable: Loadable<Value>): Value | undefined {
  return loadable.state === "there" ? loadable.value : undefined;
}

/** Returns the wait where the value is waited for. */
export function waitingOf<Value>(
  loadable: Loadable<Value>,
): Extract<Loadable<Value>, { state: "waiting" }> | undefined {
  return loadable.state === "waiting" ? loadable : undefined;
}

/** Returns the failure where there is no value. */
export function failedOf<Value>(loadable: Loadable<Value>): Extract<Loadable<Value>, { state: "failed" }> | undefined {
  return loadable.state === "failed" ? loadable : undefined;
}

/** Returns why the value that is shown may be old; undefined where it is not. */
export function staleOf<Value>(loadable: Loadable<Value>): unknown {
  return loadable.state === "there" ? loadable.error : undefined;
}
