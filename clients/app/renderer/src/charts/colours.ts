/** The colours of charts, read once a theme: to ask the browser for them costs a layout. */

import { type ColourName, colour } from "../design/palette";
import { onColours } from "../design/theme";
import { withOpacity } from "./opacity";

const known = new Map<ColourName, string>();
// It is the first to hear of a change, before any chart draws again.
onColours(() => known.clear());

/** Returns a colour of the present theme. */
export function chartColour(name: ColourName): string {
  let found = known.get(name);
  if (found === undefined) {
    found = colour(name);
    known.set(name, found);
  }
  return found;
}

/** Returns a colour of the present theme with an opacity from 0 to 1. */
export function faint(name: ColourName, opacity: number): string {
  return withOpacity(chartColour(name), opacity);
}
