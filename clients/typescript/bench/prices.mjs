/**
 * A million prices of each topic of a tape, read as maps or as columns: `node prices.mjs FILE FORM:TOPIC…`. Prints JSON.
 * A link of `backtestr ui` in the place of the connection file has them come through its tunnel.
 *
 * The time is from the first price that the program is given to the last. A timer that is always due runs beside it: its
 * largest gap is how long anything else in the process had to wait.
 */

import { connect } from "@backtestr/client";
import { connectThrough } from "./browser.mjs";

const PRICES = 1_000_000;
const [file, ...topics] = process.argv.slice(2);
const client = file.startsWith("http") ? await connectThrough(file) : await connect({ connectionFile: file });

async function maps(subscription) {
  let [count, began] = [0, 0];
  for await (const one of subscription) {
    if (one.kind !== "update") throw new Error(`a ${one.kind} came after ${count} prices`);
    if (count === 0) began = performance.now();
    count += 1;
    if (count === PRICES) return performance.now() - began;
  }
  throw new Error(`only ${count} prices came`);
}

async function columns(subscription) {
  let [count, began] = [0, 0];
  for await (const one of subscription.batches()) {
    if (one.kind !== "prices") throw new Error(`a ${one.kind} came after ${count} prices`);
    if (count === 0) began = performance.now();
    count += one.rows;
    if (count === PRICES) return performance.now() - began;
  }
  throw new Error(`only ${count} prices came`);
}

const found = [];
for (const named of topics) {
  const [form, topic] = named.split(":");
  let [gap, last] = [0, performance.now()];
  const timer = setInterval(() => {
    const now = performance.now();
    gap = Math.max(gap, now - last);
    last = now;
  }, 1);
  const ms = await (form === "maps" ? maps : columns)(client.subscribe(topic));
  gap = Math.max(gap, performance.now() - last);
  clearInterval(timer);
  found.push({ form, rate: (1000 * PRICES) / ms, gap });
}
await client.close();
console.log(JSON.stringify(found));
