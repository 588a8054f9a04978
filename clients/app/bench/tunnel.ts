/** The client in a page: its round trips and its columns, through worker, WebSocket, tunnel and broker. */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Page } from "playwright-core";
import { PYTHON, ROOT } from "../../typescript/tests/support/broker";
import { buildClientPage, showClientPage } from "../tests/browser/support/client-page";
import { type Stage, UiServer } from "../tests/browser/support/stage";
import { type Figure, quantile } from "./figures";

const TRIPS = 2_000;
const WARM_UP = 200;
const PRICES = 1_000_000;
const ROUNDS = 5;

/**
 * Measures in `page`, which was let in by the server of `stage`. `copy` is that of `servedCopy`.
 *
 * The prices come from a tape of a million that stand ready, packed and signed (`benchmarks/price_tape.py`), so that the
 * tunnel and the page are measured and no publisher. The time is from the first batch in the page to the last.
 */
export async function measureTunnel(page: Page, stage: Stage, copy: string): Promise<readonly Figure[]> {
  await buildClientPage(copy);
  await showClientPage(page);
  const trips = await roundTrips(page);
  const rates = await withTape(stage, async (link, topics) => {
    await page.goto(link);
    await showClientPage(page);
    const found: number[] = [];
    for (const topic of topics) found.push(await columnsPerSecond(page, topic));
    return found;
  });
  return [
    { what: "Ping from the page, p50", value: quantile(trips, 0.5), unit: "ms", target: 2, better: "less" },
    { what: "Ping from the page, p99", value: quantile(trips, 0.99), unit: "ms", better: "less" },
    {
      what: "a million prices as columns in the page, median of 5",
      value: Math.round(quantile(rates, 0.5) / 1000),
      unit: "k/s",
      target: 500,
      better: "more",
    },
  ];
}

function roundTrips(page: Page): Promise<number[]> {
  return page.evaluate(
    async ([count, warmUp]) => {
      const client = window.tried.host.connect();
      await client.ready();
      const took: number[] = [];
      for (let trip = -warmUp; trip < count; trip += 1) {
        const began = performance.now();
        await client.request("Ping", {});
        if (trip >= 0) took.push(performance.now() - began);
      }
      return took;
    },
    [TRIPS, WARM_UP] as const,
  );
}

function columnsPerSecond(page: Page, topic: string): Promise<number> {
  return page.evaluate(
    async ([name, prices]) => {
      const client = window.tried.host.connect();
      await client.ready();
      let [rows, began] = [0, 0];
      for await (const one of client.batches(name)) {
        if (one.kind !== "prices") throw new Error(`a ${one.kind} came after ${rows} prices`);
        if (rows === 0) began = performance.now();
        rows += one.rows;
        if (rows >= prices) break;
      }
      return (1000 * rows) / (performance.now() - began);
    },
    [topic, PRICES] as const,
  );
}

const TAPE = `
import sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, "benchmarks")
from price_tape import price_tape
file, *topics = sys.argv[1:]
broker = SimpleNamespace(connection_file=Path(file), runtime_dir=Path(file).parent)
with price_tape(broker, dict.fromkeys(topics, "columns")) as tape:
    print(tape, flush=True)
    sys.stdin.read()
`;

/** Runs a tape, and a server of the page that takes its prices from it. */
async function withTape<Result>(
  stage: Stage,
  measure: (link: string, topics: readonly string[]) => Promise<Result>,
): Promise<Result> {
  const topics = Array.from({ length: ROUNDS }, (_, round) => `prices.TAPE${round}.1m`);
  const home = mkdtempSync(join(tmpdir(), "bt-tape-"));
  const tape = spawn(PYTHON, ["-c", TAPE, stage.broker.connectionFile, ...topics], {
    cwd: ROOT,
    env: stage.environment,
    stdio: ["pipe", "pipe", "inherit"],
  });
  try {
    const file = await firstLine(tape);
    // A runtime directory of its own, since another server in the same one would be asked for its link.
    const server = new UiServer({
      ...stage.environment,
      BACKTESTR_RUNTIME_DIR: home,
      BACKTESTR_CONNECTION_FILE: file,
    });
    try {
      return await measure(await server.link(), topics);
    } finally {
      await server.end();
    }
  } finally {
    tape.stdin?.end();
    rmSync(home, { recursive: true, force: true });
  }
}

function firstLine(program: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    if (program.stdout !== null) createInterface({ input: program.stdout }).once("line", resolve);
    program.once("exit", (code) => reject(new Error(`the tape has ended with ${code}`)));
  });
}
