/** The package as a program installs it: built, packed, and tried in a fresh project, in ESM, CJS and TypeScript. */

import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { promisify } from "node:util";
import { createContext, runInContext } from "node:vm";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { VERSION } from "../../src/generated/protocol.js";
import { Broker, ROOT, until } from "../support/broker.js";

const PACKAGE = resolve(import.meta.dirname, "../..");
const run = promisify(execFile);
/** The links to node and npm, which `make` puts there. */
const PATH = `${join(ROOT, ".venv/bin")}${delimiter}${process.env.PATH}`;
const npm = (args: readonly string[], options: { cwd: string }): Promise<{ stdout: string }> =>
  run("npm", args, { ...options, env: { ...process.env, PATH } });

/** The Nodes to try: this one, and those that `BACKTESTR_NODES` names, one path after the other. */
const NODES = [process.execPath, ...(process.env.BACKTESTR_NODES ?? "").split(delimiter).filter(Boolean)];

let home: string;
let project: string;
let packed: string[];
let broker: Broker;

/** Runs a program in the fresh project, and returns what it prints. */
async function output(program: string, ...args: string[]): Promise<string> {
  const env = { ...broker.environment, PATH };
  const { stdout } = await run(program, args, { cwd: project, env, timeout: 120_000 });
  return stdout;
}

beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), "bt-pack-"));
  project = join(home, "project");
  mkdirSync(project);
  broker = await Broker.started();
  await npm(["run", "build"], { cwd: PACKAGE });
  const { stdout } = await npm(["pack", "--json", "--pack-destination", home], { cwd: PACKAGE });
  const [found] = Object.values(JSON.parse(stdout) as Record<string, { filename: string; files: { path: string }[] }>);
  packed = found?.files.map((one) => one.path) ?? [];
  writeFileSync(join(project, "package.json"), '{ "name": "fresh", "private": true }');
  const file = join(home, found?.filename.replace("@", "").replace("/", "-") ?? "");
  await npm(["install", "--ignore-scripts", "--no-audit", "--no-fund", file], { cwd: project });
}, 300_000);

afterAll(async () => {
  await broker?.stop();
  rmSync(home, { recursive: true, force: true });
});

const ASK = `
  const client = await connect();
  const answer = await client.request("Ping", {});
  const run = await client.backtest({ algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1d" });
  const { equity } = await run.result();
  console.log(typeof answer.timestamp, VERSION, equity.columns.equity.constructor.name, client.status);
  await client.close();
`;
const SAID = `number ${VERSION} Float64Array ready\n`;

describe.each(NODES)("under %s", (node) => {
  it("is imported as ESM, and its process ends by itself after close", async () => {
    const source = `import { connect, VERSION } from "@backtestr/client";${ASK}`;
    writeFileSync(join(project, "esm.mjs"), source);
    expect(await output(node, "esm.mjs")).toBe(SAID);
  });

  it("is required as CJS", async () => {
    const source = `const { connect, VERSION } = require("@backtestr/client");\n(async () => {${ASK}})();`;
    writeFileSync(join(project, "cjs.cjs"), source);
    expect(await output(node, "cjs.cjs")).toBe(SAID);
  });

  it.each(["esm.mjs", "cjs.cjs"])("reads columns in a worker thread: %s", async (kind) => {
    const load = kind === "esm.mjs" ? "import { connectInWorker } from" : "const { connectInWorker } = require(";
    const head = `${load} "@backtestr/client/worker"${kind === "esm.mjs" ? "" : ")"};`;
    const body = `
      const client = await connectInWorker();
      const { backtestId } = await client.backtest({ algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1d" });
      await client.wait(backtestId);
      const { tables } = await client.results(backtestId);
      console.log(tables.equity.columns.equity.constructor.name, tables.orders.columns.side.at(0));
      await client.close();
    `;
    writeFileSync(
      join(project, `worker-${kind}`),
      kind === "esm.mjs" ? head + body : `${head}(async () => {${body}})();`,
    );
    expect(await output(node, `worker-${kind}`)).toMatch(/^Float64Array (buy|sell)\n$/);
  });

  it("ends as it should when a program with a thread fails or exits before it closes", async () => {
    const source = `
      import { connectInWorker } from "@backtestr/client/worker";
      await connectInWorker();
      console.log("connected");
      process.exit(3);
    `;
    writeFileSync(join(project, "exits.mjs"), source);
    const ended = await output(node, "exits.mjs").catch((error) => error);
    expect([ended.code, ended.signal, ended.stdout, ended.stderr]).toEqual([3, null, "connected\n", ""]);
  });

  it("says which package the tables of Arrow need", async () => {
    writeFileSync(
      join(project, "arrow.mjs"),
      'await import("@backtestr/client/arrow").catch((e) => console.log(e.message));',
    );
    expect(await output(node, "arrow.mjs")).toContain("apache-arrow");
  });

  it("has a part for pages, which loads nothing of Node", async () => {
    const source = `
      import { registerHooks } from "node:module";
      const loaded = [];
      registerHooks?.({ load: (url, context, next) => (loaded.push(url), next(url, context)) });
      const page = await import("@backtestr/client/page");
      console.log(["connectPort", "connectWebSocket", "serveClient", "RemoteClient"].map((name) => typeof page[name]).join());
      console.log(loaded.filter((url) => url.startsWith("node:") || url.includes("zeromq")).join());
    `;
    writeFileSync(
      join(project, "page.mjs"),
      source
        .replace("import { registerHooks }", "import * as module")
        .replace("registerHooks?.", "module.registerHooks?."),
    );
    expect(await output(node, "page.mjs")).toBe("function,function,function,function\n\n");
  });
});

describe("for a worker of a page", () => {
  it("is bundled without anything of Node, and serves a client where nothing of Node is", async () => {
    const source = `
      import { connectWebSocket, serveClient } from "@backtestr/client/page";
      connectWebSocket("ws://127.0.0.1:1/tunnel", { waitForBroker: false }).then((client) => serveClient(self, client));
    `;
    writeFileSync(join(project, "in-page.js"), source);
    const entry = join(project, "in-page.js");
    const lib = { entry, formats: ["iife"] as const, name: "bundle" };
    const built = await build({
      root: project,
      configFile: false,
      logLevel: "error",
      build: { write: false, minify: false, target: "es2022", lib: { ...lib, formats: [...lib.formats] } },
    });
    const code = ([built].flat() as { output: { code: string }[] }[])[0]?.output[0]?.code ?? "";
    expect(code.length).toBeGreaterThan(100_000);
    expect(code).not.toMatch(/node:|__vite-browser-external|\brequire\(|worker_threads|zeromq/);

    const posted: { type: string; status?: string; error?: { name: string; message: string } }[] = [];
    const listeners: ((event: { data: unknown }) => void)[] = [];
    const page = {
      postMessage: (message: (typeof posted)[number]) => posted.push(message),
      addEventListener: (type: string, listener: (typeof listeners)[number]) => {
        if (type === "message") listeners.push(listener);
      },
      removeEventListener: () => undefined,
    };
    /** A tunnel that nobody answers behind. */
    class NoSocket extends EventTarget {
      constructor() {
        super();
        setTimeout(() => this.dispatchEvent(Object.assign(new Event("close"), { code: 1006, reason: "" })));
      }
      close(): void {
        this.dispatchEvent(new Event("closed"));
      }
    }
    const { performance, crypto, setTimeout: after, clearTimeout: never, MessageChannel } = globalThis;
    const web = { performance, crypto, setTimeout: after, clearTimeout: never, queueMicrotask, structuredClone };
    const text = { TextEncoder, TextDecoder, URL, Event, EventTarget, MessageChannel };
    createContext(Object.assign(page, web, text, { self: page, WebSocket: NoSocket }));
    runInContext(code, page as never);
    await until(() => listeners.length > 0, "the service");
    const call = { type: "call", id: 1, call: "request", args: ["Ping", {}, { timeoutMs: 50 }] };
    for (const one of listeners) one({ data: call });
    const error = await until(() => posted.find((one) => one.type === "error"), "the answer");
    expect(posted[0]).toMatchObject({ type: "status", status: "connecting" });
    expect(error.error?.name).toBe("NetworkError");
    for (const one of listeners) one({ data: { type: "close" } });
    await until(() => posted.some((one) => one.type === "closed"), "the end");
  });
});

describe("for TypeScript", () => {
  const source = (load: string): string => `
${load}
export async function main(): Promise<number> {
  const client = await connect({ connectionFile: "/somewhere", requestTimeoutMs: 1000 });
  const data = await client.request("GetMarketData", { symbol: "A", timeframe: "1d" });
  const symbol: string = data.symbol;
  // @ts-expect-error a field is missing
  await client.request("GetMarketData", { symbol });
  // @ts-expect-error there is no such request
  await client.request("GetMarketDate", { symbol, timeframe: "1d" });
  for await (const one of client.subscribe("orders.")) {
    if (one.kind !== "update") continue;
    const side: "buy" | "sell" = one.data.side;
    return side.length;
  }
  return 0;
}
`;

  it.each([
    ["an ES module", "main.mts", 'import { connect } from "@backtestr/client";\nimport "@backtestr/client/page";'],
    [
      "a CommonJS module",
      "main.cts",
      'import { connect } from "@backtestr/client";\nimport "@backtestr/client/worker";',
    ],
  ])("is typed in %s, strict", async (_what, file, load) => {
    writeFileSync(join(project, file), source(load));
    const options = { strict: true, module: "nodenext", noEmit: true, noUncheckedIndexedAccess: true, types: ["node"] };
    const types = join(project, "node_modules/@types");
    if (!existsSync(types)) cpSync(join(PACKAGE, "node_modules/@types/node"), join(types, "node"), { recursive: true });
    const undici = join(project, "node_modules/undici-types");
    if (!existsSync(undici)) cpSync(join(PACKAGE, "node_modules/undici-types"), undici, { recursive: true });
    const compilerOptions = { ...options, target: "es2022", lib: ["es2023", "esnext.disposable", "dom"] };
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: [file] }));
    await output(process.execPath, join(PACKAGE, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.json").catch(
      (error) => {
        throw new Error(error.stdout);
      },
    );
  });
});

describe("its files", () => {
  it("are what was built, the licence and the page that explains it", () => {
    const others = packed.filter((path) => !/^dist\/[\w.-]+\.(mjs|cjs|d\.mts|d\.cts)$/.test(path));
    expect(others.sort()).toEqual(["LICENSE", "README.md", "package.json"]);
    expect(packed).toEqual(
      expect.arrayContaining(["dist/index.mjs", "dist/index.cjs", "dist/index.d.mts", "dist/index.d.cts"]),
    );
  });

  it("name no place of this machine", () => {
    for (const path of packed) expect(readFileSync(join(PACKAGE, path), "utf8"), path).not.toContain(ROOT);
  });

  it("have the version of the Python package, and its licence", () => {
    const own = JSON.parse(readFileSync(join(PACKAGE, "package.json"), "utf8"));
    const python = /^version = "(.+)"$/m.exec(readFileSync(join(ROOT, "pyproject.toml"), "utf8"))?.[1];
    expect([own.version, VERSION]).toEqual([python, python]);
    expect(readFileSync(join(PACKAGE, "LICENSE"), "utf8")).toBe(readFileSync(join(ROOT, "LICENSE"), "utf8"));
  });

  it("come of a lock file without addresses of a registry", () => {
    const lock = JSON.parse(readFileSync(join(PACKAGE, "package-lock.json"), "utf8"));
    const places = Object.values(lock.packages as Record<string, { resolved?: string }>).map((one) => one.resolved);
    expect(places.filter(Boolean)).toEqual([]);
  });
});

describe("the page of sweeps", () => {
  it("has lines that run, and a row that is the backtest which one gets", async () => {
    const text = readFileSync(join(ROOT, "docs/sweeps.md"), "utf8");
    writeFileSync(join(project, "sweeps.mjs"), /```js\n([\s\S]+?)```/.exec(text)?.[1] ?? "");
    const lines = (await output(process.execPath, "sweeps.mjs")).trim().split("\n");
    // There is no update of a sweep that was over before its updates were asked for.
    expect([lines[0], ...lines.slice(-2)].join("\n")).toMatch(/^\d+\n\d+n \d+n -?\d+\.\d+\ntrue$/);
  });
});

describe("the page that explains it", () => {
  it("begins with lines that run", async () => {
    const text = readFileSync(join(PACKAGE, "README.md"), "utf8");
    const first = /```js\n([\s\S]+?)```/.exec(text)?.[1] ?? "";
    expect(first.trim().split("\n").length).toBeLessThanOrEqual(12);
    writeFileSync(join(project, "readme.mjs"), first);
    expect(await output(process.execPath, "readme.mjs")).toMatch(
      /100 %\n-?[\d.]+ % in \d+ trades\n20\d\d-.*Z [\d.]+\n$/,
    );
  });
});
