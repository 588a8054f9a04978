/** The commands of the palette and the shortcuts, as data. */

import { CONTRASTS, setContrast, setTheme, THEMES } from "../design/theme";
import type { Route } from "../routes";

export interface Command {
  readonly id: string;
  readonly title: string;
  /** The keys that run it, such as `g d`: pressed one after the other. */
  readonly keys?: string | undefined;
  run(): void;
}

/** A screen of the navigation. */
export interface Place {
  readonly name: "data" | "run" | "runs" | "sweeps" | "compare" | "algorithms" | "state" | "topics";
  readonly title: string;
  readonly keys: string;
  readonly route: Route;
}

/** The screens, in the order of the navigation. */
export const PLACES: readonly Place[] = [
  { name: "data", title: "Data", keys: "g d", route: { screen: "data" } },
  { name: "run", title: "Run", keys: "g r", route: { screen: "run" } },
  { name: "runs", title: "Results", keys: "g l", route: { screen: "runs" } },
  { name: "sweeps", title: "Sweeps", keys: "g w", route: { screen: "sweeps" } },
  { name: "compare", title: "Compare", keys: "g c", route: { screen: "compare", ids: [] } },
  { name: "algorithms", title: "Algorithms", keys: "g a", route: { screen: "algorithms" } },
  { name: "state", title: "Shared state", keys: "g s", route: { screen: "state" } },
  { name: "topics", title: "Topics", keys: "g t", route: { screen: "topics" } },
];

/** The commands that are there on every screen. */
export function generalCommands(go: (route: Route) => void): readonly Command[] {
  return [
    ...PLACES.map((one) => ({
      id: `go-${one.name}`,
      title: `Go to ${one.title}`,
      keys: one.keys,
      run: () => go(one.route),
    })),
    { id: "new-sweep", title: "New sweep: many combinations of parameters", run: () => go({ screen: "sweep" }) },
    ...THEMES.map((one) => ({
      id: `theme-${one}`,
      title: one === "system" ? "Theme: as the system" : `Theme: ${one}`,
      run: () => setTheme(one),
    })),
    ...CONTRASTS.map((one) => ({
      id: `contrast-${one}`,
      title: one === "system" ? "Contrast: as the system" : `Contrast: ${one}`,
      run: () => setContrast(one),
    })),
  ];
}

/** Returns the commands whose words contain all words typed, those that begin so first. */
export function matching(commands: readonly Command[], typed: string): readonly Command[] {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const ranked = commands.flatMap((command) => {
    const title = command.title.toLowerCase();
    if (!words.every((word) => title.includes(word))) return [];
    const begins = words.filter((word) => title.startsWith(word) || title.includes(` ${word}`)).length;
    return [{ command, begins }];
  });
  return ranked.sort((one, other) => other.begins - one.begins).map((one) => one.command);
}

/** Reads keys that are pressed one after the other, each within a second of the one before. */
export class KeySequence {
  readonly #withinMs: number;
  #keys: readonly string[] = [];
  #at = Number.NEGATIVE_INFINITY;

  constructor(withinMs = 1_000) {
    this.#withinMs = withinMs;
  }

  /** Returns the command that `key` completes at the time `now` in milliseconds, if one. */
  press(key: string, now: number, commands: readonly Command[]): Command | undefined {
    const before = now - this.#at > this.#withinMs ? [] : this.#keys;
    this.#at = now;
    for (const pressed of [[...before, key], [key]]) {
      const text = pressed.join(" ");
      const whole = commands.find((one) => one.keys === text);
      if (whole !== undefined) {
        this.#keys = [];
        return whole;
      }
      if (commands.some((one) => one.keys?.startsWith(`${text} `))) {
        this.#keys = pressed;
        return undefined;
      }
    }
    this.#keys = [];
    return undefined;
  }
}
