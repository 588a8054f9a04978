/** What a view has of the broker's data: still waiting, failed, or there. */

/** `since` is in milliseconds since 1970. A value that is being read again stays shown. */
export type Loadable<Value> =
  | { readonly state: "waiting"; readonly what: string; readonly since: number }
  | { readonly state: "failed"; readonly what: string; readonly error: unknown }
  | { readonly state: "there"; readonly value: Value; readonly error?: unknown };

/** Returns the value where it is there. */
export function thereOf<Value>(loadable: Loadable<Value>): Value | undefined {
  return loadable.state === "there" ? loadable.value : undefined;
}
