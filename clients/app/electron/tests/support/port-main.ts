/** A port of Electron's main process, over one of Node: it has `on`, and refuses buffers in its transfer list. */

import type { MessagePort } from "node:worker_threads";
import type { Port } from "@backtestr/client/page";

export function asPortMain(port: MessagePort): Port {
  return {
    postMessage: (message: unknown, list: readonly unknown[] = []) => {
      if (list.length > 0) throw new TypeError("Port at index 0 is not a valid port");
      port.postMessage(message);
    },
    on: (type, listener) => port.on(type, (data: unknown) => listener({ data })),
    off: () => undefined,
    start: () => port.start(),
    close: () => port.close(),
  };
}
