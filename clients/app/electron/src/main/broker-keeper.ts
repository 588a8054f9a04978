/** Does what the life of the broker asks for: starts it, waits for it, stops it, and lets the app quit. */

import type { Answered } from "../../../renderer/src/host/electron-bridge";
import { type BrokerCommand, NO_BROKER } from "./broker-command";
import { type BrokerEvent, type BrokerLife, brokerStep } from "./broker-life";
import type { OnQuit } from "./settings";

/** Milliseconds until a broker serves; the first start on a machine compiles its kernels. */
export const START_MS = 120_000;
/** Milliseconds that a broker may take to end. */
export const STOP_MS = 15_000;

/** A process of a broker. */
export interface StartedBroker {
  stop(): void;
  readonly lastLine: string;
  readonly log: string;
}

/** The parts of the app that the keeper calls. */
export interface KeeperParts {
  command(): BrokerCommand | null;
  spawn(command: BrokerCommand, ended: () => void): StartedBroker;
  /** True while the client has a session with a broker. */
  isConnected(): boolean;
  /** Asks the user whether the broker stays; null to go on with the app. */
  ask(): Promise<Exclude<OnQuit, "ask"> | null>;
  onQuit(): OnQuit;
  quit(): void;
  after(milliseconds: number, due: () => void): () => void;
}

type StartAnswer = Answered<null>;

/** The broker of this app. */
export class BrokerKeeper {
  readonly #parts: KeeperParts;
  #life: BrokerLife = "none";
  #process: StartedBroker | undefined;
  #waiters: ((answer: StartAnswer) => void)[] = [];
  #cancelTimer: (() => void) | undefined;
  #isAsking = false;

  constructor(parts: KeeperParts) {
    this.#parts = parts;
  }

  get life(): BrokerLife {
    return this.#life;
  }

  /** Starts a broker unless one serves; resolves once one does, or with the reason why not. */
  start(): Promise<StartAnswer> {
    return new Promise((resolve) => {
      this.#waiters.push(resolve);
      this.#take(this.#parts.isConnected() ? "startAskedWhileOneServes" : "startAsked");
    });
  }

  /** Notes that the client has a session with a broker. */
  connected(): void {
    this.#take("serves");
  }

  /** The user wants to quit: asks about a broker that was started here, and calls `quit` when the app may end. */
  async quitAsked(): Promise<void> {
    const choice = this.#parts.onQuit();
    if (choice !== "ask" && this.#isOurs) this.#take(choice === "leave" ? "leaveChosen" : "stopChosen");
    else if (!this.#isAsking) await this.#take("quitAsked");
  }

  get #isOurs(): boolean {
    return this.#life === "starting" || this.#life === "running";
  }

  #take(event: BrokerEvent): Promise<void> | undefined {
    const [life, ...effects] = brokerStep(this.#life, event);
    if (life !== this.#life) this.#cancelTimer?.();
    this.#life = life;
    let asking: Promise<void> | undefined;
    for (const effect of effects) {
      switch (effect) {
        case "spawn":
          this.#spawn();
          break;
        case "tellStarted":
          this.#tell({ value: null });
          break;
        case "tellFailed":
          this.#tell(failure("BROKER_FAILED", `the broker did not start: ${this.#said()}`));
          break;
        case "tellLate":
          this.#tell(
            failure("BROKER_LATE", `the broker has not come to serve in ${START_MS / 1000} s: ${this.#said()}`),
          );
          break;
        case "stop":
          this.#process?.stop();
          this.#wait(STOP_MS);
          break;
        case "ask":
          asking = this.#ask();
          break;
        case "quit":
          this.#parts.quit();
      }
    }
    return asking;
  }

  #spawn(): void {
    const command = this.#parts.command();
    if (command === null) {
      this.#life = "none";
      this.#tell(failure("BROKER_NOT_FOUND", NO_BROKER));
      return;
    }
    try {
      const started = this.#parts.spawn(command, () => {
        if (this.#process === started) this.#take("exits");
      });
      this.#process = started;
    } catch (error) {
      this.#life = "none";
      this.#tell(failure("BROKER_FAILED", `the broker was not started: ${(error as Error).message}`));
      return;
    }
    this.#wait(START_MS);
  }

  #wait(milliseconds: number): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.#parts.after(milliseconds, () => this.#take("isLate"));
  }

  #said(): string {
    return `${this.#process?.lastLine || "it wrote nothing"} (its log is ${this.#process?.log})`;
  }

  #tell(answer: StartAnswer): void {
    for (const one of this.#waiters.splice(0)) one(answer);
  }

  async #ask(): Promise<void> {
    this.#isAsking = true;
    try {
      const choice = await this.#parts.ask();
      // It may have ended while the question stood.
      if (choice !== null) this.#take(!this.#isOurs ? "quitAsked" : choice === "leave" ? "leaveChosen" : "stopChosen");
    } finally {
      this.#isAsking = false;
    }
  }
}

function failure(code: string, message: string): StartAnswer {
  return { error: { code, message } };
}
