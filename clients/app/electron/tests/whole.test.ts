/**
 * The processes of the app together: page, preload, main and client, with a real broker that the app starts. Of Electron
 * alone stands a made one between them.
 */

import { EventEmitter } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MessagePort as NodePort } from "node:worker_threads";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Broker, PYTHON, QUICK } from "../../../typescript/tests/support/broker";
import type { ElectronBridge } from "../../renderer/src/host/electron-bridge";
import { ElectronHost } from "../../renderer/src/host/electron-host";
import { CHANNELS } from "../src/channels";
import { serveWindows } from "../src/client/serve-windows";
import { PAGE } from "../src/main/page-address";
import { FakeElectron } from "./support/fake-electron";
import { asPortMain } from "./support/port-main";

const fake = vi.hoisted(() => ({ electron: undefined as unknown as FakeElectron }));

vi.mock("electron", async () => (await import("./support/fake-electron")).standingFor(() => fake.electron));

let home: string;
let places: Broker;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "bt-whole-"));
  places = new Broker({ broker: QUICK }); // its folders; the app starts the process
  for (const [name, value] of Object.entries(places.environment)) vi.stubEnv(name, value);
  vi.stubEnv("BACKTESTR_PYTHON", PYTHON);
  fake.electron = new FakeElectron(home);
});

afterEach(async () => {
  vi.unstubAllEnvs();
  vi.unstubAllGlobals();
  await places.stop();
  endStarted();
  rmSync(home, { recursive: true });
});

/** Ends the broker that the app has started, where a test has failed before the app did. */
function endStarted(): void {
  try {
    const { pid } = JSON.parse(readFileSync(places.connectionFile, "utf8")) as { pid: number };
    process.kill(pid, "SIGTERM");
  } catch {
    // it has ended, and has taken its connection file along
  }
}

/** Joins the made Electron's ends: what is posted at one arrives at the other. */
function joined(electron: FakeElectron): void {
  const parent = Object.assign(new EventEmitter(), {
    postMessage: (message: unknown) => electron.forked[0]?.emit("message", message),
  });
  const forked = electron.forked[0]!;
  forked.postMessage = (_message: unknown, ports: unknown) => {
    parent.emit("message", { ports });
  };
  serveWindows(parent as never, { connectionFile: places.connectionFile });
  electron.ipcRenderer.postMessage = ((channel: string, _message: unknown, ports: NodePort[]) => {
    electron.ipcMain.emit(channel, { ...OURS, ports: ports.map(asPortMain) });
  }) as never;
  electron.ipcRenderer.invoke = ((channel: string, ...args: unknown[]) =>
    electron.ipcMain.invoke(channel, OURS, ...args)) as never;
}

const OURS = { senderFrame: { url: PAGE, parent: null } };

async function openedPage(): Promise<ElectronHost> {
  vi.resetModules();
  await import("../src/main/index");
  await vi.waitUntil(() => fake.electron.windows.length === 1);
  joined(fake.electron);
  const page = new EventTarget();
  vi.stubGlobal("window", page);
  vi.stubGlobal("location", { origin: "app://backtestr" });
  await import("../src/preload/index");
  return new ElectronHost(
    fake.electron.exposed.backtestr as ElectronBridge,
    (data, port) => {
      page.dispatchEvent(Object.assign(new Event("message"), { data, origin: "app://backtestr", ports: [port] }));
    },
    () => undefined,
  );
}

it("starts a broker from its page, gives columns, leaves nothing behind when the user stops it, and quits", async () => {
  const host = await openedPage();
  const client = host.connect();
  expect([client.status, (await host.session()).brokerMayBeStarted]).toEqual(["connecting", true]);
  await host.startBroker();
  await client.ready();
  const bars = await client.marketData("SYNTH", "1d", { limit: 3 });
  expect([bars.rows, bars.columns.open?.constructor]).toEqual([3, Float64Array]);
  const state = client.follow("whole.");
  await state.set("whole.key", { a: 1 });
  expect(state.read("whole.key")).toEqual({ key: "whole.key", value: { a: 1 }, version: 1 });

  const { pid } = JSON.parse(readFileSync(places.connectionFile, "utf8")) as { pid: number };
  fake.electron.answer = { response: 1, checkboxChecked: false }; // stop it
  fake.electron.app.quit();
  await vi.waitUntil(() => fake.electron.hasQuit, { timeout: 30_000 });
  expect(() => process.kill(pid, 0)).toThrow("ESRCH");
  expect(fake.electron.questions).toHaveLength(1);
  await client.close();
}, 120_000);

it("leaves a broker alone that it has not started", async () => {
  await places.start();
  const host = await openedPage();
  await host.connect().ready();
  await host.startBroker(); // one serves
  fake.electron.app.quit();
  expect([fake.electron.hasQuit, fake.electron.questions, places.isRunning]).toEqual([true, [], true]);
  expect(fake.electron.forked[0]?.killed).toBe(1);
  await host.connect().close();
}, 120_000);

it("shows what the menu chooses, in the page", async () => {
  const host = await openedPage();
  const routes: string[] = [];
  (fake.electron.exposed.backtestr as ElectronBridge).onRoute((route) => routes.push(route));
  fake.electron.menuItem("Runs")?.click?.();
  const [sent] = fake.electron.windows[0]?.sent ?? [];
  expect(sent).toEqual([CHANNELS.route, "#/runs"]);
  fake.electron.ipcRenderer.emit(CHANNELS.route, {}, "#/runs");
  expect(routes).toEqual(["#/runs"]);
  await host.connect().close();
});
