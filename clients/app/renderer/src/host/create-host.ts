import { ElectronHost } from "./electron-host";
import type { Host } from "./host";
import { type ClientWorker, PageHost } from "./page-host";

/** Makes the host that this renderer runs in; call it once. */
export function createHost(): Host {
  if (window.backtestr !== undefined) {
    return new ElectronHost(
      window.backtestr,
      (message, port) => window.postMessage(message, location.origin, [port]),
      (route) => {
        location.hash = route;
      },
    );
  }
  const worker = new Worker(new URL("../client-worker.ts", import.meta.url), {
    type: "module",
    name: "backtestr client",
  });
  return new PageHost(worker as unknown as ClientWorker);
}
