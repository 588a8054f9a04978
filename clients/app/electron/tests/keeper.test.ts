/** The keeper of the broker and the process of the client, with processes that are made here; then a real process. */

import { EventEmitter } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MessagePortMain, UtilityProcess } from "electron";
import { describe, expect, it, vi } from "vitest";
import { BrokerKeeper, type KeeperParts, START_MS, STOP_MS } from "../src/main/broker-keeper";
import { BrokerProcess } from "../src/main/broker-process";
import { ClientProcess } from "../src/main/client-process";
import type { OnQuit } from "../src/main/settings";

interface Made {
  readonly keeper: BrokerKeeper;
  readonly did: string[];
  connected: boolean;
  onQuit: OnQuit;
  answer: Exclude<OnQuit, "ask"> | null;
  ended: () => void;
  timer: { milliseconds: number; due: () => void } | undefined;
}

function made(parts: Partial<KeeperParts> = {}): Made {
  const did: string[] = [];
  const all: Omit<Made, "keeper"> & { keeper?: BrokerKeeper } = {
    did,
    connected: false,
    onQuit: "ask",
    answer: null,
    ended: () => undefined,
    timer: undefined,
  };
  all.keeper = new BrokerKeeper({
    command: () => ({ file: "python", args: [] }),
    spawn: (_command, ended) => {
      did.push("spawn");
      all.ended = ended;
      return { stop: () => did.push("stop"), lastLine: "no room", log: "/log" };
    },
    isConnected: () => all.connected,
    ask: async () => {
      did.push("ask");
      return all.answer;
    },
    onQuit: () => all.onQuit,
    quit: () => did.push("quit"),
    after: (milliseconds, due) => {
      const timer = { milliseconds, due };
      all.timer = timer;
      return () => {
        if (all.timer === timer) all.timer = undefined;
      };
    },
    ...parts,
  });
  return all as Made;
}

describe("a broker", () => {
  it("is started once for all who ask, and told of when it serves", async () => {
    const app = made();
    const both = [app.keeper.start(), app.keeper.start()];
    expect(app.timer?.milliseconds).toBe(START_MS);
    app.keeper.connected();
    expect(await Promise.all(both)).toEqual([{ value: null }, { value: null }]);
    expect([app.did, app.keeper.life, app.timer]).toEqual([["spawn"], "running", undefined]);
  });

  it("that runs already is used, and is not asked about", async () => {
    const app = made();
    app.connected = true;
    app.keeper.connected();
    expect(await app.keeper.start()).toEqual({ value: null });
    await app.keeper.quitAsked();
    expect(app.did).toEqual(["quit"]);
  });

  it("that does not start says why, and may be started again", async () => {
    const app = made();
    const first = app.keeper.start();
    app.ended();
    const message = "the broker did not start: no room (its log is /log)";
    expect(await first).toEqual({ error: { code: "BROKER_FAILED", message } });
    const second = app.keeper.start();
    app.timer?.due();
    expect(await second).toMatchObject({ error: { code: "BROKER_LATE" } });
    expect(app.did).toEqual(["spawn", "spawn", "stop"]);
    app.ended();
    expect(app.keeper.life).toBe("none");
    const none = made({ command: () => null });
    expect(await none.keeper.start()).toMatchObject({ error: { code: "BROKER_NOT_FOUND" } });
    const failing = made({
      spawn: () => {
        throw new Error("no log");
      },
    });
    expect(await failing.keeper.start()).toEqual({
      error: { code: "BROKER_FAILED", message: "the broker was not started: no log" },
    });
    expect([none.keeper.life, failing.keeper.life]).toEqual(["none", "none"]);
  });

  it("that was started here is left running, stopped, or neither, as the user answers", async () => {
    const app = made();
    void app.keeper.start();
    app.keeper.connected();
    await app.keeper.quitAsked();
    expect(app.did).toEqual(["spawn", "ask"]);
    app.answer = "leave";
    await app.keeper.quitAsked();
    expect(app.did.slice(2)).toEqual(["ask", "quit"]);
    app.answer = "stop";
    await app.keeper.quitAsked();
    expect([app.did.slice(4), app.keeper.life, app.timer?.milliseconds]).toEqual([
      ["ask", "stop"],
      "stopping",
      STOP_MS,
    ]);
    app.ended();
    expect(app.did.slice(6)).toEqual(["quit"]);
  });

  it("is asked about once at a time, not at all where the answer is remembered, and not where it has ended", async () => {
    let settle: (choice: "stop") => void = () => undefined;
    let questions = 0;
    const app = made({
      ask: () => {
        questions += 1;
        return new Promise((resolve) => {
          settle = resolve;
        });
      },
    });
    void app.keeper.start();
    app.keeper.connected();
    const asking = [app.keeper.quitAsked(), app.keeper.quitAsked()];
    expect(questions).toBe(1);
    app.ended();
    settle("stop");
    await Promise.all(asking);
    expect(app.did).toEqual(["spawn", "quit"]);
    const other = made();
    other.onQuit = "stop";
    void other.keeper.start();
    other.keeper.connected();
    await other.keeper.quitAsked();
    other.timer?.due();
    expect(other.did).toEqual(["spawn", "stop", "quit"]);
  });
});

describe("the process of the client", () => {
  class Forked extends EventEmitter {
    readonly posted: unknown[] = [];
    killed = 0;
    postMessage(message: unknown, ports: unknown): void {
      this.posted.push([message, ports]);
    }
    kill(): boolean {
      this.killed += 1;
      return true;
    }
  }

  it("is given the ports of windows, and started anew a few times when it fails", () => {
    const forked: Forked[] = [];
    const said: unknown[] = [];
    let now = 0;
    const client = new ClientProcess({
      fork: () => {
        const one = new Forked();
        forked.push(one);
        return one as unknown as UtilityProcess;
      },
      now: () => now,
      connection: (isConnected) => said.push(isConnected),
      restarted: () => said.push("restarted"),
      failed: (code) => said.push(["failed", code]),
    });
    const port = {} as MessagePortMain;
    client.serve(port);
    expect(forked[0]?.posted).toEqual([[{ type: "serve" }, [port]]]);
    forked[0]?.emit("message", { type: "status", status: "ready" });
    expect(client.isConnected).toBe(true);
    forked[0]?.emit("exit", 1);
    expect([client.isConnected, said]).toEqual([false, [true, false, "restarted"]]);
    now = 70_000; // the first one counts no more
    for (let times = 1; times <= 4; times += 1) forked.at(-1)?.emit("exit", 9);
    expect(said.slice(-2)).toEqual([false, ["failed", 9]]);
    expect(forked).toHaveLength(5);
    const last = made();
    expect(last.keeper.life).toBe("none");
  });

  it("is not started anew when the app ends it", () => {
    const forked = new Forked();
    const restarted = vi.fn();
    const fork = (): UtilityProcess => forked as unknown as UtilityProcess;
    const quiet = (): void => undefined;
    const client = new ClientProcess({ fork, now: () => 0, connection: quiet, restarted, failed: restarted });
    client.end();
    forked.emit("exit", 0);
    expect([forked.killed, restarted.mock.calls]).toEqual([1, []]);
  });
});

describe("a real process", () => {
  it("writes into its log, is stopped, and tells its end once", async () => {
    const folder = mkdtempSync(join(tmpdir(), "bt-broker-"));
    const log = join(folder, "broker.log");
    const ended = vi.fn();
    const script = "console.log('it serves'); setInterval(() => {}, 1000)";
    const started = new BrokerProcess({ file: process.execPath, args: ["-e", script] }, log, ended);
    await vi.waitUntil(() => existsSync(log) && readFileSync(log, "utf8").includes("serves"), 20_000);
    expect([started.lastLine, started.log]).toEqual(["it serves", log]);
    expect(ended).not.toHaveBeenCalled();
    started.stop();
    await vi.waitUntil(() => ended.mock.calls.length > 0, 20_000);
    started.stop();
    const missing = vi.fn();
    new BrokerProcess({ file: join(folder, "nothing"), args: [] }, log, missing);
    await vi.waitUntil(() => missing.mock.calls.length > 0, 20_000);
    expect([ended.mock.calls.length, missing.mock.calls.length]).toEqual([1, 1]);
    rmSync(folder, { recursive: true });
  });
});
