/**
 * Clients in Node that work all the time: `node load.mjs FILE`. `benchmarks/chaos/node.py` kills their broker meanwhile.
 *
 * It prints a line of JSON for each client after each answer ({"name", "done"}), and at the end, once it has read `stop`,
 * what must be true: {"versions", "sum", "backtests", "faults"}.
 */

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { connect, StateConflict } from "@backtestr/client";

const [file] = process.argv.slice(2);
const PATIENCE_MS = 120_000;
const BACKTEST = { algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1m", start: "2024-01-01", end: "2024-01-15" };
const faults = [];
let isOver = false;

/** Repeats one kind of work with a client of its own. */
async function load(name, work) {
  const client = await connect({
    connectionFile: file,
    clientId: name,
    timeoutMs: PATIENCE_MS,
    requestTimeoutMs: PATIENCE_MS,
  });
  let done = 0;
  try {
    while (!isOver) {
      await work(client);
      done += 1;
      console.log(JSON.stringify({ name, done }));
    }
  } catch (error) {
    faults.push(`${name} failed after ${done}: ${error.name}: ${error.message}`);
    console.log(JSON.stringify({ name, fault: true }));
  }
  await client.close();
  return done;
}

/** Changes of a key that only this client changes: each makes the next version. */
function ownKey(key) {
  const own = { key, version: 0 };
  own.work = async (client) => {
    const { version } = await client.request("UpdateState", { key, value: own.version + 1 });
    if (version !== own.version + 1) throw new Error(`${key} was at ${own.version}, and was set to version ${version}`);
    own.version = version;
  };
  return own;
}

/** Increments of a key that other clients increment, too. */
const shared = { made: 0 };
function increments() {
  let [version, value] = [0, 0];
  return async (client) => {
    for (;;) {
      try {
        const made = await client.request("UpdateState", {
          key: "chaos.sum",
          value: value + 1,
          expectedVersion: version,
        });
        [version, value] = [made.version, value + 1];
        shared.made += 1;
        return;
      } catch (error) {
        if (!(error instanceof StateConflict)) throw error;
        [version, value] = [error.details.currentVersion, error.details.currentValue ?? 0];
      }
    }
  };
}

/** The changes that a backtest's readers were given: how often each came, and a digest that does not depend on ids. */
async function told(client) {
  const run = await client.backtest(BACKTEST);
  const changes = new Map();
  const digest = createHash("sha256");
  let orders = 0;
  for await (const one of run.orders()) {
    const key = `${one.orderId} ${one.status}`;
    changes.set(key, (changes.get(key) ?? 0) + 1);
    digest.update(JSON.stringify([one.side, one.quantity, one.price, one.status, one.timestamp, one.fillPrice]));
    orders += 1;
  }
  const result = await run.result({ tables: ["orders"] });
  const twice = [...changes.values()].filter((times) => times > 1).length;
  if (twice > 0) faults.push(`backtest ${run.id}: ${twice} changes of orders came twice`);
  return {
    id: run.id,
    orders,
    rows: result.orders.rows,
    digest: digest.digest("hex"),
    equity: result.metrics.finalEquity,
  };
}

const backtests = [];
let undisturbed;
async function backtest(client) {
  const { id, ...story } = await told(client);
  backtests.push(id);
  undisturbed ??= story;
  if (JSON.stringify(story) !== JSON.stringify(undisturbed)) {
    faults.push(`backtest ${id} told ${JSON.stringify(story)}; an undisturbed one ${JSON.stringify(undisturbed)}`);
  }
}

/** Follows the shared state: after the end it must be what the others have written. */
const follower = await connect({
  connectionFile: file,
  clientId: "follower",
  timeoutMs: PATIENCE_MS,
  requestTimeoutMs: PATIENCE_MS,
});
await follower.state.ready();
await backtest(follower);
console.log(JSON.stringify({ name: "ready" }));

const own = [0, 1, 2].map((number) => ownKey(`chaos.own.${number}`));
const loads = [
  load("ping", (client) => client.ping()),
  ...own.map((one) => load(one.key, one.work)),
  load("sum 1", increments()),
  load("sum 2", increments()),
  load("backtests", backtest),
];
createInterface({ input: process.stdin }).once("line", () => {
  isOver = true;
});
const done = await Promise.all(loads);
for (const { key, version } of own) {
  const entry = await follower.request("GetState", { key });
  if (entry.version !== version || entry.value !== version) {
    faults.push(`${key} was acknowledged at ${version} and is ${entry.value} at ${entry.version}`);
  }
}
const sum = await follower.request("GetState", { key: "chaos.sum" });
if (sum.version !== shared.made || sum.value !== shared.made) {
  faults.push(`${shared.made} increments were acknowledged, and the sum is ${sum.value} at ${sum.version}`);
}
const known = new Map((await follower.listBacktests()).map((one) => [one.backtestId, one.status]));
if (known.size !== backtests.length)
  faults.push(`${backtests.length} backtests were started, and ${known.size} are known`);
for (const id of backtests) if (known.get(id) !== "completed") faults.push(`backtest ${id} is ${known.get(id)}`);
const deadline = performance.now() + 10_000;
for (const { key, version } of own) {
  while (follower.state.peek(key) !== version && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  if (follower.state.peek(key) !== version)
    faults.push(`${key} is ${follower.state.peek(key)} in the follower, not ${version}`);
}
const changes = own.reduce((all, one) => all + one.version, 0) + shared.made;
const { gapsSeen, gapsRepaired, messagesLost, sessions } = follower.statistics;
await follower.close();
console.log(
  JSON.stringify({
    pings: done[0],
    changes,
    backtests: backtests.length,
    faults,
    gapsSeen,
    gapsRepaired,
    messagesLost,
    sessions,
  }),
);
