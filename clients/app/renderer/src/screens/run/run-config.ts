/** The request of a backtest from what was typed, with the reasons why it cannot be sent yet. */

import type { AlgorithmInfo, BacktestConfig, ParameterInfo, SeriesInfo } from "@backtestr/client/page";
import { BacktestrError } from "@backtestr/client/page";
import { parseNumber } from "../../format/numbers";
import { RUN_OPTIONS, type RunOption } from "./conventions";
import { EMPTY_DRAFT, type RunDraft } from "./run-draft";

/** The reasons by field: `algorithm`, `symbols`, `parameters.fast`, `options.stopLoss` … */
export type FieldErrors = { readonly [field: string]: string };

/** A configuration without an id. */
export type Config = Omit<BacktestConfig, "backtestId">;

export interface Built {
  /** Absent while there are errors. */
  readonly config?: Config;
  readonly errors: FieldErrors;
}

/** Returns the algorithm that a draft names: by its id, or the one of that name. */
export function algorithmOf(draft: RunDraft, algorithms: readonly AlgorithmInfo[]): AlgorithmInfo | undefined {
  return algorithms.find((one) => one.algorithmId === draft.algorithm || one.name === draft.algorithm);
}

/** Builds the request of a draft, without the parameters that are swept. The broker checks it once more, and decides. */
export function build(
  draft: RunDraft,
  algorithms: readonly AlgorithmInfo[],
  series: readonly SeriesInfo[],
  swept: ReadonlySet<string> = new Set(),
): Built {
  const errors: { [field: string]: string } = {};
  const info = algorithmOf(draft, algorithms);
  if (draft.algorithm === "") errors.algorithm = "Choose an algorithm.";
  else if (info === undefined) errors.algorithm = `There is no algorithm ${draft.algorithm}.`;
  checkSymbols(draft, series, errors);
  const start = checkTime(draft.start, "start", errors);
  const end = checkTime(draft.end, "end", errors);
  if (start !== undefined && end !== undefined && start >= end) {
    errors.end = "The end, which is exclusive, must be after the start.";
  }
  const initialCapital = number(draft.capital, "capital", errors, { needed: "An amount of money above 0." });
  if (initialCapital !== undefined && initialCapital <= 0) errors.capital = "An amount of money above 0.";
  const commission = percent(draft.commission, "commission", errors);
  const slippage = percent(draft.slippage, "slippage", errors);
  const warmup = number(draft.warmup, "warmup", errors);
  if (warmup !== undefined && !(Number.isInteger(warmup) && warmup >= 0)) {
    errors.warmup = "A whole number of bars, 0 or more.";
  }
  const parameters = info === undefined ? {} : checkParameters(info, draft, swept, errors);
  const options = checkOptions(draft, errors);
  if (Object.keys(errors).length > 0) return { errors };
  const [symbol] = draft.symbols;
  return {
    errors,
    config: {
      algorithmId: draft.algorithm,
      ...(draft.symbols.length > 1 ? { symbols: draft.symbols } : { symbol: symbol as string }),
      timeframe: draft.timeframe.trim(),
      ...(draft.start.trim() === "" ? {} : { startDate: draft.start.trim() }),
      ...(draft.end.trim() === "" ? {} : { endDate: draft.end.trim() }),
      ...(draft.price === "" ? {} : { price: draft.price as "mid" }),
      initialCapital: initialCapital as number,
      commission: commission ?? 0,
      slippage: slippage ?? 0,
      parameters,
      options,
      ...(warmup === undefined ? {} : { warmup }),
    },
  };
}

type Errors = { [field: string]: string };

function checkSymbols(draft: RunDraft, series: readonly SeriesInfo[], errors: Errors): void {
  const known = new Set(series.map((one) => one.symbol));
  const unknown = draft.symbols.find((one) => !known.has(one));
  if (draft.symbols.length === 0) errors.symbols = "Choose a symbol.";
  else if (unknown !== undefined) errors.symbols = `There is no series of ${unknown}; import it on the screen Data.`;
  else if (new Set(draft.symbols).size < draft.symbols.length) errors.symbols = "A symbol is named more than once.";
  const timeframe = draft.timeframe.trim();
  if (timeframe === "") errors.timeframe = "Choose a timeframe.";
  else if (!/^[1-9]\d*[smhdwM]$/.test(timeframe)) errors.timeframe = "A number and a unit: 30s 5m 2h 1d 1w 1M.";
}

/** Returns milliseconds since 1970 of ISO 8601; a time without an offset is UTC, as for the broker. */
export function timeOf(text: string): number | undefined {
  const trimmed = text.trim();
  const match = /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)(Z|[+-]\d{2}:?\d{2})?)?$/.exec(trimmed);
  if (match === null) return undefined;
  const at = Date.parse(`${match[1]}T${match[2] ?? "00:00"}${match[3] ?? "Z"}`);
  // Date.parse takes 2024-02-31 for a day of March.
  return Number.isNaN(at) || (match[3] === undefined && !new Date(at).toISOString().startsWith(match[1] ?? ""))
    ? undefined
    : at;
}

function checkTime(text: string, field: "start" | "end", errors: Errors): number | undefined {
  if (text.trim() === "") return undefined;
  const at = timeOf(text);
  if (at === undefined) errors[field] = "An ISO 8601 date or time such as 2022-01-03 or 2022-01-03T09:30:00Z.";
  return at;
}

function number(text: string, field: string, errors: Errors, options: { needed?: string } = {}): number | undefined {
  if (text.trim() === "") {
    if (options.needed !== undefined) errors[field] = options.needed;
    return undefined;
  }
  const value = parseNumber(text);
  if (value === undefined) errors[field] = `“${text}” is no number.`;
  return value;
}

/** Returns the fraction of a text in percent. */
export function fractionOf(text: string): number | undefined {
  const value = parseNumber(text);
  return value === undefined ? undefined : Number((value / 100).toPrecision(15));
}

function percent(text: string, field: string, errors: Errors): number | undefined {
  if (text.trim() === "") return undefined;
  const value = fractionOf(text);
  if (value === undefined) errors[field] = `“${text}” is no number.`;
  else if (!(value >= 0 && value < 1)) errors[field] = "A percentage from 0 up to, but not including, 100.";
  return value;
}

/** Says a parameter's bounds as the broker does. */
export function boundsOf(parameter: ParameterInfo): string {
  if (parameter.type === "bool") return "true or false";
  return `${parameter.low ?? "−∞"}..${parameter.high ?? "∞"}`;
}

function checkParameters(
  info: AlgorithmInfo,
  draft: RunDraft,
  swept: ReadonlySet<string>,
  errors: Errors,
): { [name: string]: unknown } {
  const typed = draft.parameters[info.name] ?? {};
  const values: { [name: string]: unknown } = {};
  const given: { [name: string]: unknown } = {};
  for (const parameter of info.parameters) {
    if (swept.has(parameter.name)) continue;
    const text = typed[parameter.name]?.trim() ?? "";
    values[parameter.name] = parameter.default;
    if (text === "") continue;
    const value = parameterValue(parameter, text);
    if (value === undefined) errors[`parameters.${parameter.name}`] = refusalOf(info, parameter, text);
    else {
      values[parameter.name] = value;
      given[parameter.name] = value;
    }
  }
  for (const relation of info.requires ?? []) checkRelation(info, relation, values, errors);
  return given;
}

/** Says as the broker does that a text is no value of a parameter. */
export function refusalOf(info: AlgorithmInfo, parameter: ParameterInfo, text: string): string {
  const kind = { int: "a whole number within ", float: "a number within ", bool: "", str: "a text" }[parameter.type];
  return `parameter '${parameter.name}' of ${info.name} must be ${kind}${boundsOf(parameter)}, not '${text}'`;
}

/** Returns the value that a text means; undefined where it is none, or out of bounds. */
export function parameterValue(parameter: ParameterInfo, text: string): unknown {
  if (parameter.type === "str") return text;
  if (parameter.type === "bool") return { true: true, false: false }[text];
  const value = parseNumber(text);
  if (value === undefined || (parameter.type === "int" && !Number.isInteger(value))) return undefined;
  const within = value >= (parameter.low ?? -Infinity) && value <= (parameter.high ?? Infinity);
  return within ? value : undefined;
}

const RELATIONS: { readonly [relation: string]: (left: number, right: number) => boolean } = {
  "<": (left, right) => left < right,
  "<=": (left, right) => left <= right,
  ">": (left, right) => left > right,
  ">=": (left, right) => left >= right,
  "!=": (left, right) => left !== right,
};

function checkRelation(info: AlgorithmInfo, text: string, values: { [name: string]: unknown }, errors: Errors): void {
  const [left = "", sign = "", right = ""] = text.split(" ");
  const holds = RELATIONS[sign];
  const [one, other] = [values[left], values[right]];
  if (holds === undefined || typeof one !== "number" || typeof other !== "number" || holds(one, other)) return;
  const said = `${info.name} requires ${text}; ${left} is ${one} and ${right} is ${other}`;
  for (const name of [left, right]) errors[`parameters.${name}`] ??= said;
}

function checkOptions(draft: RunDraft, errors: Errors): { [name: string]: unknown } {
  const options: { [name: string]: unknown } = {};
  if (draft.preset !== "") options.preset = draft.preset;
  for (const option of RUN_OPTIONS) {
    const text = draft.options[option.name]?.trim() ?? "";
    if (text === "") continue;
    const value = optionValue(option, text);
    if (value === undefined) errors[`options.${option.name}`] = `Expected ${expected(option)}, not “${text}”.`;
    else options[option.name] = value;
  }
  const sized = options.size !== undefined && options.size !== "all_in";
  if (sized && options.sizeValue === undefined) errors["options.sizeValue"] ??= `Size ${options.size} needs a value.`;
  if (!sized) delete options.sizeValue; // it says how much of another size than all in
  const pace = number(draft.pace, "pace", errors);
  if (pace !== undefined) {
    if (pace < 0.01 || pace > 1_000_000) errors.pace = "Bars a second, from 0.01 to 1,000,000.";
    options.pace = pace;
    // A paced backtest is watched bar by bar.
    if (draft.publishPrices) options.streams = { prices: true, columns: true };
  }
  return options;
}

function optionValue(option: RunOption, text: string): unknown {
  if (option.kind === "switch") return { true: true, false: false }[text];
  if (option.kind === "choice") return option.choices?.some(([value]) => value === text) === true ? text : undefined;
  const value = option.kind === "percent" ? fractionOf(text) : parseNumber(text);
  if (value === undefined || (option.kind === "whole" && !Number.isInteger(value))) return undefined;
  const { low = -Infinity, high = Infinity, below = Infinity } = option;
  return value >= low && value <= high && value < below ? value : undefined;
}

function expected(option: RunOption): string {
  const scale = option.kind === "percent" ? 100 : 1;
  const unit = option.kind === "percent" ? " %" : "";
  const kind = option.kind === "whole" ? "a whole number" : "a number";
  const least = option.low === undefined ? "" : ` from ${scale * option.low}`;
  if (option.below !== undefined) return `${kind}${least} up to, but not including, ${scale * option.below}${unit}`;
  return option.high === undefined
    ? `${kind}${least}${option.low === undefined ? "" : `${unit} up`}`
    : `${kind}${least} to ${scale * option.high}${unit}`;
}

// The fields of the form by those of the request.
const FIELDS: { readonly [path: string]: string } = {
  algorithmId: "algorithm",
  symbol: "symbols",
  startDate: "start",
  endDate: "end",
  initialCapital: "capital",
  "options.preset": "preset",
  "options.pace": "pace",
};

/** Returns the fields that an error of the broker is about, by its paths such as `$.parameters.fast`. */
export function fieldsOf(error: unknown): readonly string[] {
  if (!(error instanceof BacktestrError)) return [];
  const { path, paths } = (error.details ?? {}) as { path?: unknown; paths?: unknown };
  const all = [path, ...(Array.isArray(paths) ? paths : [])].filter((one) => typeof one === "string");
  return all.map((one) => {
    const name = one.replace(/^\$\.?(config\.)?/, ""); // that of a sweep is a part of its request
    return FIELDS[name] ?? name;
  });
}

/** Returns the draft of a configuration, such as that of a result, in which every option has a value. */
export function draftOf(config: { readonly [name: string]: unknown }, algorithms: readonly AlgorithmInfo[]): RunDraft {
  const text = (value: unknown): string => (value === undefined || value === null ? "" : String(value));
  const inPercent = (value: unknown): string =>
    Number(value) === 0 ? "" : text(Number((100 * Number(value)).toPrecision(12)));
  const algorithm = text(config.algorithmId);
  const [name = ""] = algorithm.split("@");
  const newest = algorithms.find((one) => one.name === name);
  const given = (config.options ?? {}) as { readonly [name: string]: unknown };
  const options = RUN_OPTIONS.flatMap((option): [string, string][] => {
    const value = given[option.name];
    if (value === undefined || (value === option.initial && given.preset === undefined)) return [];
    return [
      [option.name, option.kind === "percent" ? text(Number((100 * Number(value)).toPrecision(12))) : text(value)],
    ];
  });
  const parameters = Object.entries((config.parameters ?? {}) as object).map(([key, value]) => [key, text(value)]);
  const symbols = Array.isArray(config.symbols) && config.symbols.length > 0 ? config.symbols : [config.symbol];
  return {
    ...EMPTY_DRAFT,
    algorithm: newest === undefined || newest.algorithmId === algorithm ? name : algorithm,
    symbols: symbols.map(text),
    timeframe: text(config.timeframe),
    start: text(config.startDate),
    end: text(config.endDate),
    price: text(config.price),
    warmup: text(config.warmup),
    capital: text(config.initialCapital),
    commission: inPercent(config.commission),
    slippage: inPercent(config.slippage),
    preset: text(given.preset),
    pace: text(given.pace),
    parameters: { [name]: Object.fromEntries(parameters) },
    options: Object.fromEntries(options),
  };
}
