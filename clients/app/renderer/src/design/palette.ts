/** The design's colours for canvases, which cannot read custom properties. */

/** The tokens that charts draw with. */
export type ColourName =
  | "canvas"
  | "surface"
  | "border"
  | "text"
  | "text-muted"
  | "text-faint"
  | "accent"
  | "gain"
  | "loss"
  | "gain-soft"
  | "loss-soft"
  | "warning"
  | "selected"
  | "grid"
  | "crosshair"
  | `series-${1 | 2 | 3 | 4 | 5 | 6 | 7 | 8}`;

let probe: HTMLElement | undefined;

/** Returns a colour of the present theme as `rgb(...)`. Read it again after `onColours` (design/theme.ts) has called. */
export function colour(name: ColourName): string {
  if (probe === undefined) {
    probe = document.createElement("i");
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
