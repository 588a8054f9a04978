/** The program of the thread that `connectInWorker` starts: it connects, serves, and ends when its client is closed. */

import { parentPort, workerData } from "node:worker_threads";
import { connect } from "./node/connect.js";
import type { Port } from "./transports/port.js";
import { type FromWorker, thrown } from "./worker/messages.js";
import { serveClient, type ThreadData } from "./worker.js";

async function main(): Promise<void> {
  if (parentPort === null) throw new Error("this is the program of a thread: use connectInWorker");
  const port = parentPort;
  const { options, ended } = workerData as ThreadData;
  // When nothing keeps this thread alive any more, its sockets are gone too.
  process.once("exit", () => {
    Atomics.store(ended, 0, 1);
    Atomics.notify(ended, 0);
  });
  try {
    const client = await connect(options);
    await serveClient(port as unknown as Port, client);
  } catch (error) {
    port.postMessage({ type: "failed", error: thrown(error) } satisfies FromWorker);
  } finally {
    port.close();
  }
}

void main();
