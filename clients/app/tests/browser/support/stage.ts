/** A broker with directories of its own, and a server of the page before it: all real processes, ended by `stop`. */

import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { Broker, PYTHON, QUICK, ROOT, until } from "../../../../typescript/tests/support/broker";

const LINK = /http:\/\/127\.0\.0\.1:\d+\/\?token=\S+/;
const END_MS = 15_000;

export interface StageOptions {
  /** Texts of `broker.toml` and `engine.toml`. */
  readonly broker?: string;
  readonly engine?: string;
  /** False leaves the broker unstarted; `stage.broker.start()` starts it later. */
  readonly withBroker?: boolean;
  /** MiB that a page may upload. */
  readonly uploadLimit?: number;
}

/** `backtestr ui` as a process, and what it printed. */
export class UiServer {
  readonly #process: ChildProcess;
  #output = "";

  constructor(environment: NodeJS.ProcessEnv, args: readonly string[] = []) {
    this.#process = spawn(PYTHON, ["-m", "backtestr", "ui", "--no-browser", ...args], {
      cwd: ROOT,
      env: environment,
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.setEncoding("utf8");
      stream?.on("data", (text: string) => {
        this.#output = (this.#output + text).slice(-100_000);
      });
    }
  }

  get isRunning(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  get output(): string {
    return this.#output;
  }

  /** Returns the link that it prints. */
  async link(): Promise<string> {
    const found = await until(
      () => LINK.exec(this.#output)?.[0] ?? (this.isRunning ? undefined : ""),
      "the link of backtestr ui",
      60_000,
    );
    if (found === "") throw new Error(`backtestr ui has ended:\n${this.#output}`);
    return found;
  }

  /** Ends it, and waits until it is gone. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    if (!this.isRunning) return;
    this.#process.kill(signal);
    try {
      await until(() => !this.isRunning, "the end of backtestr ui", END_MS);
    } catch (error) {
      this.#process.kill("SIGKILL");
      throw error;
    }
  }
}

export class Stage {
  readonly broker: Broker;
  readonly environment: NodeJS.ProcessEnv;
  readonly #uiArguments: readonly string[];
  #server: UiServer;

  private constructor(broker: Broker, copy: string, uiArguments: readonly string[]) {
    this.broker = broker;
    this.environment = {
      ...broker.environment,
      PYTHONPATH: `${copy}:${broker.environment.PYTHONPATH ?? ""}`,
    };
    this.#uiArguments = uiArguments;
    this.#server = new UiServer(this.environment, uiArguments);
  }

  /** Starts broker and server at once; `copy` is that of `servedCopy`. */
  static async started(copy: string, options: StageOptions = {}): Promise<Stage> {
    const broker = new Broker({
      broker: options.broker ?? QUICK,
      ...(options.engine === undefined ? {} : { engine: options.engine }),
    });
    const limit = options.uploadLimit === undefined ? [] : ["--upload-limit", String(options.uploadLimit)];
    const stage = new Stage(broker, copy, limit);
    try {
      await Promise.all([options.withBroker === false ? undefined : broker.start(), stage.link()]);
    } catch (error) {
      await stage.stop();
      throw error;
    }
    return stage;
  }

  /** The link that the server printed at its start; it opens once. */
  link(): Promise<string> {
    return this.#server.link();
  }

  /** Asks the server that runs for another link, as `backtestr ui` in a second terminal does. */
  async anotherLink(): Promise<string> {
    const asked = new UiServer(this.environment);
    try {
      return await asked.link();
    } finally {
      await asked.end();
    }
  }

  /** Ends the server as Ctrl-C does, or as a crash with SIGKILL. */
  endServer(signal?: NodeJS.Signals): Promise<void> {
    return this.#server.end(signal);
  }

  /** Starts the server again after `endServer`, at the port that `link` names. */
  async restartServer(port: number): Promise<string> {
    this.#server = new UiServer(this.environment, ["--port", String(port), ...this.#uiArguments]);
    return this.#server.link();
  }

  /** Ends the server, the broker, and a broker that the page has started. */
  async stop(): Promise<void> {
    await this.#server.end();
    const started = this.#brokerOfThePage();
    if (started !== undefined) {
      process.kill(started, "SIGTERM");
      await until(() => !runs(started), "the end of the broker that the page started", END_MS);
    }
    await this.broker.stop();
  }

  #brokerOfThePage(): number | undefined {
    try {
      const { pid } = JSON.parse(readFileSync(this.broker.connectionFile, "utf8")) as { pid: number };
      return runs(pid) && !(this.broker.isRunning && pid === this.broker.pid) ? pid : undefined;
    } catch {
      return undefined; // there is none
    }
  }
}

function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
}
