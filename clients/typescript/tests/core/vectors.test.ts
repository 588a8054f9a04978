/** The golden vectors of the protocol pass in both directions. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { decompress } from "../../src/compression/node.js";
import { openPayload } from "../../src/core/batches.js";
import { decodeMessage, decodeStream, encodeMessage, type Payload } from "../../src/core/codec.js";
import { type BacktestrError, MessageError } from "../../src/core/errors.js";
import { decode, unpack } from "../../src/core/msgpack-decoder.js";
import { encode } from "../../src/core/msgpack-encoder.js";
import type { Label } from "../../src/core/transport.js";
import { utf8 } from "../../src/core/utf8.js";
import { signerOf } from "../support/signing.js";

// biome-ignore lint/suspicious/noExplicitAny: vectors are plain JSON of many forms
type Json = any;

const VECTORS = join(import.meta.dirname, "../../../../protocol/vectors");

function read(name: string): { key: Uint8Array; cases: Json[] } {
  const { key, cases } = JSON.parse(readFileSync(join(VECTORS, `${name}.json`), "utf8"));
  return { key: bytes(key), cases };
}

function bytes(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, "hex"));
}

/** Values as the vectors write them: bin as `{"hex": …}`, and what is absent left out. */
function plain(value: unknown): Json {
  if (value instanceof Uint8Array) return { hex: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, one]) => one !== undefined);
  return Object.fromEntries(entries.map(([name, one]) => [name, plain(one)]));
}

const KEYS = [
  "id",
  "timestamp",
  "schemaVersion",
  "messageType",
  "payload",
  "correlationId",
  "sessionId",
  "counter",
  "instanceId",
];

/** Returns the keys of an envelope that a reader knows, without those that are nil. */
function known(envelope: Json): Json {
  const entries = Object.entries(envelope).filter(([name, one]) => KEYS.includes(name) && one !== null);
  return Object.fromEntries(entries);
}

describe.each(["requests", "responses"])("%s", (name) => {
  const { key, cases } = read(name);
  const signer = signerOf(key);

  test.each(cases.map((one) => [one.name, one] as const))("%s", (_, { label, frames, expected }) => {
    const came = frames.map(bytes) as Uint8Array[];
    const { envelope, attachments } = decodeMessage(signer, label, came);
    expect(plain(envelope)).toEqual(known(expected.envelope));
    expect(attachments.map((one) => Buffer.from(one).toString("hex"))).toEqual(expected.attachments);
    // Other bytes may mean the same: what this client would send of it is read as the same again.
    const again = decodeMessage(signer, label, encodeMessage(signer, label, envelope, attachments));
    expect(again).toEqual({ envelope, attachments });
    // Without a signer the same message travels without the frame signature.
    expect(decodeMessage(null, label, came.slice(1)).envelope).toEqual(envelope);
  });
});

describe("streams", () => {
  const { key, cases } = read("streams");
  const signer = signerOf(key);

  test.each(cases.map((one) => [one.name, one] as const))("%s", (_, { frames, expected }) => {
    const came = frames.map(bytes) as Uint8Array[];
    const { topic, seq, instanceId, payload } = decodeStream(signer, came);
    const data = unpack(payload.data);
    expect(topic).toBe(expected.topic);
    expect(plain({ seq, instanceId, payload: { type: payload.type, data } })).toEqual({
      seq: expected.envelope.seq,
      instanceId: expected.envelope.instanceId,
      payload: expected.envelope.payload,
    });
    const [name, , body] = came as [Uint8Array, Uint8Array, Uint8Array];
    const signed = [name, encode(decode(body))];
    const sealed = [name, signer.sign("pub", signed), signed[1] as Uint8Array];
    expect(unpack(decodeStream(signer, sealed).payload.data)).toEqual(data);
    expect(decodeStream(null, [name, body]).seq).toBe(seq);
    if (expected.messages !== undefined) {
      // As it came on the stream, and as FetchMissed gives it.
      for (const form of [payload, { type: payload.type, data }] satisfies Payload[]) {
        expect(openPayload(form, decompress)?.payloads()).toEqual(expected.messages);
      }
    }
  });
});

describe("rejected", () => {
  const { key, cases } = read("rejected");
  const signer = signerOf(key);

  test.each(cases.map((one) => [one.name, one] as const))("%s", (_, { label, frames, code, path }) => {
    const came = (frames as Json[]).map(pieces);
    try {
      if (label === "pub") decodeStream(signer, came);
      else decodeMessage(signer, label as Label, came);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(MessageError);
      expect((error as BacktestrError).code).toBe(code);
      if (path !== undefined) expect((error as BacktestrError).details?.path).toBe(path);
    }
  });
});

/** A frame in one piece, or of several that have to be joined. */
function pieces(frame: Json): Uint8Array {
  const list: Json[] = Array.isArray(frame) ? frame : [frame];
  const parts = list.map((one) => (typeof one === "string" ? bytes(one) : repeated(bytes(one.hex), one.times)));
  return new Uint8Array(Buffer.concat(parts));
}

function repeated(piece: Uint8Array, times: number): Uint8Array {
  const all = new Uint8Array(piece.length * times);
  for (let index = 0; index < times; index += 1) all.set(piece, index * piece.length);
  return all;
}

describe("values of the shared state", () => {
  // A number of JavaScript cannot tell a whole float from an integer, nor carry the bits of a NaN, and a timestamp is an
  // extension that stays as it came. All else is written as the broker keeps it.
  const EXCEPT = [
    "a float64 that is a whole number",
    "NaN with bits of its own",
    "a timestamp in more bytes than it needs",
  ];
  const { cases } = read("state_values");

  test.each(cases.map((one) => [one.name, one] as const))("%s", (name, { came, kept, checksum }) => {
    const value = decode(bytes(came));
    if (EXCEPT.includes(name)) {
      expect(decode(encode(value))).toEqual(value);
      return;
    }
    const encoded = encode(value, "$.value", true);
    expect(Buffer.from(encoded).toString("hex")).toBe(kept);
    expect(createHash("sha256").update(encoded).digest("hex").slice(0, 16)).toBe(checksum);
  });
});

test("the message of section 14.1 is signed as the page says", () => {
  const { key, cases } = read("requests");
  const ping = cases.find((one) => one.name === "Ping");
  const frames = ping.frames.map(bytes) as Uint8Array[];
  const signed = signerOf(key).sign("req", frames.slice(1));
  expect(Buffer.from(signed).toString("hex")).toBe(ping.frames[0]);
  // The order of keys and the encoding of numbers are those of the broker's own encoder.
  const { envelope } = decodeMessage(signerOf(key), "req", frames);
  const own = encodeMessage(signerOf(key), "req", envelope);
  expect(own.map((one) => Buffer.from(one).toString("hex"))).toEqual(ping.frames);
  expect(utf8("req").length).toBe(3);
});
