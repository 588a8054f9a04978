/** The streams that a served client gives, as parcels that travel together. */

import type { Client } from "../client.js";
import { nextTurn } from "../clock.js";
import type { ErrorReport } from "../core/error-log.js";
import type { ClientEvents } from "../events.js";
import type { SubscribeOptions } from "../options.js";
import { PriceBatch } from "../price-batch.js";
import { CHUNK, type EventItem, type StreamKind, thrown } from "./messages.js";
import { servedState, type WritableStream } from "./served-state.js";

/** Events of one name that wait for their reader; the oldest are dropped beyond that, and counted. */
export const MAX_EVENTS = 256;

/** Gives the items of a stream in parcels: batches of prices one by one, others as many as have come together. */
export async function* parcels(
  client: Client,
  kind: StreamKind,
  args: readonly unknown[],
  stream: WritableStream,
): AsyncGenerator<readonly unknown[]> {
  switch (kind) {
    case "updates":
    case "batches": {
      const subscription = client.subscribe(...(args as [string, SubscribeOptions?]));
      stream.close = (): void => subscription.close();
      if (kind === "updates") yield* together(subscription);
      else for await (const batch of subscription.batches()) yield [batch instanceof PriceBatch ? { ...batch } : batch];
      return;
    }
    case "events":
      yield* events(client, args[0] as keyof ClientEvents, stream);
      return;
    case "state":
      yield* servedState(client.sharedState(args[0] as string), stream);
      return;
    case "sweep": {
      const sweep = await client.findSweep(args[0] as string);
      stream.close = (): void => sweep.close();
      yield* together(sweep.updates());
      return;
    }
    default: {
      const run = await client.run(args[0] as string);
      const items = run[kind]();
      stream.close = (): void => run.abandon();
      yield* together(items);
    }
  }
}

/** Gives items that come within one turn of the event loop as one parcel of up to `CHUNK`. */
async function* together(items: AsyncIterable<unknown>): AsyncGenerator<readonly unknown[]> {
  const iterator = items[Symbol.asyncIterator]();
  let parcel: unknown[] = [];
  let next = iterator.next();
  let turn: Promise<null> | undefined;
  try {
    for (;;) {
      turn ??= parcel.length === 0 ? undefined : nextTurn().then(() => null);
      const came = turn === undefined ? await next : await Promise.race([next, turn]);
      if (came === null || parcel.length >= CHUNK) {
        yield parcel;
        parcel = [];
        turn = undefined;
      }
      if (came === null) continue;
      if (came.done === true) break;
      parcel.push(came.value);
      next = iterator.next();
    }
    if (parcel.length > 0) yield parcel;
  } finally {
    await iterator.return?.();
  }
}

/** Gives the events of one name. While the reader is slow the latest `MAX_EVENTS` wait. */
async function* events(
  client: Client,
  name: keyof ClientEvents,
  stream: WritableStream,
): AsyncGenerator<readonly EventItem[]> {
  let waiting: unknown[] = [];
  let missed = 0;
  let wake = (): void => undefined;
  let isShut = false;
  const off = client.on(name, (event) => {
    if (waiting.length >= MAX_EVENTS) {
      waiting.shift();
      missed += 1;
    }
    waiting.push(name === "error" ? { ...event, error: thrown((event as ErrorReport).error) } : event);
    wake();
  });
  stream.close = (): void => {
    isShut = true;
    wake();
  };
  try {
    while (!isShut) {
      if (waiting.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      const items = waiting.map((event, index) => ({ event, missed: index === 0 ? missed : 0 }));
      waiting = [];
      missed = 0;
      yield items;
    }
  } finally {
    off();
  }
}
