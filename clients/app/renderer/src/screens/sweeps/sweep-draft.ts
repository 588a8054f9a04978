/** Keeps what is typed on the form of a sweep beside the draft of the screen Run, which has all that both forms share. */

import type { Draft, DraftsStore } from "../../stores/drafts";

/** The values of one parameter as they are typed. An empty `kind` is what the form suggests. */
export interface AxisDraft {
  readonly kind: string;
  readonly low: string;
  readonly high: string;
  readonly step: string;
  readonly list: string;
}

export interface SweepDraft {
  /** By algorithm and parameter. */
  readonly space: { readonly [algorithm: string]: { readonly [parameter: string]: Partial<AxisDraft> } };
  readonly where: string;
  readonly method: string;
  readonly trials: string;
  readonly seed: string;
  readonly batchSize: string;
  readonly objective: string;
  readonly direction: string;
  /** `all` for every metric of each row, empty for the usual ones. */
  readonly metrics: string;
}

export const EMPTY_SWEEP: SweepDraft = {
  space: {},
  where: "",
  method: "grid",
  trials: "",
  seed: "",
  batchSize: "",
  objective: "sharpe_ratio",
  direction: "maximize",
  metrics: "",
};

/** Opens the draft of the sweep, which all pages share. */
export function openSweepDraft(drafts: DraftsStore): Draft<SweepDraft> {
  return drafts.open("sweep", EMPTY_SWEEP, checkedSweep);
}

/** Makes a whole draft of what was kept, by this version of the app or another; undefined where it is none. */
export function checkedSweep(kept: unknown): SweepDraft | undefined {
  if (!isMap(kept)) return undefined;
  const found: { [name: string]: unknown } = { ...EMPTY_SWEEP };
  for (const [name, initial] of Object.entries(EMPTY_SWEEP)) {
    if (typeof kept[name] === typeof initial && name !== "space") found[name] = kept[name];
  }
  found.space = mapped(kept.space, (own) => mapped(own, (axis) => mapped(axis, String)));
  return found as unknown as SweepDraft;
}

function mapped(given: unknown, make: (value: unknown) => unknown): { readonly [name: string]: unknown } {
  if (!isMap(given)) return {};
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, make(value)]));
}

function isMap(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
