/** A program in Python beside the pages, as a notebook is: it has a client of the same broker, and runs what it is given. */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { PYTHON, ROOT } from "../../../../typescript/tests/support/broker";

const PROGRAM = `
import json, sys
import backtestr
client = backtestr.connect(timeout=30)
state = client.shared_state()
print("ready", flush=True)
for line in sys.stdin:
    try:
        print("value " + json.dumps(eval(json.loads(line))), flush=True)
    except Exception as error:
        print("error " + json.dumps(f"{type(error).__name__}: {error}"), flush=True)
`;

interface Waiter {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class Notebook {
  readonly #process: ChildProcess;
  readonly #waiters: Waiter[] = [];
  #stderr = "";

  private constructor(connectionFile: string) {
    this.#process = spawn(PYTHON, ["-c", PROGRAM], {
      cwd: ROOT,
      env: { ...process.env, BACKTESTR_CONNECTION_FILE: connectionFile, BACKTESTR_PURE: "1" },
      stdio: ["pipe", "pipe", "pipe"],
    });
    const { stdout, stderr } = this.#process;
    stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-10_000);
    });
    if (stdout !== null) createInterface({ input: stdout }).on("line", (line) => this.#take(line));
    this.#process.once("exit", () => {
      for (const one of this.#waiters.splice(0)) one.reject(new Error(`the notebook has ended: ${this.#stderr}`));
    });
  }

  /** Starts it, and resolves once it is connected. */
  static async started(connectionFile: string): Promise<Notebook> {
    const notebook = new Notebook(connectionFile);
    await notebook.#next();
    return notebook;
  }

  /** Returns the value of an expression in which `client` is its client and `state` its shared state. Throws what it raises. */
  async value(expression: string): Promise<unknown> {
    const next = this.#next();
    this.#process.stdin?.write(`${JSON.stringify(expression)}\n`);
    return next;
  }

  /** Ends it, and waits until it is gone. */
  async end(): Promise<void> {
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    if (this.#process.exitCode !== null) return;
    this.#process.stdin?.end();
    await gone;
  }

  #next(): Promise<unknown> {
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  #take(line: string): void {
    const [kind, ...rest] = line.split(" ");
    const waiter = this.#waiters.shift();
    if (kind === "error") waiter?.reject(new Error(JSON.parse(rest.join(" "))));
    else waiter?.resolve(kind === "value" ? JSON.parse(rest.join(" ")) : undefined);
  }
}
