/** The way from an algorithm to the next backtest. */

import type { DraftsStore } from "../../stores/drafts";
import { openRunDraft } from "../run/run-draft";

/** Chooses an algorithm, by its name or the id of a version, for the next backtest. */
export function chooseAlgorithm(drafts: DraftsStore, algorithm: string): void {
  openRunDraft(drafts).change((now) => ({ ...now, algorithm }));
}
