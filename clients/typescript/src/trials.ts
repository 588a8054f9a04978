/** The ledger of trials: how many combinations of an algorithm were ever run on the same bars. */

import type { Context } from "./context.js";
import type { TrialGroup } from "./generated/contracts.js";

/** Returns the trials of a group; null where it has none yet, or where there is no group. */
export async function trialsOf(context: Context, group: string | undefined): Promise<TrialGroup | null> {
  if (group === undefined) return null;
  const { groups } = await context.answer("GetTrials", { group });
  return groups[0] ?? null;
}
