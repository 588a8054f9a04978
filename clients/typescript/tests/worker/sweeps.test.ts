/** The handle of a sweep whose client is in another thread: what is handed over, and what cannot be called. */

import { MessageChannel } from "node:worker_threads";
import { expect, it } from "vitest";
import { NotFound } from "../../src/core/errors.js";
import type { Port } from "../../src/transports/port.js";
import { RemoteClient } from "../../src/worker/remote.js";
import { serveClient } from "../../src/worker/serve.js";
import { ofSweep } from "../../src/worker/served-sweeps.js";
import { until } from "../support/broker.js";
import { afterwards } from "../support/clients.js";
import { failed } from "../support/fake-broker.js";
import { opened } from "../support/streams.js";

const RUNNING = { sweepId: "s", status: "running", done: 1, of: 4 };
const CELL = { dtype: "<i8", data: new Uint8Array(8) };

it("hands the cells of its updates over, and ends them at once when they are returned from", async () => {
  const [broker, client] = await opened({
    GetSweepStatus: ({ data }) => (data.sweepId === "s" ? RUNNING : failed("NOT_FOUND")),
    FetchMissed: ({ data }) => ({ ...data, toSeq: data.fromSeq - 1, oldestSeq: 1, messages: [] }),
  });
  const { port1, port2 } = new MessageChannel();
  const handedOver: ArrayBuffer[] = [];
  const post = port1.postMessage.bind(port1);
  port1.postMessage = ((message: unknown, list: readonly ArrayBuffer[] = []) => {
    handedOver.push(...list);
    post(message, list);
  }) as typeof port1.postMessage;
  void serveClient(port1 as unknown as Port, client);
  const remote = new RemoteClient(port2 as unknown as Port);
  afterwards(() => remote.close());
  const updates = (await remote.findSweep("s")).updates();
  const first = updates.next();
  await until(() => broker.prefixes.has("progress progress.s"), "the subscription");
  await broker.publish("progress.s", "SweepProgress", { ...RUNNING, cellsDone: { cell: CELL } });
  expect((await first).value).toMatchObject({ done: 1, cellsDone: { cell: Float64Array.of(0) } });
  expect(handedOver.length).toBe(1);
  const next = updates.next();
  await updates.return();
  expect((await next).done).toBe(true);
  await until(() => !broker.prefixes.has("progress progress.s"), "the end of the subscription");
  await expect(remote.findSweep("t")).rejects.toBeInstanceOf(NotFound);
});

it("calls nothing that is no method of a sweep", async () => {
  const [broker, client] = await opened({ GetSweepStatus: () => RUNNING });
  await expect(ofSweep(client, "s", "constructor" as never, [])).rejects.toThrow("a sweep has no method constructor");
  expect(broker.of("GetSweepStatus")).toEqual([]);
  await client.close();
});
