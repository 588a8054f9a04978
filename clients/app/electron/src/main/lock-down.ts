/** Forbids what no window and no page of the app may do, whatever its content. */

import { readFile } from "node:fs/promises";
import type { Protocol, Session, WebContents, WebPreferences } from "electron";
import { isOwnPage, mayHavePermission, mayLoad, SECURITY_HEADERS, servedFile } from "./page-address";

/** The preferences of the app's window, with its preload. Each says what Electron's own default is, too. */
export function webPreferences(preload: string, isPackaged: boolean): WebPreferences {
  return {
    preload,
    sandbox: true,
    contextIsolation: true,
    nodeIntegration: false,
    nodeIntegrationInWorker: false,
    nodeIntegrationInSubFrames: false,
    webviewTag: false,
    webSecurity: true,
    allowRunningInsecureContent: false,
    experimentalFeatures: false,
    navigateOnDragDrop: false,
    spellcheck: false, // it would fetch dictionaries
    devTools: !isPackaged,
  };
}

/** Keeps the contents of every window at the app's own page, and from opening others. */
export function lockDownContents(contents: WebContents): void {
  contents.setWindowOpenHandler(() => ({ action: "deny" }));
  for (const event of ["will-navigate", "will-frame-navigate", "will-redirect"] as const) {
    contents.on(event as "will-navigate", (details) => {
      if (!isOwnPage(details.url)) details.preventDefault();
    });
  }
  contents.on("will-attach-webview", (event) => event.preventDefault());
}

/** Denies permissions, downloads and everything of the network to the pages of a session. */
export function lockDownSession(session: Session): void {
  session.setPermissionRequestHandler((_contents, permission, answer, details) => {
    answer(mayHavePermission(permission, details.requestingUrl));
  });
  session.setPermissionCheckHandler((_contents, permission, origin) => mayHavePermission(permission, origin));
  session.setDevicePermissionHandler(() => false);
  session.on("will-download", (event) => event.preventDefault());
  session.webRequest.onBeforeRequest((details, answer) => answer({ cancel: !mayLoad(details.url) }));
}

/** Serves the files of the page from `folder`, with the headers of security. */
export function servePage(protocol: Pick<Protocol, "handle">, scheme: string, folder: string): void {
  protocol.handle(scheme, async (request) => {
    const found = request.method === "GET" ? servedFile(request.url, folder) : null;
    if (found === null) return new Response("there is nothing", { status: 404, headers: SECURITY_HEADERS });
    try {
      const content = await readFile(found.file);
      return new Response(new Uint8Array(content), { headers: { ...SECURITY_HEADERS, "content-type": found.type } });
    } catch {
      return new Response("there is nothing", { status: 404, headers: SECURITY_HEADERS });
    }
  });
}
