/**
 * Real brokers for tests: processes of this project's Python environment, each with directories of its own.
 *
 * Nothing here waits for a time: it waits for evidence (a connection file, an exit, a line of the log) until a deadline.
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export const ROOT = resolve(import.meta.dirname, "../../../..");
export const PYTHON = join(ROOT, ".venv/bin/python");
/** A cold start compiles the kernels. */
const START_MS = 90_000;
const STOP_MS = 10_000;

/** One worker of each kind and no spare, which is the quickest start, and news ten times a second. */
export const QUICK =
  "[limits]\nheartbeat_interval_ms = 100\nwatermark_interval_ms = 50\nsession_timeout_ms = 120_000\n" +
  "[workers]\ncompute = 1\nspare = 0\n";
export const TCP = '[transport]\nkind = "tcp"\n';
/** A worker that simulates bar by bar: a backtest takes seconds. */
export const SLOW_ENGINE = "[worker]\nchunk_bars = 1\n";

/** Waits until `holds` returns something other than false or undefined, and returns that. */
export async function until<T>(
  holds: () => T | Promise<T>,
  what: string,
  ms = 20_000,
): Promise<Exclude<T, false | undefined>> {
  const deadline = performance.now() + ms;
  for (;;) {
    const found = await holds();
    if (found !== false && found !== undefined) return found as Exclude<T, false | undefined>;
    if (performance.now() > deadline) throw new Error(`waited ${ms} ms for ${what}`);
    await new Promise((next) => setTimeout(next, 5));
  }
}

/** A broker of its own for a test. */
export class Broker {
  readonly home: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly connectionFile: string;
  #process: ChildProcess | undefined;

  /** `config`: texts of `broker.toml` and `engine.toml`. */
  constructor(config: { broker?: string; engine?: string } = {}) {
    if (!existsSync(PYTHON)) throw new Error(`there is no ${PYTHON}; run: make setup`);
    // A short path: that of a socket may have 107 bytes.
    this.home = mkdtempSync(join(tmpdir(), "bt-ts-"));
    mkdirSync(join(this.home, "config"));
    writeFileSync(join(this.home, "config", "broker.toml"), config.broker ?? QUICK);
    if (config.engine !== undefined) writeFileSync(join(this.home, "config", "engine.toml"), config.engine);
    this.connectionFile = join(this.home, "run", "connection.json");
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("BACKTESTR_"));
    this.environment = {
      ...Object.fromEntries(inherited),
      BACKTESTR_PURE: "1",
      BACKTESTR_RUNTIME_DIR: join(this.home, "run"),
      BACKTESTR_DATA_DIR: join(this.home, "data"),
      BACKTESTR_CONFIG_DIR: join(this.home, "config"),
      PYTHONPATH: join(ROOT, "tests/support/without_pandas"),
    };
  }

  /** Starts a broker and waits until it serves. */
  static async started(config: { broker?: string; engine?: string } = {}): Promise<Broker> {
    const broker = new Broker(config);
    await broker.start();
    return broker;
  }

  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error("the broker was not started");
    return pid;
  }

  get isRunning(): boolean {
    const one = this.#process;
    return one !== undefined && one.exitCode === null && one.signalCode === null;
  }

  get log(): string {
    const file = join(this.home, "broker.log");
    return existsSync(file) ? readFileSync(file, "utf8") : "";
  }

  /** Begins to start it, without waiting. */
  launch(): void {
    const log = openSync(join(this.home, "broker.log"), "a");
    this.#process = spawn(PYTHON, ["-m", "backtestr_broker"], {
      cwd: ROOT,
      env: this.environment,
      stdio: ["ignore", log, log],
    });
  }

  /** Starts it, and waits until it serves. */
  async start(): Promise<void> {
    this.launch();
    await until(() => this.#serves() || !this.isRunning, "the connection file", START_MS);
    if (!this.#serves()) throw new Error(`the broker did not start:\n${this.log}`);
  }

  #serves(): boolean {
    try {
      return JSON.parse(readFileSync(this.connectionFile, "utf8")).pid === this.pid;
    } catch {
      return false;
    }
  }

  signal(name: NodeJS.Signals): void {
    process.kill(this.pid, name);
  }

  /** Ends it as a crash would, and waits until its sockets are closed. */
  async kill(): Promise<void> {
    const workers = this.workerPids();
    this.signal("SIGKILL");
    await until(() => !this.isRunning, "the end of the broker", STOP_MS);
    await until(() => workers.every((pid) => !isAlive(pid)), "the end of its workers", STOP_MS);
  }

  /** The ids of the processes that the broker has started. */
  workerPids(): number[] {
    const script =
      "import psutil, sys; print(*[one.pid for one in psutil.Process(int(sys.argv[1])).children(recursive=True)])";
    const output = execFileSync(PYTHON, ["-c", script, String(this.pid)], { encoding: "utf8" });
    return output
      .split(" ")
      .filter((one) => one.trim() !== "")
      .map(Number);
  }

  /** Runs `backtestr …` on the broker's machine, and returns what it prints. */
  command(...args: string[]): string {
    const program = "from backtestr.cli.entry import main; main()";
    return execFileSync(PYTHON, ["-c", program, ...args], { env: this.environment, encoding: "utf8" });
  }

  /** Stops it, and removes its directories. */
  async stop(): Promise<void> {
    if (this.isRunning) {
      this.signal("SIGCONT");
      this.signal("SIGTERM");
      try {
        await until(() => !this.isRunning, "the end of the broker", STOP_MS);
      } catch (error) {
        this.signal("SIGKILL");
        throw error;
      }
    }
    rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie is gone.
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
}
