/** Signers of tests, and messages as a broker would send them. */

import { createHmac, timingSafeEqual } from "node:crypto";
import { encodeMessage } from "../../src/core/codec.js";
import { encode } from "../../src/core/msgpack-encoder.js";
import type { Label, Signer } from "../../src/core/transport.js";
import { utf8 } from "../../src/core/utf8.js";

/** Returns a signer with a key of 32 bytes, written as the protocol describes it and in no quicker way. */
export function signerOf(key: Uint8Array): Signer {
  const sign = (label: Label, frames: readonly Uint8Array[]): Uint8Array => {
    const mac = createHmac("sha256", key).update(label);
    for (const frame of frames) {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(frame.length);
      mac.update(length).update(frame);
    }
    return mac.digest();
  };
  return { sign, verify: (label, frames, signature) => timingSafeEqual(sign(label, frames), signature) };
}

export const RIGHT = signerOf(new Uint8Array(32));
export const WRONG = signerOf(new Uint8Array(32).fill(1));
export const WALL_MS = 1_790_000_000_000;

/** Returns the frames of an answer. */
export function answer(
  correlationId: string | null,
  type: string,
  data: unknown,
  signer: Signer | null = RIGHT,
  attachments: Uint8Array[] = [],
): Uint8Array[] {
  const envelope = {
    id: "a",
    timestamp: WALL_MS,
    schemaVersion: 1,
    messageType: "Response" as const,
    payload: { type, data },
    correlationId: correlationId ?? undefined,
  };
  return encodeMessage(signer, "rep", envelope, attachments);
}

/** Returns the frames of a stream message. */
export function published(
  topic: string,
  seq: number,
  type: string,
  data: unknown,
  instanceId = "i1",
  signer: Signer | null = RIGHT,
): Uint8Array[] {
  const envelope = {
    id: "m",
    timestamp: WALL_MS,
    schemaVersion: 1,
    messageType: "Stream",
    payload: { type, data },
    seq,
    instanceId,
  };
  const body = encode(envelope);
  const name = utf8(topic);
  return signer === null ? [name, body] : [name, signer.sign("pub", [name, body]), body];
}

/** Returns the data of an error as a broker sends them. */
export function failure(code: string, details: object | null = null, actions: readonly string[] = []): object {
  return {
    code,
    message: "?",
    details,
    recoveryActions: actions.map((action) => ({ action, description: "", automatic: true, userRequired: false })),
    severity: "Error",
    component: "broker",
    timestamp: WALL_MS,
  };
}
