/**
 * Makes frames of messages and messages of frames, and refuses every other frame with a `MessageError`.
 *
 * A message on the wire is a list of frames: `signature, envelope, attachment*`; a stream message has its topic before
 * them (PROTOCOL.md, section 2). Behind a tunnel there is no signer, and no frame `signature`: the tunnel has verified.
 */

import { SCHEMA_VERSION } from "../generated/protocol.js";
import { AuthenticationError, type MessageError, SerializationError, ValidationError } from "./errors.js";
import { decode } from "./msgpack-decoder.js";
import { encode } from "./msgpack-encoder.js";
import type { Label, Signer } from "./transport.js";
import { fromUtf8 } from "./utf8.js";

/** The most frames of one message, with the signature. */
export const MAX_FRAMES = 1024;
const SIGNATURE_BYTES = 32;
const MIN_TIME = -2_208_988_800_000;
const MAX_TIME = 7_258_118_400_000;
const MAX_ID = 64;
const MAX_TYPE = 128;

/** The data of a message by the name of their type. Those of a stream message are `Packed` until they are read. */
export interface Payload {
  readonly type: string;
  readonly data: unknown;
}

const MESSAGE_TYPES = ["Request", "Response", "Event", "Stream", "Error", "Heartbeat"] as const;
/** The kinds of messages. */
export type MessageType = (typeof MESSAGE_TYPES)[number];

/** The map in which every message travels (PROTOCOL.md, section 3). */
export interface Envelope {
  readonly id: string;
  readonly timestamp: number;
  readonly schemaVersion: number;
  readonly messageType: MessageType;
  readonly payload: Payload;
  readonly correlationId?: string | undefined;
  readonly sessionId?: string | undefined;
  readonly counter?: number | undefined;
  readonly seq?: number | undefined;
  readonly instanceId?: string | undefined;
}

/** A verified request or answer. */
export interface Message {
  readonly envelope: Envelope;
  readonly attachments: readonly Uint8Array[];
}

/** A verified stream message. */
export interface TopicMessage {
  readonly topic: string;
  readonly seq: number;
  readonly instanceId: string;
  readonly payload: Payload;
}

/** Returns the frames of a request (`req`) or of an answer (`rep`). The payload may be a `Packed`. */
export function encodeMessage(
  signer: Signer | null,
  label: Label,
  envelope: Omit<Envelope, "payload"> & { readonly payload: unknown },
  attachments: readonly Uint8Array[] = [],
): Uint8Array[] {
  const frames = [encode(envelope), ...attachments];
  return signer === null ? frames : [signer.sign(label, frames), ...frames];
}

/** Verifies the frames of `encodeMessage`, then decodes them. Raises a `MessageError` for all other frames. */
export function decodeMessage(signer: Signer | null, label: Label, frames: readonly Uint8Array[]): Message {
  const least = signer === null ? 1 : 2;
  if (frames.length < least || frames.length > MAX_FRAMES) {
    throw new SerializationError(
      `expected the frames signature, envelope, attachments, ${MAX_FRAMES} at most; ${frames.length} frame(s) came`,
    );
  }
  const signed = signer === null ? frames : frames.slice(1);
  if (signer !== null) verify(signer, label, signed, frames[0] as Uint8Array);
  return { envelope: decodeEnvelope(signed[0] as Uint8Array), attachments: signed.slice(1) };
}

/** Verifies and decodes the frames of a stream message. Raises a `MessageError` for all other frames. */
export function decodeStream(signer: Signer | null, frames: readonly Uint8Array[]): TopicMessage {
  const least = signer === null ? 2 : 3;
  if (frames.length < least) {
    throw new SerializationError(`expected topic, signature, envelope, attachments; ${frames.length} frame(s) came`);
  }
  const topic = frames[0] as Uint8Array;
  if (signer !== null) verify(signer, "pub", [topic, ...frames.slice(2)], frames[1] as Uint8Array);
  let name: string;
  try {
    name = fromUtf8(topic);
  } catch {
    throw new SerializationError("a topic is UTF-8 text");
  }
  const { seq, instanceId, payload } = decodeEnvelope(frames[least - 1] as Uint8Array, DATA);
  if (seq === undefined) throw invalid("$.seq", "required on a stream, and missing");
  if (instanceId === undefined) throw invalid("$.instanceId", "required on a stream, and missing");
  return { topic: name, seq, instanceId, payload };
}

function verify(signer: Signer, label: Label, signed: readonly Uint8Array[], signature: Uint8Array): void {
  if (signature.length !== SIGNATURE_BYTES || !signer.verify(label, signed, signature)) {
    throw new AuthenticationError(
      "bad signature; expected HMAC-SHA256 over label and frames with the key in the connection file, which is new at " +
        "every broker start",
    );
  }
}

const DATA = ["payload", "data"];

function decodeEnvelope(frame: Uint8Array, packed: readonly string[] = []): Envelope {
  const map = decode(frame, packed);
  if (!isMap(map)) throw invalid("$", "expected a map");
  const { id, timestamp, schemaVersion, messageType, payload } = map;
  if (typeof id !== "string" || id.length < 1 || id.length > MAX_ID) throw wrong("$.id", "1 to 64 characters", id);
  if (!isWhole(timestamp) || timestamp < MIN_TIME || timestamp > MAX_TIME) {
    throw wrong("$.timestamp", "milliseconds since 1970", timestamp);
  }
  if (schemaVersion !== SCHEMA_VERSION) throw wrong("$.schemaVersion", String(SCHEMA_VERSION), schemaVersion);
  if (!(MESSAGE_TYPES as readonly unknown[]).includes(messageType)) {
    throw wrong("$.messageType", `one of ${MESSAGE_TYPES.join(", ")}`, messageType);
  }
  return {
    id,
    timestamp,
    schemaVersion,
    messageType: messageType as MessageType,
    payload: checkedPayload(payload),
    correlationId: optionalId("$.correlationId", map.correlationId),
    sessionId: optionalId("$.sessionId", map.sessionId),
    counter: optionalNumber("$.counter", map.counter),
    seq: optionalNumber("$.seq", map.seq),
    instanceId: optionalId("$.instanceId", map.instanceId),
  };
}

/** Returns a payload of which type and data are there. Raises a `ValidationError` for anything else. */
export function checkedPayload(payload: unknown, path = "$.payload"): Payload {
  if (!isMap(payload)) throw wrong(path, "a map", payload);
  const { type, data } = payload;
  if (typeof type !== "string" || type.length > MAX_TYPE) throw wrong(`${path}.type`, "up to 128 characters", type);
  if (data === undefined) throw wrong(`${path}.data`, "a map", data);
  return payload as unknown as Payload;
}

function optionalId(path: string, value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "string" || value.length > MAX_ID) throw wrong(path, "up to 64 characters", value);
  return value;
}

function optionalNumber(path: string, value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (!isWhole(value) || value < 1) throw wrong(path, "a whole number, 1 or more", value);
  return value;
}

/** Returns true for a map of MessagePack: a plain object, maybe of another realm. */
export function isMap(value: unknown): value is { readonly [name: string]: unknown } {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype || Object.getPrototypeOf(prototype) === null;
}

/** Returns true for a whole number that a float64 can express. */
export function isWhole(value: unknown): value is number {
  return Number.isSafeInteger(value);
}

/** Returns the error of a field that is missing or differs from what is expected. */
export function wrong(path: string, expected: string, came: unknown): MessageError {
  return invalid(path, came === undefined ? "required, and missing" : `expected ${expected}; ${shown(came)} came`);
}

function invalid(path: string, reason: string): ValidationError {
  return new ValidationError(`${path}: ${reason}`, { path });
}

// The characters of a received value that an error quotes.
const MAX_SHOWN = 200;

/** Returns a value for a message, cut where it is long. */
export function shown(value: unknown): string {
  let text: string;
  if (typeof value === "string") text = JSON.stringify(value);
  else if (Array.isArray(value)) text = `a list of ${value.length}`;
  else if (typeof value === "object" && value !== null) text = "a map";
  else text = String(value);
  return text.length <= MAX_SHOWN ? text : `${text.slice(0, MAX_SHOWN)}…`;
}
