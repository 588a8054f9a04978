/** The CURVE key of this client: the pair in the connection file, or one that `backtestr keys new` has made. */

import { createPrivateKey, createPublicKey } from "node:crypto";
import { readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { expanded, keysDirectory, namedKey } from "./paths.js";
import { readSecret } from "./private-files.js";

const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
const KEY_CHARACTERS = 40;
/** A key file is one line of 41 bytes; a longer file is not a key. */
const MAX_FILE_BYTES = 256;
const NAME = /^[0-9A-Za-z_-]{1,64}$/;
/** The bytes that stand before the 32 bytes of an X25519 secret key in PKCS #8. */
const PKCS8 = Buffer.from("302e020100300506032b656e04220420", "hex");

/** A CURVE key pair, each half as 40 characters of Z85. */
export interface KeyPair {
  readonly publicKey: string;
  readonly secretKey: string;
}

/** The part of a connection file that is about CURVE. */
export interface Curve {
  readonly serverPublicKey: string;
  readonly clientPublicKey?: string;
  readonly clientSecretKey?: string;
}

/** Returns true for a text that is a key: 40 characters of Z85 that stand for 32 bytes. */
export function isKey(text: unknown): text is string {
  return typeof text === "string" && text.length === KEY_CHARACTERS && decoded(text) !== undefined;
}

/**
 * Returns the pair for a broker with CURVE: the one that `key` names (its name or file), else that of the connection file.
 *
 * The broker accepts the latter from its own machine only. So where the broker may be on another machine, and this user
 * has made one key, that is taken. Throws an `Error` that says how to make a key if there is none.
 */
export function keysFor(curve: Curve, endpoint: string, key: string | undefined): KeyPair {
  const wanted = key ?? namedKey();
  const { clientPublicKey, clientSecretKey } = curve;
  const given =
    wanted === undefined && clientPublicKey !== undefined && clientSecretKey !== undefined
      ? { publicKey: clientPublicKey, secretKey: clientSecretKey }
      : undefined;
  if (given !== undefined && endpoint.startsWith("tcp://127.")) return given;
  try {
    return ownPair(wanted);
  } catch (error) {
    if (given !== undefined) return given;
    throw new Error(`the broker lets in only clients with a key (CURVE): ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Returns a pair of this user, by its name or its file; undefined stands for the only pair that exists. */
function ownPair(wanted: string | undefined): KeyPair {
  const folder = join(keysDirectory(), "clients");
  if (wanted !== undefined) return readPair(NAME.test(wanted) ? join(folder, `${wanted}.secret`) : expanded(wanted));
  const files = secretsIn(folder);
  const [only] = files;
  if (only === undefined || files.length > 1) {
    const names = files.map((file) => basename(file, ".secret")).sort();
    throw new Error(
      `which key? ${names.length > 0 ? `there are ${names.join(", ")}` : "there is none"} in ${folder}; name one in ` +
        "BACKTESTR_KEY or with the option key, or make one: backtestr keys new NAME",
    );
  }
  return readPair(join(folder, only));
}

function secretsIn(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => name.endsWith(".secret"));
  } catch {
    return [];
  }
}

function readPair(file: string): KeyPair {
  let text: string;
  try {
    text = readSecret(file, MAX_FILE_BYTES).toString("latin1").trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new Error(`there is no ${file}; make it with: backtestr keys new ${basename(file, ".secret")}`);
  }
  const secret = text.length === KEY_CHARACTERS ? decoded(text) : undefined;
  if (secret === undefined) {
    throw new Error(`${file} is no CURVE key: expected 40 characters of Z85, as backtestr keys prints`);
  }
  return { publicKey: publicKeyOf(secret), secretKey: text };
}

/** Returns the public half of a secret key: of X25519, which CURVE is made of. */
function publicKeyOf(secret: Buffer): string {
  const key = createPrivateKey({ key: Buffer.concat([PKCS8, secret]), format: "der", type: "pkcs8" });
  return encoded(createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32));
}

/** Returns the bytes of a text of Z85 (RFC 32 of ZeroMQ), or undefined if it is none. */
function decoded(text: string): Buffer | undefined {
  const bytes = Buffer.alloc((text.length / 5) * 4);
  for (let at = 0; at < text.length; at += 5) {
    let value = 0;
    for (const character of text.slice(at, at + 5)) {
      const digit = Z85.indexOf(character);
      if (digit < 0) return undefined;
      value = value * 85 + digit;
    }
    if (value > 0xffffffff) return undefined;
    bytes.writeUInt32BE(value, (at / 5) * 4);
  }
  return bytes;
}

function encoded(bytes: Buffer): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4) {
    const value = bytes.readUInt32BE(at);
    for (let power = 4; power >= 0; power -= 1) text += Z85[Math.floor(value / 85 ** power) % 85];
  }
  return text;
}
