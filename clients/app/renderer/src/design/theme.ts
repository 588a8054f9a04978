/** The theme and contrast of the app: the system's, or those that were chosen, which are kept in this browser. */

import { createSignal } from "solid-js";

/** `system` follows the system. */
export type Theme = "system" | "light" | "dark";
/** `system` follows the system. */
export type Contrast = "system" | "normal" | "more";

export const THEMES: readonly Theme[] = ["system", "light", "dark"];
export const CONTRASTS: readonly Contrast[] = ["system", "normal", "more"];

const [theme, setThemeSignal] = createSignal<Theme>(kept("backtestr.theme", THEMES));
const [contrast, setContrastSignal] = createSignal<Contrast>(kept("backtestr.contrast", CONTRASTS));
const watchers = new Set<() => void>();

export { contrast, theme };

/** Chooses the theme. */
export function setTheme(value: Theme): void {
  setThemeSignal(value);
  keep("backtestr.theme", value);
  apply();
}

/** Chooses the contrast. */
export function setContrast(value: Contrast): void {
  setContrastSignal(value);
  keep("backtestr.contrast", value);
  apply();
}

/** Has the choices take effect, and watches those of the system. Called once, before the first paint. */
export function startTheme(): void {
  apply();
  for (const query of ["(prefers-color-scheme: dark)", "(prefers-contrast: more)"]) {
    window.matchMedia(query).addEventListener("change", changed);
  }
}

/** Calls `callback` whenever the colours have changed; returns what ends that. */
export function onColours(callback: () => void): () => void {
  watchers.add(callback);
  return () => watchers.delete(callback);
}

/** True where the system asks for less motion. */
export function reducedMotion(): boolean {
  return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}

function apply(): void {
  const { dataset } = document.documentElement;
  if (theme() === "system") delete dataset.theme;
  else dataset.theme = theme();
  if (contrast() === "system") delete dataset.contrast;
  else dataset.contrast = contrast();
  changed();
}

function changed(): void {
  for (const one of watchers) one();
}

function kept<Value extends string>(key: string, values: readonly Value[]): Value {
  const first = values[0] as Value;
  try {
    return values.find((one) => one === localStorage.getItem(key)) ?? first;
  } catch {
    return first; // the browser keeps nothing for this page
  }
}

function keep(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // It holds until the page is closed.
  }
}
