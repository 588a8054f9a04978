/** Whose files are trusted, where they are looked for, and which table files are read. */

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Connection } from "../../src/node/connection-file.js";
import { keysFor } from "../../src/node/curve-keys.js";
import { connectionFile, keysDirectory } from "../../src/node/paths.js";
import { checkDirectory, openRegular, readSecret, UntrustedFileError } from "../../src/node/private-files.js";
import { NodeTableFiles } from "../../src/node/table-files.js";
import { PYTHON } from "../support/broker.js";

let home: string;
let saved: NodeJS.ProcessEnv;

beforeEach(() => {
  saved = { ...process.env };
  home = mkdtempSync(join(tmpdir(), "bt-files-"));
});

afterEach(() => {
  process.env = saved;
  rmSync(home, { recursive: true, force: true });
});

function written(name: string, content = "secret", mode = 0o600): string {
  const file = join(home, name);
  writeFileSync(file, content);
  chmodSync(file, mode);
  return file;
}

const isRoot = process.getuid?.() === 0;

describe("a secret", () => {
  it("is read", () => expect(readSecret(written("good"), 100).toString()).toBe("secret"));

  it.each([0o640, 0o604, 0o620, 0o660])("of mode %o is not", (mode) => {
    expect(() => readSecret(written("open", "secret", mode), 100)).toThrow(/run: chmod 600/);
  });

  it("that is too large is not", () => {
    expect(() => readSecret(written("large", "x".repeat(101)), 100)).toThrow(UntrustedFileError);
  });

  it("that is a directory or a FIFO is not, without waiting", () => {
    execFileSync("mkfifo", [join(home, "fifo")]);
    expect(() => readSecret(join(home, "fifo"), 100)).toThrow(/no regular file/);
    expect(() => readSecret(home, 100)).toThrow(/no regular file/);
  });

  it.runIf(isRoot)("of another user is not", () => {
    const file = written("other");
    chownSync(file, 12345, 12345);
    expect(() => readSecret(file, 100)).toThrow(/belongs to another user/);
  });
});

describe("a directory", () => {
  it("of this user is trusted, also behind a link", () => {
    mkdirSync(join(home, "own"), { mode: 0o700 });
    symlinkSync("own", join(home, "link"));
    checkDirectory(join(home, "own"));
    checkDirectory(join(home, "link"));
  });

  it("to which others may write is not, nor what lies in it", () => {
    mkdirSync(join(home, "open/inner"), { recursive: true });
    chmodSync(join(home, "open"), 0o777);
    expect(() => checkDirectory(join(home, "open"))).toThrow(/others may write/);
    expect(() => checkDirectory(join(home, "open/inner"))).toThrow(/others may write/);
    symlinkSync("open/inner", join(home, "way"));
    expect(() => checkDirectory(join(home, "way"))).toThrow(/others may write/);
    chmodSync(join(home, "open"), 0o1777);
    checkDirectory(join(home, "open/inner"));
    expect(() => checkDirectory(join(home, "open"))).toThrow(/others may write/);
  });
});

describe("the usual places are those of the Python client", () => {
  const script = "from backtestr_protocol import paths; print(paths.connection_file()); print(paths.keys_dir())";

  it.each([
    ["as they are", {}],
    ["with a runtime directory", { BACKTESTR_RUNTIME_DIR: "~/rt", BACKTESTR_DATA_DIR: "relative/../data" }],
    ["with a connection file", { BACKTESTR_CONNECTION_FILE: "/somewhere/../c.json" }],
    ["with a private XDG directory", { XDG_RUNTIME_DIR: "PRIVATE", XDG_DATA_HOME: "/data" }],
    ["with an open XDG directory", { XDG_RUNTIME_DIR: "OPEN", XDG_DATA_HOME: "relative" }],
    ["with a missing XDG directory", { XDG_RUNTIME_DIR: "MISSING" }],
    ["with empty variables", { XDG_RUNTIME_DIR: "", BACKTESTR_RUNTIME_DIR: "", XDG_DATA_HOME: "" }],
  ])("%s", (_what, variables: Record<string, string>) => {
    mkdirSync(join(home, "private"), { mode: 0o700 });
    mkdirSync(join(home, "open"));
    chmodSync(join(home, "open"), 0o755);
    const places: Record<string, string> = { PRIVATE: "private", OPEN: "open", MISSING: "missing" };
    for (const name of Object.keys(process.env)) if (/^(XDG|BACKTESTR)_/.test(name)) delete process.env[name];
    for (const [name, value] of Object.entries(variables)) {
      process.env[name] = places[value] === undefined ? value : join(home, places[value]);
    }
    const printed = execFileSync(PYTHON, ["-W", "ignore", "-c", script], { encoding: "utf8" }).trim().split("\n");
    // Python leaves `..` in a path; both mean the same file.
    const simple = printed.map((path) => join(path));
    expect([connectionFile(), keysDirectory()]).toEqual(simple);
  });
});

describe("a CURVE key", () => {
  const curve = { serverPublicKey: "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7" };

  it("has the public half that libzmq computes, and is found by name, by file and alone", () => {
    process.env.BACKTESTR_DATA_DIR = home;
    delete process.env.BACKTESTR_KEY;
    const folder = join(home, "keys/clients");
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const script = "import zmq; print(*[half.decode() for half in zmq.curve_keypair()])";
    const [publicKey, secretKey] = execFileSync(PYTHON, ["-c", script], { encoding: "utf8" }).trim().split(" ");
    writeFileSync(join(folder, "ann.secret"), `${secretKey}\n`, { mode: 0o600 });
    for (const key of [undefined, "ann", join(folder, "ann.secret")]) {
      expect(keysFor(curve, "tcp://10.0.0.1:5", key)).toEqual({ publicKey, secretKey });
    }
    writeFileSync(join(folder, "bob.secret"), "no key", { mode: 0o600 });
    expect(() => keysFor(curve, "tcp://10.0.0.1:5", undefined)).toThrow(/there are ann, bob/);
    expect(() => keysFor(curve, "tcp://10.0.0.1:5", "bob")).toThrow(/no CURVE key/);
    process.env.BACKTESTR_KEY = "ann";
    expect(keysFor(curve, "tcp://10.0.0.1:5", undefined).publicKey).toBe(publicKey);
    chmodSync(join(folder, "ann.secret"), 0o644);
    expect(() => keysFor(curve, "tcp://10.0.0.1:5", "ann")).toThrow(/chmod 600/);
  });

  it("of the connection file is taken on this machine, and elsewhere where there is no other", () => {
    process.env.BACKTESTR_DATA_DIR = home;
    delete process.env.BACKTESTR_KEY;
    const given = { ...curve, clientPublicKey: curve.serverPublicKey, clientSecretKey: curve.serverPublicKey };
    const pair = { publicKey: curve.serverPublicKey, secretKey: curve.serverPublicKey };
    expect(keysFor(given, "tcp://127.0.0.1:5", undefined)).toEqual(pair);
    expect(keysFor(given, "tcp://10.0.0.1:5", undefined)).toEqual(pair);
    expect(() => keysFor(curve, "tcp://10.0.0.1:5", undefined)).toThrow(/there is none .*backtestr keys new NAME/);
  });
});

describe("a table file", () => {
  function files(change: Partial<Connection> = {}): NodeTableFiles {
    const tables = new NodeTableFiles();
    const endpoints = { requests: "ipc:///x", prices: "", progress: "", orders: "", positions: "", system: "" };
    const connection = {
      instanceId: "i",
      endpoints,
      signingKey: new Uint8Array(32),
      curve: null,
      tablesDirectory: home,
    };
    tables.use({ ...connection, ...change });
    return tables;
  }
  const file = (name: string, size: number) => ({ name, size, columns: [] });

  it("of the announced size is read into a buffer of its own", async () => {
    written("0a-1.arrow", "0123456789");
    const bytes = await files().read(file("0a-1.arrow", 10));
    expect(Buffer.from(bytes as Uint8Array).toString()).toBe("0123456789");
    expect(bytes?.buffer.byteLength).toBe(10);
  });

  it("that must not be used, or is gone, is not", async () => {
    written("aa.arrow", "0123456789");
    written("bb.arrow", "0123456789", 0o606);
    symlinkSync("aa.arrow", join(home, "cc.arrow"));
    mkdirSync(join(home, "dd.arrow"));
    written("secret.arrow", "0123456789");
    const tables = files();
    for (const [name, size] of [
      ["aa.arrow", 9],
      ["aa.arrow", 11],
      ["bb.arrow", 10],
      ["cc.arrow", 10],
      ["dd.arrow", 10],
      ["ee.arrow", 10],
      ["secret.arrow", 10],
      ["../aa.arrow", 10],
      ["aa.arrow\n", 10],
    ] as const) {
      expect(await tables.read(file(name, size)), name).toBeNull();
    }
    expect(existsSync(join(home, "aa.arrow"))).toBe(true);
  });

  it.each([
    ["over TCP", { endpoints: { requests: "tcp://127.0.0.1:1" } as Connection["endpoints"] }],
    ["without a directory", { tablesDirectory: null }],
    ["where it is missing", { tablesDirectory: "/nowhere/tables" }],
    ["where it is relative", { tablesDirectory: "tables" }],
  ])("is not asked for %s", (_what, change) => {
    expect(files(change).areReadable()).toBe(false);
    expect(files().areReadable()).toBe(true);
  });

  it("is not asked for where others may change the directory", () => {
    chmodSync(home, 0o777);
    expect(files().areReadable()).toBe(false);
  });
});

it("leaves no descriptor open of what is no regular file", () => {
  const open = (): number => readdirSync("/proc/self/fd").length;
  const before = open();
  for (let times = 0; times < 50; times += 1) expect(() => openRegular(home)).toThrow(UntrustedFileError);
  expect(open()).toBe(before);
});
