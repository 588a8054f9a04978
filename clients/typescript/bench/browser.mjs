/** What a browser does to be let in by `backtestr ui`: it opens a link, and sends the cookie with every WebSocket. */

import { connectWebSocket } from "@backtestr/client/page";

/** Opens a link, and returns a client through the tunnel. */
export async function connectThrough(address) {
  const link = new URL(address);
  const answer = await fetch(link, { redirect: "manual" });
  const cookie = answer.headers.get("set-cookie")?.split(";")[0];
  if (cookie === undefined) throw new Error(`the link was refused (${answer.status})`);
  const Plain = globalThis.WebSocket;
  globalThis.WebSocket = class extends Plain {
    constructor(url, protocols) {
      super(url, { protocols, headers: { origin: link.origin, cookie } });
    }
  };
  return connectWebSocket(`ws://${link.host}/tunnel`);
}
