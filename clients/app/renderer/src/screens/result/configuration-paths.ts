/** A configuration as a list of values. Pure. */

/** Returns every value of a configuration by its path, such as `options.fillAt`. */
export function flattened(
  config: Readonly<Record<string, unknown>>,
  path = "",
): readonly (readonly [string, string])[] {
  return Object.entries(config).flatMap(([name, value]) => {
    const at = path === "" ? name : `${path}.${name}`;
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      const inner = flattened(value as Record<string, unknown>, at);
      return inner.length === 0 ? [[at, "{}"] as const] : inner;
    }
    return [[at, typeof value === "string" ? value : JSON.stringify(value)] as const];
  });
}
