/** The options of a sweep as the fields of its request. */

import { isMap, shown } from "./core/codec.js";
import type { StartSweep } from "./generated/contracts.js";
import type { SweepOptions } from "./options.js";
import { configFields } from "./request-fields.js";

/** Returns a sweep, without its id, as the wire has it. Raises a `RangeError` for a parameter without values. */
export function sweepFields(options: SweepOptions): StartSweep {
  const { space, where, method, trials, seed, batchSize } = options;
  const { objective, direction, metrics, blockSize, scheduler } = options;
  return {
    config: configFields(options),
    space: spaceFields(space),
    where,
    method,
    trials,
    seed,
    batchSize,
    objective,
    direction,
    metrics,
    blockSize,
    scheduler,
  };
}

function spaceFields(space: unknown): StartSweep["space"] {
  if (!isMap(space)) throw new TypeError(`space: expected values by parameter; ${shown(space)} came`);
  return Object.fromEntries(Object.entries(space).map(([name, values]) => [name, valuesField(name, values)]));
}

function valuesField(name: string, values: unknown): unknown {
  if (typeof values === "number" || typeof values === "string" || typeof values === "boolean") return [values];
  if (isIterable(values)) {
    const listed = [...values];
    if (listed.length > 0) return listed;
    throw new RangeError(`space.${name} is empty: give at least one value`);
  }
  if (!isMap(values)) {
    throw new TypeError(`space.${name}: expected a value, several, or { low, high, step }; ${shown(values)} came`);
  }
  const { low, high } = values;
  if (typeof low === "number" && typeof high === "number" && low > high) {
    throw new RangeError(`space.${name} has no value: it goes from low ${low} up to high ${high}; both are included`);
  }
  return values;
}

function isIterable(values: unknown): values is Iterable<unknown> {
  return typeof values === "object" && values !== null && Symbol.iterator in values;
}
