/** The request of a sweep from what was typed, with the reasons why it cannot be sent yet. Pure. */

import type { AlgorithmInfo, ParameterInfo, SeriesInfo, StartSweep } from "@backtestr/client/page";
import { METRIC_DEFINITIONS, type MetricDefinition } from "@backtestr/client/page";
import { parseNumber } from "../../format/numbers";
import { algorithmOf, build, draftOf, type FieldErrors, parameterValue, refusalOf } from "../run/run-config";
import type { RunDraft } from "../run/run-draft";
import { type AxisDraft, EMPTY_SWEEP, type SweepDraft } from "./sweep-draft";

export type AxisKind = "fixed" | "range" | "list" | "uniform" | "log_uniform";
/** A request without the id of the sweep. */
export type SweepRequest = Omit<StartSweep, "sweepId" | "dryRun">;

export interface BuiltSweep {
  /** Absent while there are errors. */
  readonly request?: SweepRequest;
  readonly errors: FieldErrors;
  /** The number of values of each swept parameter, as far as they can be read. */
  readonly counts: { readonly [parameter: string]: number };
}

/** The values that the form suggests for a parameter: fixed, or a range around its default. */
export type Suggested = Pick<AxisDraft, "kind" | "low" | "high" | "step">;

/** The parameters of an algorithm that the form suggests to sweep. */
const SUGGESTED = 2;
const SUGGESTED_VALUES = 10;

/** Returns the suggestion for each parameter: ranges of the first two numbers, from half to twice the default. */
export function suggestedSpace(info: AlgorithmInfo): { readonly [parameter: string]: Suggested } {
  let swept = 0;
  return Object.fromEntries(
    info.parameters.map((parameter) => {
      const range = suggestedRange(parameter);
      const isSwept = range !== undefined && swept < SUGGESTED;
      if (isSwept) swept += 1;
      return [parameter.name, { ...(range ?? { low: "", high: "", step: "" }), kind: isSwept ? "range" : "fixed" }];
    }),
  );
}

function suggestedRange({ type, default: initial, low, high }: ParameterInfo): Omit<Suggested, "kind"> | undefined {
  if ((type !== "int" && type !== "float") || typeof initial !== "number") return undefined;
  const around = initial === 0 ? [low ?? -1, high ?? 1] : [initial / 2, 2 * initial].sort((one, other) => one - other);
  const plain = (value: number): number => (type === "int" ? Math.round(value) : Number(value.toPrecision(3)));
  const from = Math.max(low ?? -Infinity, plain(around[0] as number));
  const to = Math.min(high ?? Infinity, plain(around[1] as number));
  if (!(to > from)) return undefined;
  const step = roundStep((to - from) / SUGGESTED_VALUES);
  return { low: String(from), high: String(to), step: String(type === "int" ? Math.max(1, Math.round(step)) : step) };
}

/** Returns the next 1, 2 or 5 of a power of ten. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return Number((([1, 2, 5].find((one) => one * power >= 0.999 * least) ?? 10) * power).toPrecision(3));
}

/** Returns the kind of a parameter's values. */
export function kindOf(axis: Partial<AxisDraft> | undefined, suggested: Suggested | undefined): AxisKind {
  return (axis?.kind || suggested?.kind || "fixed") as AxisKind;
}

/** Builds the request of both drafts. The broker checks it once more, and decides. */
export function buildSweep(
  run: RunDraft,
  sweep: SweepDraft,
  algorithms: readonly AlgorithmInfo[],
  series: readonly SeriesInfo[],
): BuiltSweep {
  const info = algorithmOf(run, algorithms);
  const errors: { [field: string]: string } = {};
  const counts: { [parameter: string]: number } = {};
  const space = info === undefined ? {} : spaceOf(info, sweep, errors, counts);
  const swept = new Set(
    info?.parameters.map((one) => one.name).filter((name) => name in space || `space.${name}` in errors),
  );
  const built = build({ ...run, pace: "" }, algorithms, series, swept);
  Object.assign(errors, built.errors);
  if (info !== undefined && swept.size === 0)
    errors.space = "Choose a parameter to sweep: give it a range or a list of values.";
  const isGrid = sweep.method === "grid";
  const trials = whole(isGrid ? "" : sweep.trials, "trials", 1, errors);
  const seed = whole(isGrid ? "" : sweep.seed, "seed", 0, errors);
  const batchSize = whole(isGrid || sweep.method === "random" ? "" : sweep.batchSize, "batchSize", 1, errors);
  if (built.config === undefined || Object.keys(errors).length > 0) return { errors, counts };
  const where = sweep.where.trim();
  return {
    errors,
    counts,
    request: {
      config: built.config,
      space,
      method: sweep.method as "grid",
      objective: sweep.objective,
      direction: sweep.direction as "maximize",
      ...(where === "" ? {} : { where }),
      ...(trials === undefined ? {} : { trials }),
      ...(seed === undefined ? {} : { seed }),
      ...(batchSize === undefined ? {} : { batchSize }),
      ...(sweep.metrics === "" ? {} : { metrics: [sweep.metrics] }),
    },
  };
}

type Errors = { [field: string]: string };

function spaceOf(info: AlgorithmInfo, sweep: SweepDraft, errors: Errors, counts: { [parameter: string]: number }) {
  const typed = sweep.space[info.name] ?? {};
  const suggested = suggestedSpace(info);
  const space: { [parameter: string]: unknown } = {};
  for (const parameter of info.parameters) {
    const { name } = parameter;
    const axis = { ...suggested[name], ...typed[name] };
    const kind = kindOf(typed[name], suggested[name]);
    const values =
      kind === "list"
        ? listOf(info, parameter, axis.list ?? "", errors)
        : kind === "fixed"
          ? undefined
          : rangeOf(info, parameter, axis, kind, errors);
    if (values === undefined) continue;
    space[name] = values.given;
    if (values.count !== undefined) counts[name] = values.count;
  }
  return space;
}

interface Values {
  readonly given: unknown;
  /** Undefined of a distribution: the broker counts it. */
  readonly count?: number;
}

function rangeOf(
  info: AlgorithmInfo,
  parameter: ParameterInfo,
  axis: Partial<AxisDraft>,
  kind: Exclude<AxisKind, "fixed" | "list">,
  errors: Errors,
): Values | undefined {
  const field = `space.${parameter.name}`;
  const texts = [axis.low ?? "", axis.high ?? "", axis.step ?? ""];
  const [low, high, step] = texts.map(parseNumber);
  for (const text of texts.slice(0, 2)) {
    if (parameterValue(parameter, text) === undefined) errors[field] = refusalOf(info, parameter, text);
  }
  if (errors[field] !== undefined || low === undefined || high === undefined) return undefined;
  if (high < low) errors[field] = `The range goes from its lower value up, not from ${low} to ${high}.`;
  else if (kind !== "range") return { given: { low, high, distribution: kind } };
  else if (step === undefined || step <= 0) errors[field] = "The step is a number above 0.";
  else if (parameter.type === "int" && !Number.isInteger(step)) errors[field] = "The step is a whole number.";
  else return { given: { low, high, step }, count: Math.floor((high - low) / step + 1e-9) + 1 };
  return undefined;
}

function listOf(info: AlgorithmInfo, parameter: ParameterInfo, text: string, errors: Errors): Values | undefined {
  const field = `space.${parameter.name}`;
  const words = text.split(parameter.type === "str" ? /,/ : /[,;\s]+/).map((one) => one.trim());
  const texts = words.filter((one) => one !== "");
  if (texts.length === 0) errors[field] = "Give at least one value; commas part them.";
  const values = texts.map((one) => parameterValue(parameter, one));
  const wrong = values.indexOf(undefined);
  if (wrong >= 0) errors[field] = refusalOf(info, parameter, texts[wrong] as string);
  const twice = values.findIndex((value, at) => values.indexOf(value) < at);
  if (twice >= 0) errors[field] ??= `${values[twice]} is there more than once.`;
  return errors[field] === undefined ? { given: values, count: values.length } : undefined;
}

function whole(text: string, field: string, least: number, errors: Errors): number | undefined {
  if (text.trim() === "") return undefined;
  const value = parseNumber(text);
  if (value === undefined || !Number.isInteger(value) || value < least) {
    errors[field] = `A whole number, ${least} or more.`;
    return undefined;
  }
  return value;
}

/** Returns a metric's name in Python, as tables and sweeps have it. */
export function pythonName(name: string): string {
  return name.replace(/[A-Z]|\d+/g, (part) => `_${part.toLowerCase()}`);
}

/** The metrics by their names in Python. */
export const METRICS: ReadonlyMap<string, MetricDefinition> = new Map(
  METRIC_DEFINITIONS.map((one) => [pythonName(one.name), one]),
);

/** Returns both drafts of a sweep's request, to be changed and started as another one. */
export function draftsOf(
  { config, space, where, method, trials, seed, batchSize, objective, direction, metrics }: StartSweep,
  algorithms: readonly AlgorithmInfo[],
  now: SweepDraft,
): { readonly run: RunDraft; readonly sweep: SweepDraft } {
  const run = draftOf({ ...config }, algorithms);
  const [name = ""] = config.algorithmId.split("@");
  const text = (value: unknown): string => (value === undefined || value === null ? "" : String(value));
  const axes = Object.entries(space).map(([parameter, given]): [string, Partial<AxisDraft>] => {
    if (typeof given === "object" && given !== null && !Array.isArray(given)) {
      const { low, high, step, distribution = "range" } = given as { [key: string]: unknown };
      return [parameter, { kind: text(distribution), low: text(low), high: text(high), step: text(step) }];
    }
    return [parameter, { kind: "list", list: (Array.isArray(given) ? given : [given]).map(text).join(", ") }];
  });
  const fixed =
    algorithms.find((one) => one.name === name)?.parameters.map((one) => [one.name, { kind: "fixed" }]) ?? [];
  return {
    run,
    sweep: {
      ...EMPTY_SWEEP,
      space: { ...now.space, [name]: Object.fromEntries([...fixed, ...axes]) },
      where: text(where),
      method: method ?? EMPTY_SWEEP.method,
      trials: text(trials),
      seed: seed ? text(seed) : "",
      batchSize: text(batchSize),
      objective: objective ?? EMPTY_SWEEP.objective,
      direction: direction ?? EMPTY_SWEEP.direction,
      metrics: (metrics ?? []).length === METRICS.size ? "all" : "",
    },
  };
}
