/** Updates are the messages of a topic with their data decoded. */

import type { DeliveredBatch, StreamMessage } from "./effects.js";
import { unpack } from "./msgpack-decoder.js";

/** One message of a topic. `type` names the contract of `data`; a client may get types that it does not know. */
export interface Update<Data = unknown> {
  readonly kind: "update";
  readonly topic: string;
  readonly seq: number;
  readonly type: string;
  readonly data: Data;
}

/** Decodes a message. Raises a `MessageError` for data that are damaged. */
export function readMessage({ topic, seq, type, data }: StreamMessage): Update {
  return { kind: "update", topic, seq, type, data: unpack(data) };
}

/** Decodes the messages of a batch together. Raises a `MessageError` if one of them is damaged. */
export function readBatch({ topic, seq, content }: DeliveredBatch): Update[] {
  return content.payloads().map(({ type, data }, index) => ({ kind: "update", topic, seq: seq + index, type, data }));
}
