/** A broker that this app starts: its process, and nothing of any other broker. */

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import type { BrokerCommand } from "./broker-command";

/** Characters of the log that an error quotes. */
const QUOTED = 500;

/** The process of a broker. It outlives the app unless it is stopped. */
export class BrokerProcess {
  readonly #process: ChildProcess;
  readonly #log: string;
  #hasEnded = false;

  /** Starts it, with its output in the file `log`. `ended` is called once, when it has ended or was not there. */
  constructor(command: BrokerCommand, log: string, ended: () => void) {
    this.#log = log;
    const output = openSync(log, "w", 0o600);
    try {
      this.#process = spawn(command.file, command.args, {
        detached: true, // a group of its own, which the end of the app does not reach
        stdio: ["ignore", output, output],
        windowsHide: true,
      });
    } finally {
      closeSync(output);
    }
    this.#process.unref();
    const once = (): void => {
      if (this.#hasEnded) return;
      this.#hasEnded = true;
      ended();
    };
    this.#process.once("error", once);
    this.#process.once("exit", once);
  }

  /** Asks it to end; it writes what it holds first. On Windows it is ended at once. */
  stop(): void {
    if (!this.#hasEnded) this.#process.kill("SIGTERM");
  }

  /** The last line that it wrote, for an error. */
  get lastLine(): string {
    try {
      const lines = readFileSync(this.#log, "utf8").trimEnd().split("\n");
      return (lines.at(-1) ?? "").slice(-QUOTED);
    } catch {
      return "";
    }
  }

  /** The file of its output. */
  get log(): string {
    return this.#log;
  }
}
