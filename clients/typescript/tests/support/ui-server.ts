/** `backtestr ui` as a process of its own, and the WebSockets of a browser that has opened its link. */

import { type ChildProcess, spawn } from "node:child_process";
import { type Broker, PYTHON, ROOT, until } from "./broker.js";

const STOP_MS = 10_000;

/** A server of the app, for the broker of a test. */
export interface UiServer {
  /** The address of its tunnel. */
  readonly url: string;
  /** Ends it as Ctrl-C does, and takes the browser's cookie away again. */
  readonly close: () => Promise<void>;
}

/** Starts a server, opens its link, and has every WebSocket send what a browser would: its origin and the cookie. */
export async function startUi(broker: Broker): Promise<UiServer> {
  const server = spawn(PYTHON, ["-m", "backtestr", "ui", "--no-browser"], {
    cwd: ROOT,
    env: broker.environment,
    stdio: ["ignore", "pipe", "inherit"],
  });
  let printed = "";
  server.stdout.setEncoding("utf8").on("data", (text: string) => {
    printed += text;
  });
  const link = new URL(await until(() => /http:\S+token=\S+/.exec(printed)?.[0], "the link"));
  const answer = await fetch(link, { redirect: "manual" });
  const cookie = answer.headers.get("set-cookie")?.split(";")[0];
  if (cookie === undefined) throw new Error(`the link was refused (${answer.status})`);
  const before = globalThis.WebSocket;
  globalThis.WebSocket = ofABrowser(before, { origin: link.origin, cookie });
  return {
    url: `ws://${link.host}/tunnel`,
    close: async () => {
      globalThis.WebSocket = before;
      await end(server);
    },
  };
}

/** Returns a WebSocket that sends these headers; Node's takes them in the place of the subprotocols. */
function ofABrowser(Plain: typeof WebSocket, headers: Record<string, string>): typeof WebSocket {
  return class extends Plain {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(url, { protocols, headers } as unknown as string[]);
    }
  };
}

async function end(server: ChildProcess): Promise<void> {
  server.kill("SIGINT");
  await until(() => server.exitCode !== null || server.signalCode !== null, "the end of the server", STOP_MS);
  if (server.exitCode !== 0) throw new Error(`the server ended with ${server.exitCode ?? server.signalCode}`);
}
