/** Tests of the modules that touch Electron, with an Electron that is made here: the preload, requests, what is locked, and the whole app. */

import { EventEmitter } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Protocol, Session, WebContents } from "electron";
import { afterAll, beforeEach, describe, expect, it, vi } from "vitest";
import { CLIENT_PORT, type ElectronBridge } from "../../renderer/src/host/electron-bridge";
import { CHANNELS } from "../src/channels";
import { lockDownContents, lockDownSession, servePage, webPreferences } from "../src/main/lock-down";
import { PAGE } from "../src/main/page-address";
import { answerRequests, type RequestParts } from "../src/main/requests";
import { FakeElectron } from "./support/fake-electron";

const fake = vi.hoisted(() => ({ electron: undefined as unknown as FakeElectron }));
const home = mkdtempSync(join(tmpdir(), "bt-electron-"));

vi.mock("electron", async () => (await import("./support/fake-electron")).standingFor(() => fake.electron));

beforeEach(() => {
  fake.electron = new FakeElectron(home);
});

afterAll(() => rmSync(home, { recursive: true }));

describe("the preload", () => {
  async function loaded(): Promise<[ElectronBridge, EventTarget]> {
    vi.resetModules();
    const page = new EventTarget();
    vi.stubGlobal("window", page);
    vi.stubGlobal("location", { origin: "app://backtestr" });
    await import("../src/preload/index");
    return [fake.electron.exposed.backtestr as ElectronBridge, page];
  }

  it("gives the page five named functions, and nothing of Electron", async () => {
    const [bridge] = await loaded();
    expect(Object.keys(fake.electron.exposed)).toEqual(["backtestr"]);
    expect(Object.keys(bridge).sort()).toEqual(["onRoute", "pathOf", "save", "session", "startBroker"]);
    await bridge.session();
    await bridge.startBroker();
    const bytes = new ArrayBuffer(1);
    await bridge.save("a.csv", bytes);
    expect(fake.electron.invoked).toEqual([
      [CHANNELS.session],
      [CHANNELS.startBroker],
      [CHANNELS.save, "a.csv", bytes],
    ]);
    expect(bridge.pathOf(new File([], "a.csv"))).toBe("/home/me/a.csv");
    const routes: unknown[][] = [];
    bridge.onRoute((...all) => routes.push(all));
    fake.electron.ipcRenderer.emit(CHANNELS.route, { sender: "Electron's" }, "#/data");
    expect(routes).toEqual([["#/data"]]);
  });

  it("hands on the port of its own page alone", async () => {
    const [, page] = await loaded();
    const { port1 } = new MessageChannel();
    const say = (data: unknown, origin: string, ports: MessagePort[]): void => {
      page.dispatchEvent(Object.assign(new Event("message"), { data, origin, ports }));
    };
    say("something else", "app://backtestr", [port1]);
    say(CLIENT_PORT, "https://example.org", [port1]);
    say(CLIENT_PORT, "app://backtestr", []);
    expect(fake.electron.handedOn).toEqual([]);
    say(CLIENT_PORT, "app://backtestr", [port1]);
    expect(fake.electron.handedOn).toEqual([[CHANNELS.client, null, [port1]]]);
    port1.close();
  });
});

describe("requests", () => {
  function answering(parts: Partial<RequestParts> = {}): FakeElectron["ipcMain"] {
    const { ipcMain } = fake.electron;
    answerRequests(ipcMain as never, {
      brokerMayBeStarted: () => true,
      startBroker: async () => ({ value: null }),
      chooseFile: async () => null,
      serveClient: () => undefined,
      ...parts,
    });
    return ipcMain;
  }
  const ours = { senderFrame: { url: PAGE, parent: null } };
  const theirs = [
    { senderFrame: { url: "https://example.org/", parent: null } },
    { senderFrame: { url: PAGE, parent: {} } },
    { senderFrame: null },
  ];

  it("of the app's own page are answered, and no others", async () => {
    const served: unknown[] = [];
    const ipc = answering({ serveClient: (port) => served.push(port) });
    expect(await ipc.invoke(CHANNELS.session, ours)).toMatchObject({
      value: { version: expect.stringMatching(/^\d/), uploadLimitBytes: null, brokerMayBeStarted: true },
    });
    expect(await ipc.invoke(CHANNELS.startBroker, ours)).toEqual({ value: null });
    for (const one of theirs) {
      for (const channel of [CHANNELS.session, CHANNELS.startBroker, CHANNELS.save]) {
        expect(await ipc.invoke(channel, one)).toMatchObject({ error: { code: "NOT_ALLOWED" } });
      }
      const close = vi.fn();
      ipc.emit(CHANNELS.client, { ...one, ports: [{ close }] });
      expect(close).toHaveBeenCalledOnce();
    }
    ipc.emit(CHANNELS.client, { ...ours, ports: [] });
    expect(served).toEqual([]);
    ipc.emit(CHANNELS.client, { ...ours, ports: ["the port"] });
    expect(served).toEqual(["the port"]);
  });

  it("save a file where the user says, or not at all", async () => {
    const offered: string[] = [];
    let chosen: string | null = join(home, "saved.csv");
    const ipc = answering({
      chooseFile: async (name) => {
        offered.push(name);
        return chosen;
      },
    });
    const bytes = new TextEncoder().encode("a,b").buffer;
    expect(await ipc.invoke(CHANNELS.save, ours, "../trades.csv", bytes)).toEqual({ value: true });
    expect([offered, readFileSync(join(home, "saved.csv"), "utf8")]).toEqual([["trades.csv"], "a,b"]);
    chosen = join(home, "no", "folder.csv");
    expect(await ipc.invoke(CHANNELS.save, ours, "b.csv", bytes)).toMatchObject({ error: { code: "NOT_SAVED" } });
    chosen = null;
    expect(await ipc.invoke(CHANNELS.save, ours, "b.csv", bytes)).toEqual({ value: false });
    for (const wrong of [
      [5, bytes],
      ["a", "b"],
      [undefined, undefined],
    ]) {
      expect(await ipc.invoke(CHANNELS.save, ours, ...wrong)).toMatchObject({ error: { code: "NOT_ALLOWED" } });
    }
  });
});

describe("what is locked", () => {
  it("keeps pages at the app's own address, and from opening windows", () => {
    const contents = new EventEmitter() as EventEmitter & { setWindowOpenHandler: (open: () => unknown) => void };
    let opened: unknown;
    contents.setWindowOpenHandler = (open) => {
      opened = open();
    };
    lockDownContents(contents as unknown as WebContents);
    expect(opened).toEqual({ action: "deny" });
    for (const event of ["will-navigate", "will-frame-navigate", "will-redirect"]) {
      const [away, within] = [vi.fn(), vi.fn()];
      contents.emit(event, { url: "https://example.org/", preventDefault: away });
      contents.emit(event, { url: PAGE, preventDefault: within });
      expect([away.mock.calls.length, within.mock.calls.length], event).toEqual([1, 0]);
    }
    const attached = vi.fn();
    contents.emit("will-attach-webview", { preventDefault: attached });
    expect(attached).toHaveBeenCalledOnce();
  });

  it("denies permissions, devices, downloads and the network", () => {
    const session = fake.electron.session.defaultSession;
    lockDownSession(session as unknown as Session);
    const answers: boolean[] = [];
    session.permissionRequest?.(null, "media", (is: boolean) => answers.push(is), { requestingUrl: PAGE });
    session.permissionRequest?.(null, "clipboard-sanitized-write", (is: boolean) => answers.push(is), {
      requestingUrl: PAGE,
    });
    expect(answers).toEqual([false, true]);
    expect(session.permissionCheck?.(null, "media", "app://backtestr")).toBe(false);
    expect(session.devicePermission?.()).toBe(false);
    const prevented = vi.fn();
    session.emit("will-download", { preventDefault: prevented });
    expect(prevented).toHaveBeenCalledOnce();
    const cancelled = (url: string): unknown => {
      let found: unknown;
      session.beforeRequest?.({ url }, (answer: { cancel: boolean }) => {
        found = answer.cancel;
      });
      return found;
    };
    expect([cancelled(PAGE), cancelled("https://example.org/a.js")]).toEqual([false, true]);
  });

  it("gives windows a sandbox, and developer tools in a checkout alone", () => {
    expect(webPreferences("/preload.cjs", true)).toMatchObject({
      sandbox: true,
      contextIsolation: true,
      nodeIntegration: false,
      webSecurity: true,
      webviewTag: false,
      devTools: false,
    });
    expect(webPreferences("/preload.cjs", false).devTools).toBe(true);
  });

  it("serves the files of the page with the headers of security", async () => {
    const folder = join(home, "renderer");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "index.html"), "<!doctype html>");
    const { protocol } = fake.electron;
    servePage(protocol as unknown as Protocol, "app", folder);
    const asked = (path: string, method = "GET"): Promise<Response> =>
      protocol.handlers.app?.({ url: `app://backtestr${path}`, method }) as Promise<Response>;
    const page = await asked("/index.html");
    expect([page.status, await page.text(), page.headers.get("content-type")]).toEqual([
      200,
      "<!doctype html>",
      "text/html; charset=utf-8",
    ]);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    const missing = await Promise.all([asked("/none.js"), asked("/../settings.json"), asked("/index.html", "POST")]);
    expect(missing.map((one) => one.status)).toEqual([404, 404, 404]);
  });
});

describe("the app", () => {
  async function started(): Promise<FakeElectron> {
    vi.resetModules();
    await import("../src/main/index");
    await vi.waitUntil(() => fake.electron.windows.length === 1 || fake.electron.hasQuit);
    return fake.electron;
  }

  it("shows its page in one locked window, with its menu and a process for the client", async () => {
    const electron = await started();
    expect(electron.app.isSandboxed).toBe(true);
    expect(electron.protocol.privileged).toEqual([
      { scheme: "app", privileges: { standard: true, secure: true, supportFetchAPI: true } },
    ]);
    const [window] = electron.windows;
    expect([window?.loaded, window?.options.webPreferences?.sandbox]).toEqual([PAGE, true]);
    expect(window?.options.webPreferences?.preload).toMatch(/preload[/\\]index\.cjs$/);
    expect(electron.menus).toHaveLength(1);
    expect(electron.forked).toHaveLength(1);
    electron.app.emit("second-instance");
    electron.app.emit("activate");
    expect([electron.windows.length, window?.focused]).toEqual([1, 2]);
    electron.menuItem("Data")?.click?.();
    expect(window?.sent).toEqual([[CHANNELS.route, "#/data"]]);
    electron.forked[0]?.emit("exit", 1);
    expect([electron.forked.length, window?.reloaded]).toEqual([2, 1]);
    window?.emit("closed");
    electron.app.emit("window-all-closed");
    expect(electron.hasQuit).toBe(true);
    expect(electron.questions).toEqual([]);
  });

  it("is one app, however often it is started", async () => {
    fake.electron.isFirst = false;
    const electron = await started();
    expect([electron.hasQuit, electron.windows, electron.forked]).toEqual([true, [], []]);
  });

  it("starts a broker, asks about it when it quits, and remembers the answer", async () => {
    const electron = await started();
    vi.stubEnv("BACKTESTR_PYTHON", process.execPath); // which ends at once, for there is no module of that name
    const event = { senderFrame: { url: PAGE, parent: null } };
    const failed = await electron.ipcMain.invoke(CHANNELS.startBroker, event);
    expect(failed).toMatchObject({ error: { code: "BROKER_FAILED" } });
    const script = join(home, "sleeps");
    writeFileSync(script, "#!/bin/sh\nexec sleep 60\n", { mode: 0o755 });
    vi.stubEnv("BACKTESTR_PYTHON", script);
    const starting = electron.ipcMain.invoke(CHANNELS.startBroker, event);
    electron.forked[0]?.emit("message", { type: "status", status: "ready" });
    expect(await starting).toEqual({ value: null });
    electron.answer = { response: 2, checkboxChecked: true }; // cancel, after the last window was closed
    electron.windows[0]?.emit("closed");
    electron.app.emit("window-all-closed");
    await vi.waitUntil(() => electron.windows.length === 2);
    await new Promise(setImmediate); // the answer is taken
    expect(electron.hasQuit).toBe(false);
    electron.answer = { response: 1, checkboxChecked: true }; // stop it
    electron.app.quit();
    await vi.waitUntil(() => electron.hasQuit, 20_000);
    expect(electron.questions).toHaveLength(2);
    expect(JSON.parse(readFileSync(join(home, "settings.json"), "utf8"))).toEqual({ onQuit: "stop" });
    expect(electron.forked[0]?.killed).toBe(1);
    electron.menuItem("Ask about it")?.click?.();
    expect(JSON.parse(readFileSync(join(home, "settings.json"), "utf8"))).toEqual({ onQuit: "ask" });
    vi.unstubAllEnvs();
  });

  it("saves through a dialog", async () => {
    const electron = await started();
    const event = { senderFrame: { url: PAGE, parent: null } };
    electron.chosen = { canceled: false, filePath: join(home, "by-dialog.csv") };
    expect(await electron.ipcMain.invoke(CHANNELS.save, event, "a.csv", new ArrayBuffer(2))).toEqual({ value: true });
    expect(readFileSync(join(home, "by-dialog.csv"))).toHaveLength(2);
    electron.chosen = { canceled: true, filePath: "" };
    expect(await electron.ipcMain.invoke(CHANNELS.save, event, "a.csv", new ArrayBuffer(2))).toEqual({ value: false });
  });
});
