/** The settings that the app keeps from one start to the next. */

import { readFileSync, renameSync, writeFileSync } from "node:fs";

/** The fate of a broker that the app has started, when the app quits. */
export type OnQuit = "ask" | "leave" | "stop";

export interface Settings {
  readonly onQuit: OnQuit;
}

const DEFAULTS: Settings = { onQuit: "ask" };

/** Returns the settings that a text has; whatever is not right in it is as it was at first. */
export function parsedSettings(text: string): Settings {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    return DEFAULTS;
  }
  const { onQuit } = (found ?? {}) as Partial<Settings>;
  return { onQuit: onQuit === "leave" || onQuit === "stop" ? onQuit : DEFAULTS.onQuit };
}

/** The settings in a file, which is written whole or not at all. */
export class SettingsFile {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  read(): Settings {
    try {
      return parsedSettings(readFileSync(this.#file, "utf8"));
    } catch {
      return DEFAULTS;
    }
  }

  write(settings: Settings): void {
    const draft = `${this.#file}.new`;
    writeFileSync(draft, JSON.stringify(settings), { mode: 0o600 });
    renameSync(draft, this.#file);
  }
}
