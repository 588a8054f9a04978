/** The rows of the list of results: backtests that the broker knows, and stored results that it has only on disk. */

import type { BacktestStatus, Metrics, StoredResult } from "@backtestr/client/page";

/** The cells of a row beside the status, once they were read. */
export interface RunSummary {
  readonly config: { readonly [name: string]: unknown };
  readonly metrics: Metrics | null;
}

export interface RunRow {
  readonly id: string;
  readonly status: BacktestStatus["status"] | "stored";
  readonly algorithm: string;
  readonly symbols: readonly string[];
  /** When it was submitted, or stored where the broker does not know it any more; milliseconds since 1970. */
  readonly time: number;
  readonly progressPercent: number;
  readonly took: number | undefined;
  readonly pinned: boolean;
  /** On disk; undefined where nothing is stored. */
  readonly bytes: number | undefined;
  readonly failure: string | undefined;
}

/** Joins both lists, the latest first. */
export function joinRows(known: readonly BacktestStatus[], stored: readonly StoredResult[]): readonly RunRow[] {
  const onDisk = new Map(stored.map((one) => [one.backtestId, one]));
  const rows = known.map((one): RunRow => {
    const result = onDisk.get(one.backtestId);
    onDisk.delete(one.backtestId);
    return {
      id: one.backtestId,
      status: one.status,
      algorithm: nameOf(one.algorithmId),
      symbols: one.symbols !== undefined && one.symbols.length > 0 ? one.symbols : [one.symbol],
      time: one.submitTime,
      progressPercent: one.progressPercent,
      took: one.startTime !== undefined && one.endTime !== undefined ? one.endTime - one.startTime : undefined,
      pinned: result?.pinned ?? false,
      bytes: result?.bytes,
      failure: one.error?.message,
    };
  });
  for (const one of onDisk.values()) {
    rows.push({
      id: one.backtestId,
      status: one.status ?? "stored",
      algorithm: "",
      symbols: [],
      time: one.storedTime,
      progressPercent: 100,
      took: undefined,
      pinned: one.pinned ?? false,
      bytes: one.bytes,
      failure: undefined,
    });
  }
  return rows.sort((one, other) => other.time - one.time);
}

/** Returns the algorithm and symbols of a row: of its status, or of its configuration where the broker has only that. */
export function subjectOf(
  row: RunRow,
  summary: RunSummary | undefined,
): { algorithm: string; symbols: readonly string[] } {
  if (row.algorithm !== "") return row;
  const {
    algorithmId = "",
    symbol = "",
    symbols = [],
  } = (summary?.config ?? {}) as {
    algorithmId?: string;
    symbol?: string;
    symbols?: readonly string[];
  };
  return { algorithm: nameOf(algorithmId), symbols: symbols.length > 0 ? symbols : symbol === "" ? [] : [symbol] };
}

/** Returns the places of the rows that have all words and the status. */
export function shownRows(
  rows: readonly RunRow[],
  summaryOf: (row: RunRow) => RunSummary | undefined,
  words: string,
  status: string,
): Uint32Array {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const places = rows.flatMap((row, place) => {
    if (status === "pinned" ? !row.pinned : status !== "" && row.status !== status) return [];
    const summary = wanted.length === 0 ? undefined : summaryOf(row);
    const { algorithm, symbols } = subjectOf(row, summary);
    const text = [row.id, row.status, algorithm, ...symbols, summary?.config.timeframe].join(" ").toLowerCase();
    return wanted.every((word) => text.includes(word)) ? [place] : [];
  });
  return Uint32Array.from(places);
}

function nameOf(algorithmId: string): string {
  return algorithmId.split("@")[0] ?? algorithmId;
}
