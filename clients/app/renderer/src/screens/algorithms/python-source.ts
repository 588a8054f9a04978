/** The source of an algorithm: the names that it declares, and its lines at which an error was raised. */

import { BacktestrError } from "@backtestr/client/page";

/** Characters that a source may have; the broker refuses a longer one. */
export const MOST_CHARACTERS = 262_144;
/** Lines that are shown before and after one that failed. */
const AROUND = 3;

const DECLARED = /^@(?:\w+\.)*(?:algorithm|portfolio)\(\s*(["'])(.+?)\1/gm;
const FRAME = /File "([^"]+)", line (\d+)/g;

/** Returns the names that a source gives to `@algorithm` and `@portfolio`, each once and in order. */
export function declaredNames(source: string): readonly string[] {
  return [...new Set([...source.matchAll(DECLARED)].map(([, , name]) => name as string))];
}

/** The part of an error that is about the author's file. */
export interface FailedPlace {
  /** The lines of the file that were under way, the last of them where it was raised. */
  readonly lines: readonly number[];
  /** The error's own words, such as `NameError: name 'x' is not defined`. */
  readonly words: string;
  readonly traceback: string;
}

/** Returns where in the file `NAME.py` an error was raised; undefined if it does not say so. */
export function failedPlace(error: unknown, name: string): FailedPlace | undefined {
  const details = error instanceof BacktestrError ? error.details : detailsOf(error);
  if (typeof details?.traceback !== "string") return undefined;
  const place = placeIn(details.traceback, name);
  const stated = details.line;
  return place === undefined && typeof stated === "number"
    ? { lines: [stated], words: wordsOf(details.traceback), traceback: details.traceback }
    : place;
}

/** Returns where in the file `NAME.py` the error of a traceback was raised; undefined if the traceback has none of it. */
export function placeIn(traceback: string, name: string): FailedPlace | undefined {
  const lines = [...traceback.matchAll(FRAME)].flatMap(([, file = "", line]) =>
    isFile(file, name) ? [Number(line)] : [],
  );
  return lines.length === 0 ? undefined : { lines, words: wordsOf(traceback), traceback };
}

function wordsOf(traceback: string): string {
  return traceback.trimEnd().split("\n").at(-1) ?? "";
}

function detailsOf(error: unknown): { readonly [name: string]: unknown } | null | undefined {
  return (error as { readonly details?: { readonly [name: string]: unknown } | null } | null)?.details;
}

function isFile(path: string, name: string): boolean {
  const file = path.split(/[\\/]/).at(-1) ?? "";
  return file === `${name}.py` || file.startsWith(`${name}@`);
}

/** A line of a source; `failed` if it was under way, and `raised` if the error came from there. */
export interface SourceLine {
  readonly number: number;
  readonly text: string;
  readonly failed: boolean;
  readonly raised: boolean;
}

/** Returns the lines that failed, each with those around it, in order. */
export function excerpt(source: string, place: FailedPlace): readonly SourceLine[] {
  const all = source.split(/\r?\n/);
  const raised = place.lines.at(-1);
  const shown = new Set<number>();
  for (const line of place.lines) {
    for (let at = line - AROUND; at <= line + AROUND; at += 1) if (at >= 1 && at <= all.length) shown.add(at);
  }
  return [...shown]
    .sort((one, other) => one - other)
    .map((number) => ({
      number,
      text: all[number - 1] ?? "",
      failed: place.lines.includes(number),
      raised: number === raised,
    }));
}
