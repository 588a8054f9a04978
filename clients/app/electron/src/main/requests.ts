/** The requests of a window to the main process. Each checks that the app's own page has sent it. */

import { writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { PROTOCOL_VERSION, VERSION } from "@backtestr/client/page";
import type { IpcMain, IpcMainEvent, IpcMainInvokeEvent, MessagePortMain } from "electron";
import type { Answered } from "../../../renderer/src/host/electron-bridge";
import type { HostSession } from "../../../renderer/src/host/host";
import { CHANNELS } from "../channels";
import { isOwnPage } from "./page-address";

/** The requests of a window that the main process answers. */
export interface RequestParts {
  brokerMayBeStarted(): boolean;
  startBroker(): Promise<Answered<null>>;
  /** Asks the user where to save a file of this name; null where the user cancels. */
  chooseFile(name: string): Promise<string | null>;
  serveClient(port: MessagePortMain): void;
}

/** Bytes of a file that a window may have saved. */
export const MAX_SAVED = 2 ** 31;
const MAX_NAME = 200;

/** Answers the requests of windows. */
export function answerRequests(ipc: Pick<IpcMain, "handle" | "on">, parts: RequestParts): void {
  ipc.handle(CHANNELS.session, (event): Answered<HostSession> => {
    if (!isOurs(event)) return REFUSED;
    const brokerMayBeStarted = parts.brokerMayBeStarted();
    return {
      value: { version: VERSION, protocolVersion: PROTOCOL_VERSION, uploadLimitBytes: null, brokerMayBeStarted },
    };
  });
  ipc.handle(CHANNELS.startBroker, async (event): Promise<Answered<null>> => {
    return isOurs(event) ? parts.startBroker() : REFUSED;
  });
  ipc.handle(CHANNELS.save, async (event, name: unknown, bytes: unknown): Promise<Answered<boolean>> => {
    return isOurs(event) ? saved(name, bytes, parts) : REFUSED;
  });
  ipc.on(CHANNELS.client, (event) => {
    const [port] = event.ports;
    if (port === undefined) return;
    if (isOurs(event)) parts.serveClient(port);
    else port.close();
  });
}

/** Returns true for what the main frame of the app's own page has sent. */
function isOurs({ senderFrame }: IpcMainEvent | IpcMainInvokeEvent): boolean {
  return senderFrame !== null && senderFrame.parent === null && isOwnPage(senderFrame.url);
}

const REFUSED = { error: { code: "NOT_ALLOWED", message: "this is for the app's own page alone" } } as const;

async function saved(name: unknown, bytes: unknown, parts: RequestParts): Promise<Answered<boolean>> {
  if (typeof name !== "string" || !(bytes instanceof ArrayBuffer) || bytes.byteLength > MAX_SAVED) {
    return { error: { code: "NOT_ALLOWED", message: "save takes a name and up to 2 GiB" } };
  }
  const file = await parts.chooseFile(fileName(name));
  if (file === null) return { value: false };
  try {
    await writeFile(file, new Uint8Array(bytes));
  } catch (error) {
    return { error: { code: "NOT_SAVED", message: `${basename(file)} was not saved: ${(error as Error).message}` } };
  }
  return { value: true };
}

/** Returns a name without folders and without what systems do not take in names. */
export function fileName(name: string): string {
  const last = name.split(/[/\\]/).at(-1) ?? "";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  const clean = last.replace(/[\u0000-\u001f\u007f<>:"|?*]/g, "_").replace(/^\.+|[. ]+$/g, "");
  return clean.slice(0, MAX_NAME) || "backtestr";
}
