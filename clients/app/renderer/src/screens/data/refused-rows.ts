/** The places of a file that an import refused, and the lines of the file around them. */

import { BacktestrError } from "@backtestr/client/page";

/** A place that cannot be used. `line` counts from 1: lines of a text, rows of a table. */
export interface Place {
  readonly line: number;
  readonly column: string;
  /** The content of the cell, where the broker quotes it. */
  readonly text?: string;
  readonly reason: string;
}

/** All places of a refusal that the broker names, in the order of the file. */
export interface Refusal {
  readonly places: readonly Place[];
  /** True for a Parquet or Arrow file, whose rows are no lines. */
  readonly isTable: boolean;
  /** The rows that dropping would keep, and of how many, where the broker says so. */
  readonly kept?: { readonly kept: number; readonly rows: number };
}

/** The most places that are looked up in the file. */
const MOST = 12;

interface Details {
  readonly line?: unknown;
  readonly row?: unknown;
  readonly column?: unknown;
  readonly text?: unknown;
  readonly reason?: unknown;
  readonly first?: unknown;
  readonly faults?: unknown;
  readonly kept?: unknown;
  readonly rows?: unknown;
}

/** Reads the places from the details of a refusal; undefined where the error names none. */
export function refusalOf(error: unknown): Refusal | undefined {
  if (!(error instanceof BacktestrError) || error.details === null) return undefined;
  const details = error.details as Details;
  const isTable = typeof details.row === "number";
  const column = typeof details.column === "string" ? details.column : "";
  const places = [...fromFirst(details.first), ...fromFaults(details.faults, column)];
  const own = placeOf(details, column);
  if (places.length === 0 && own !== undefined) places.push(own);
  if (places.length === 0) return undefined;
  places.sort((one, other) => one.line - other.line);
  const { kept, rows } = details;
  const counts = typeof kept === "number" && typeof rows === "number" ? { kept: { kept, rows } } : {};
  return { places: places.slice(0, MOST), isTable, ...counts };
}

function placeOf(from: Details, column: string): Place | undefined {
  const line = typeof from.line === "number" ? from.line : from.row;
  if (typeof line !== "number") return undefined;
  const text = typeof from.text === "string" ? { text: from.text } : {};
  return {
    line,
    column: typeof from.column === "string" ? from.column : column,
    reason: String(from.reason ?? ""),
    ...text,
  };
}

function fromFirst(first: unknown): Place[] {
  if (!Array.isArray(first)) return [];
  return first.flatMap((one: unknown) =>
    typeof one === "object" && one !== null ? (placeOf(one as Details, "") ?? []) : [],
  );
}

function fromFaults(faults: unknown, column: string): Place[] {
  if (!Array.isArray(faults)) return [];
  return faults.flatMap((fault: { reason?: unknown; lines?: unknown; rows?: unknown }) => {
    const lines = fault.lines ?? fault.rows;
    const reason = String(fault.reason ?? "");
    // The broker names the column of the worst problem; the reasons of the others begin with theirs.
    const named = /^(open|high|low|close|volume|bid|ask|last|price|size)\b/.exec(reason)?.[1] ?? column;
    return Array.isArray(lines) ? lines.map((line) => ({ line: Number(line), column: named, reason })) : [];
  });
}

/** The symbols of a file that holds several, with the column that names them, as a refusal says. */
export interface SeveralSymbols {
  readonly column: string;
  readonly count: number;
  /** The first of them. */
  readonly values: readonly string[];
}

/** Returns what a refusal says of several symbols; undefined for another refusal. */
export function severalSymbolsOf(error: unknown): SeveralSymbols | undefined {
  if (!(error instanceof BacktestrError)) return undefined;
  const { path, column, count, values } = (error.details ?? {}) as { [name: string]: unknown };
  if (path !== "$.symbolColumn" || typeof column !== "string" || !Array.isArray(values)) return undefined;
  return { column, count: typeof count === "number" ? count : values.length, values: values.map(String) };
}

/** A line of a file around a refused place. */
export interface FileLine {
  readonly number: number;
  readonly text: string;
  readonly places: readonly Place[];
}

/** Characters of a line that are shown. */
const LONGEST = 2_000;

/**
 * Reads the lines around the places, `radius` before and behind each, and the first line, which mostly names the columns.
 * It reads no further than the last of them.
 */
export async function linesAround(
  chunks: AsyncIterable<string>,
  places: readonly Place[],
  radius = 2,
): Promise<FileLine[]> {
  const wanted = new Set<number>([1]);
  for (const { line } of places) {
    for (let number = Math.max(1, line - radius); number <= line + radius; number += 1) wanted.add(number);
  }
  const last = Math.max(...wanted);
  const found: FileLine[] = [];
  const take = (number: number, text: string): void => {
    if (!wanted.has(number)) return;
    const shown = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
    found.push({ number, text: shown.replace(/\r$/, ""), places: places.filter((one) => one.line === number) });
  };
  let number = 1;
  let rest = "";
  for await (const chunk of chunks) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      take(number, line);
      number += 1;
    }
    if (number > last) return found;
  }
  if (rest !== "") take(number, rest);
  return found;
}

/** Returns the part of a line that a place means: the quoted text, or the cell of its column; undefined for neither. */
export function partOf(line: string, header: string, place: Place): readonly [start: number, end: number] | undefined {
  if (place.text !== undefined && place.text !== "") {
    const at = line.indexOf(place.text);
    if (at >= 0) return [at, at + place.text.length];
  }
  const separator = [";", "\t", "|", ","].find((one) => header.includes(one)) ?? ",";
  const names = header.split(separator).map((one) =>
    one
      .trim()
      .replace(/^["<]|[">]$/g, "")
      .toLowerCase(),
  );
  const cell = names.indexOf(place.column.toLowerCase());
  if (cell < 0) return undefined;
  let start = 0;
  for (let passed = 0; passed < cell; passed += 1) {
    const next = line.indexOf(separator, start);
    if (next < 0) return undefined;
    start = next + 1;
  }
  const end = line.indexOf(separator, start);
  return [start, end < 0 ? line.length : end];
}

/** Reads a file as text, unpacked if it is gzip; undefined for other packed files and tables, which have no lines. */
export function textOf(file: File): AsyncIterable<string> | undefined {
  if (/\.(parquet|arrow|feather|zip)$/i.test(file.name)) return undefined;
  return decoded(file);
}

async function* decoded(file: File): AsyncGenerator<string, void, undefined> {
  const packed = /\.gz$/i.test(file.name);
  const bytes = packed ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  const mark = packed ? new Uint8Array() : new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const encoding = mark[0] === 0xff && mark[1] === 0xfe ? "utf-16le" : mark[0] === 0xfe ? "utf-16be" : "utf-8";
  const decoder = new TextDecoder(encoding);
  const reader = bytes.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield decoder.decode(value, { stream: true });
    }
    yield decoder.decode();
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
