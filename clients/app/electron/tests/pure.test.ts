/** The decisions of the app, without Electron: the life of the broker, addresses, the menu, the command, the settings. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { brokerCommand, type Machine } from "../src/main/broker-command";
import { type BrokerEffect, type BrokerEvent, type BrokerLife, brokerStep } from "../src/main/broker-life";
import { type MenuState, menuTemplate } from "../src/main/menu";
import { isOwnPage, mayHavePermission, mayLoad, PAGE, SECURITY_HEADERS, servedFile } from "../src/main/page-address";
import { fileName } from "../src/main/requests";
import { parsedSettings, SettingsFile } from "../src/main/settings";

const EVENTS: readonly BrokerEvent[] = [
  "startAsked",
  "startAskedWhileOneServes",
  "serves",
  "exits",
  "isLate",
  "quitAsked",
  "leaveChosen",
  "stopChosen",
];

describe("the life of the broker", () => {
  it("obeys its laws in every history of six events", () => {
    let histories = 0;
    function walk(life: BrokerLife, isAlive: boolean, depth: number, asked: boolean): void {
      if (depth === 0) {
        histories += 1;
        return;
      }
      for (const event of EVENTS) {
        const [next, ...effects] = brokerStep(life, event);
        const has = (effect: BrokerEffect): boolean => effects.includes(effect);
        // One process at a time, and none is stopped that this app has not started.
        if (has("spawn")) expect(isAlive).toBe(false);
        if (has("stop")) expect(isAlive).toBe(true);
        const lives = has("spawn") || (isAlive && event !== "exits");
        // A broker that may live on is left only by choice, or when it does not end in time.
        if (has("quit") && lives)
          expect(event === "leaveChosen" || (life === "stopping" && event === "isLate")).toBe(true);
        if (event === "quitAsked" && life === "running") expect(effects).toEqual(["ask"]);
        if (next === "running" || next === "starting") expect(lives).toBe(true);
        walk(next, lives && next !== "none", depth - 1, asked || event === "quitAsked");
      }
    }
    walk("none", false, 6, false);
    expect(histories).toBe(EVENTS.length ** 6);
  });

  it("connects to a broker that runs, and leaves it alone", () => {
    expect(brokerStep("none", "startAskedWhileOneServes")).toEqual(["none", "tellStarted"]);
    expect(brokerStep("none", "quitAsked")).toEqual(["none", "quit"]);
    expect(brokerStep("none", "stopChosen")).toEqual(["none"]);
  });

  it("tells why a broker did not start", () => {
    expect(brokerStep("starting", "exits")).toEqual(["none", "tellFailed"]);
    expect(brokerStep("starting", "isLate")).toEqual(["discarding", "tellLate", "stop"]);
    expect(brokerStep("discarding", "quitAsked")).toEqual(["stopping"]);
    expect(brokerStep("stopping", "exits")).toEqual(["none", "quit"]);
  });
});

describe("addresses", () => {
  it.each([
    [PAGE, true],
    ["app://backtestr/", true],
    ["app://backtestr/index.html#/data", true],
    ["app://backtestr.example/index.html", false],
    ["app://other@backtestr.example/", false],
    ["app://evil/backtestr", false],
    ["https://backtestr/", false],
    ["file:///etc/passwd", false],
    ["javascript:alert(1)", false],
    ["no address", false],
  ])("%s is the app's own page: %s", (address, isOwn) => {
    expect(isOwnPage(address)).toBe(isOwn);
  });

  it("let a window load its own files and data, and nothing of the network", () => {
    expect([PAGE, "data:image/png;base64,AA", "blob:app://backtestr/1", "devtools://devtools/a"].map(mayLoad)).toEqual(
      Array(4).fill(true),
    );
    const others = [
      "http://127.0.0.1/",
      "https://example.org/",
      "file:///etc/passwd",
      "ws://a/",
      "blob:https://a/1",
      "",
    ];
    expect(others.filter(mayLoad)).toEqual([]);
  });

  it("permit the app's own page to put text on the clipboard, and nothing else", () => {
    expect(mayHavePermission("clipboard-sanitized-write", PAGE)).toBe(true);
    expect(mayHavePermission("clipboard-sanitized-write", "https://example.org/")).toBe(false);
    for (const one of ["media", "geolocation", "notifications", "clipboard-read", "openExternal", "fileSystem"]) {
      expect(mayHavePermission(one, PAGE), one).toBe(false);
    }
  });

  it("mean files in the folder of the page, and none outside", () => {
    const folder = join("/app", "renderer");
    const file = (path: string): string | undefined => servedFile(`app://backtestr${path}`, folder)?.file;
    expect(file("/")).toBe(join(folder, "index.html"));
    expect(file("/assets/a-1.js?x#y")).toBe(join(folder, "assets/a-1.js"));
    expect(servedFile("app://backtestr/a.css", folder)?.type).toBe("text/css; charset=utf-8");
    const outside = [
      "/../main/index.js",
      "/%2e%2e/main/index.js",
      "/..%2fmain/index.js",
      "/a/..%5c..%5cb.js",
      "/%00.js",
    ];
    for (const path of outside) expect([undefined, join(folder, "main/index.js")], path).toContain(file(path));
    expect(outside.map((path) => file(path) ?? "").filter((one) => !one.startsWith(folder) && one !== "")).toEqual([]);
    expect([file("/a.exe"), file("/assets"), file("/%"), servedFile("app://other/a.js", folder)]).toEqual([
      undefined,
      undefined,
      undefined,
      null,
    ]);
  });

  it("come with a policy that runs no inline and no foreign script", () => {
    const policy = SECURITY_HEADERS["content-security-policy"] ?? "";
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'");
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
  });
});

describe("the command that starts a broker", () => {
  function machine(files: readonly string[], others: Partial<Machine> = {}): Machine {
    return {
      platform: "linux",
      env: { PATH: "/usr/bin:/opt/bin" },
      home: "/home/me",
      checkout: null,
      exists: (file) => files.includes(file),
      realpath: (file) => (file === "/home/me/.local/bin/backtestr" ? "/venvs/backtestr/bin/backtestr" : file),
      ...others,
    };
  }

  it("is that of the named Python, then of the checkout, then of the installed command", () => {
    const env = { PATH: "/opt/bin", BACKTESTR_PYTHON: "/my/python" };
    const all = ["/my/python", "/repo/.venv/bin/python", "/opt/bin/backtestr", "/opt/bin/python3"];
    const found = (files: readonly string[], checkout: string | null): string | undefined =>
      brokerCommand(machine(files, { env, checkout }))?.file;
    expect(found(all, "/repo")).toBe("/my/python");
    expect(found(all.slice(1), "/repo")).toBe("/repo/.venv/bin/python");
    expect(found(all.slice(1), null)).toBe("/opt/bin/python3");
    expect(found([], "/repo")).toBeUndefined();
    expect(brokerCommand(machine(all, { env }))?.args).toEqual(["-m", "backtestr_broker"]);
  });

  it("follows the link of pipx, also where PATH lacks its folder", () => {
    const files = ["/home/me/.local/bin/backtestr", "/venvs/backtestr/bin/python"];
    expect(brokerCommand(machine(files))?.file).toBe("/venvs/backtestr/bin/python");
    expect(brokerCommand(machine(files.slice(0, 1)))).toBeNull();
  });

  it("knows the folders of Windows", () => {
    const windows = { platform: "win32" as const, env: { Path: "C:\\Py\\Scripts" } };
    const files = ["C:\\Py\\Scripts\\backtestr.exe", "C:\\Py\\python.exe"];
    expect(brokerCommand(machine(files, windows))?.file).toBe("C:\\Py\\python.exe");
    const checkout = { ...windows, checkout: "C:\\repo" };
    expect(brokerCommand(machine(["C:\\repo\\.venv\\Scripts\\python.exe"], checkout))?.file).toContain("Scripts");
  });
});

describe("the menu", () => {
  const STATE: MenuState = { platform: "linux", isPackaged: true, onQuit: "leave" };
  const done: unknown[] = [];
  const actions = {
    show: (route: string) => done.push(route),
    startBroker: () => done.push("start"),
    chooseOnQuit: (choice: string) => done.push(choice),
  };

  function items(state: MenuState, label: string): Electron.MenuItemConstructorOptions[] {
    const menu = menuTemplate(state, actions).find((one) => one.label === label);
    return menu?.submenu as Electron.MenuItemConstructorOptions[];
  }
  function click(item: Electron.MenuItemConstructorOptions | undefined): void {
    (item as { click: () => void }).click();
  }

  it("shows the screens, starts a broker, and remembers what becomes of it", () => {
    for (const item of items(STATE, "View").filter((one) => one.click !== undefined)) click(item);
    const [start, onQuit] = items(STATE, "Broker");
    click(start);
    const choices = onQuit?.submenu as Electron.MenuItemConstructorOptions[];
    expect(choices.map((one) => [one.label, one.checked])).toEqual([
      ["Ask about it", false],
      ["Leave it running", true],
      ["Stop it", false],
    ]);
    click(choices[2]);
    expect(done).toEqual(["#/data", "#/run", "#/runs", "#/algorithms", "#/state", "#/topics", "start", "stop"]);
  });

  it("has the developer tools in a checkout alone, and the menu of the app on macOS", () => {
    const roles = (state: MenuState): unknown[] => items(state, "View").map((one) => one.role);
    expect(roles(STATE)).not.toContain("toggleDevTools");
    expect(roles({ ...STATE, isPackaged: false })).toContain("toggleDevTools");
    expect(menuTemplate({ ...STATE, platform: "darwin" }, actions)[0]?.role).toBe("appMenu");
    expect(menuTemplate(STATE, actions)[0]?.label).toBe("File");
  });
});

describe("settings", () => {
  it("are read as far as they are right, and written whole", () => {
    expect(parsedSettings('{"onQuit":"stop","more":1}')).toEqual({ onQuit: "stop" });
    for (const text of ["", "{", "null", "5", '{"onQuit":"never"}']) expect(parsedSettings(text).onQuit).toBe("ask");
    const folder = mkdtempSync(join(tmpdir(), "bt-settings-"));
    const file = new SettingsFile(join(folder, "settings.json"));
    expect(file.read()).toEqual({ onQuit: "ask" });
    file.write({ onQuit: "leave" });
    expect([file.read().onQuit, readFileSync(join(folder, "settings.json"), "utf8")]).toEqual([
      "leave",
      '{"onQuit":"leave"}',
    ]);
    writeFileSync(join(folder, "settings.json"), "{");
    expect(file.read()).toEqual({ onQuit: "ask" });
    rmSync(folder, { recursive: true });
  });
});

it.each([
  ["trades.csv", "trades.csv"],
  ["../../etc/passwd", "passwd"],
  ["C:\\Windows\\a.txt", "a.txt"],
  ["...", "backtestr"],
  ["", "backtestr"],
  ["a\u0000b:c?.csv ", "a_b_c_.csv"],
  ["x".repeat(500), "x".repeat(200)],
])("a file that is to be saved as %j is offered as %s", (name, offered) => {
  expect(fileName(name)).toBe(offered);
});
