/** The example of the documentation, with a real broker and the parts of Electron that it uses made here. */

import { createHash } from "node:crypto";
import { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { MessageChannel } from "node:worker_threads";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { Broker } from "../../../typescript/tests/support/broker";

const EXAMPLE = resolve(import.meta.dirname, "../../../../examples/electron");
const texts = (file: string): string => readFileSync(join(EXAMPLE, file), "utf8");

const made = vi.hoisted(() => ({
  loaded: undefined as (() => void) | undefined,
  toClient: [] as unknown[][],
  toPage: [] as unknown[][],
  files: [] as string[],
}));

vi.mock("electron", () => ({
  app: {
    whenReady: async () => undefined,
    on: () => undefined,
    quit: () => undefined,
  },
  utilityProcess: {
    fork: (file: string) => {
      made.files.push(file);
      return { postMessage: (...args: unknown[]) => made.toClient.push(args) };
    },
  },
  MessageChannelMain: MessageChannel,
  BrowserWindow: class {
    readonly webContents = {
      on: (_event: string, listener: () => void) => {
        made.loaded = listener;
      },
      postMessage: (...args: unknown[]) => made.toPage.push(args),
    };
    loadFile(file: string): void {
      made.files.push(file);
    }
  },
}));

let broker: Broker;

beforeAll(async () => {
  broker = await Broker.started();
});

afterAll(() => broker.stop());

it("runs a backtest from its page, through its preload, its main process and its client", async () => {
  vi.stubEnv("BACKTESTR_CONNECTION_FILE", broker.connectionFile);
  await import(join(EXAMPLE, "main.mjs"));
  await vi.waitUntil(() => made.loaded !== undefined);
  expect(made.files).toEqual([join(EXAMPLE, "client.mjs"), "index.html"]);
  made.loaded?.();
  const [, clientPorts] = made.toClient[0] as [null, unknown[]];
  const [channel, , pagePorts] = made.toPage[0] as [string, null, unknown[]];

  const parentPort = new EventEmitter();
  Object.assign(process, { parentPort });
  await import(join(EXAMPLE, "client.mjs"));
  parentPort.emit("message", { ports: clientPorts });

  const page = Object.assign(new EventTarget(), {
    postMessage: (data: unknown, _origin: string, ports: unknown[]) => {
      page.dispatchEvent(Object.assign(new Event("message"), { source: page, data, ports }));
    },
  });
  const body = { textContent: "" };
  vi.stubGlobal("window", page);
  vi.stubGlobal("document", { body });
  await import(join(EXAMPLE, "renderer.mjs"));
  const ipcRenderer = new EventEmitter();
  new Function("require", texts("preload.cjs"))(() => ({ ipcRenderer }));
  ipcRenderer.emit(channel, { ports: pagePorts });
  await vi.waitUntil(() => body.textContent !== "", { timeout: 50_000 });
  expect(body.textContent).toMatch(/^\d+ trades; the equity ended at \d+\.\d\d$/);
  (pagePorts[0] as { close(): void }).close();
  vi.unstubAllGlobals();
  vi.unstubAllEnvs();
});

it("allows the one script that stands in its page", () => {
  const map = /<script type="importmap">(.*?)<\/script>/s.exec(texts("index.html"))?.[1] ?? "";
  const digest = createHash("sha256").update(map).digest("base64");
  expect(texts("index.html")).toContain(`script-src 'self' 'sha256-${digest}'`);
  expect(Object.keys(JSON.parse(map).imports)).toEqual(["@backtestr/client/page", "fzstd"]);
});

it("has thirty lines", () => {
  const files = ["main.mjs", "client.mjs", "preload.cjs", "renderer.mjs"];
  const lines = files.flatMap((file) => texts(file).split("\n")).filter((one) => one !== "" && !one.startsWith("//"));
  expect(lines).toHaveLength(30);
});
