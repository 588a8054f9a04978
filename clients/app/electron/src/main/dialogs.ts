/** The questions that the app asks in dialogs of the system. */

import type { BrowserWindow, Dialog } from "electron";
import type { OnQuit } from "./settings";

/** An answer to what becomes of the broker, and whether it counts from now on. */
export interface QuitAnswer {
  readonly choice: Exclude<OnQuit, "ask"> | null;
  readonly isRemembered: boolean;
}

const CHOICES = ["leave", "stop", null] as const;

/** Asks what becomes of the broker that this app has started. */
export async function askAboutBroker(dialog: Dialog, window: BrowserWindow | undefined): Promise<QuitAnswer> {
  const question = {
    type: "question" as const,
    message: "The broker that this app has started is running.",
    detail: "Left running, it goes on with its backtests, and notebooks stay connected to it.",
    buttons: ["Leave It Running", "Stop It", "Cancel"],
    defaultId: 0,
    cancelId: 2,
    noLink: true,
    checkboxLabel: "Do not ask again (menu Broker)",
    checkboxChecked: false,
  };
  const { response, checkboxChecked } = await (window === undefined
    ? dialog.showMessageBox(question)
    : dialog.showMessageBox(window, question));
  const choice = CHOICES[response] ?? null;
  return { choice, isRemembered: checkboxChecked && choice !== null };
}

/** Asks where to save a file. */
export async function chooseFile(
  dialog: Dialog,
  window: BrowserWindow | undefined,
  name: string,
): Promise<string | null> {
  const options = { defaultPath: name };
  const { canceled, filePath } = await (window === undefined
    ? dialog.showSaveDialog(options)
    : dialog.showSaveDialog(window, options));
  return canceled || filePath === "" ? null : filePath;
}
