/** The connection file says how to reach the broker; it is read here, and a change by another broker is noticed. */

import { statSync } from "node:fs";
import type { StreamSocket } from "../core/transport.js";
import { PROTOCOL_VERSION } from "../generated/protocol.js";
import { type Curve, isKey, type KeyPair, keysFor } from "./curve-keys.js";
import { connectionFile, expanded } from "./paths.js";
import { readSecret, UntrustedFileError } from "./private-files.js";

const HOW_TO_START = "start one with: backtestr run (or make run-broker)";
/** A connection file has less than 2 kB. */
const MAX_BYTES = 65_536;
const ENDPOINTS = ["requests", "prices", "progress", "orders", "positions", "system"] as const;

/** The addresses and the key by which one instance of a broker is reached. */
export interface Connection {
  readonly instanceId: string;
  readonly endpoints: Readonly<Record<"requests" | StreamSocket, string>>;
  /** The 32 bytes of the signing key. */
  readonly signingKey: Uint8Array;
  /** With CURVE: the broker's public key and this client's pair. */
  readonly curve: { readonly serverPublicKey: string; readonly keys: KeyPair } | null;
  /** The directory of table files; null where tables have to be received. */
  readonly tablesDirectory: string | null;
}

/** The file in which a broker says how to reach it. */
export class ConnectionFile {
  readonly #path: string | undefined;
  readonly #key: string | undefined;

  /** Names the file, if it is not the usual one, and the client's key, without reading them. */
  constructor(path?: string, key?: string) {
    this.#path = path === undefined ? undefined : expanded(path);
    this.#key = key;
  }

  /** The path of the file; the usual one follows the environment. */
  get path(): string {
    return this.#path ?? connectionFile();
  }

  /** Returns a text that differs after every writing of the file, or null without a file. */
  stamp(): string | null {
    const found = statSync(this.path, { bigint: true, throwIfNoEntry: false });
    return found === undefined ? null : `${found.ino} ${found.mtimeNs} ${found.size}`;
  }

  /**
   * Reads the connection. Throws an `Error` whose message says what to do if there is no broker, or none that this
   * client can reach.
   */
  read(): Connection {
    const path = this.path;
    let text: string;
    try {
      text = readSecret(path, MAX_BYTES).toString("utf8");
    } catch (error) {
      if (error instanceof UntrustedFileError) throw new Error(`the connection file is not used: ${error.message}`);
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === "ENOENT") throw new Error(`no broker is running (there is no ${path}); ${HOW_TO_START}`);
      throw new Error(`cannot read ${path}: ${message}`, { cause: error });
    }
    try {
      return this.#decoded(JSON.parse(text));
    } catch (error) {
      if (!(error instanceof SyntaxError) && !(error instanceof TypeError)) throw error;
      throw new Error(`${path} is damaged (${error.message}); stop the broker, then ${HOW_TO_START}`, { cause: error });
    }
  }

  #decoded(found: unknown): Connection {
    const content = map(found, "$");
    if (content.protocolVersion !== PROTOCOL_VERSION) {
      const theirs = String(content.protocolVersion);
      throw new Error(
        `the broker speaks version ${theirs} of the protocol, this client ${PROTOCOL_VERSION}; upgrade one`,
      );
    }
    const named = map(content.endpoints, "$.endpoints");
    const endpoints = Object.fromEntries(
      ENDPOINTS.map((name) => [name, text(named[name], `$.endpoints.${name}`)]),
    ) as Connection["endpoints"];
    const signing = map(content.signing, "$.signing");
    const key = text(signing.key, "$.signing.key");
    if (signing.algorithm !== "hmac-sha256" || !/^[0-9a-fA-F]{64}$/.test(key)) {
      throw new TypeError("$.signing is no key for hmac-sha256");
    }
    const directory = content.tablesDirectory;
    return {
      instanceId: text(content.instanceId, "$.instanceId"),
      endpoints,
      signingKey: Buffer.from(key, "hex"),
      curve: this.#curve(content.curve, endpoints.requests),
      tablesDirectory: directory == null ? null : text(directory, "$.tablesDirectory"),
    };
  }

  #curve(found: unknown, endpoint: string): Connection["curve"] {
    if (found == null) return null;
    const curve = map(found, "$.curve");
    for (const name of ["serverPublicKey", "clientPublicKey", "clientSecretKey"]) {
      if (!isKey(curve[name]) && (name === "serverPublicKey" || curve[name] != null)) {
        throw new TypeError(`$.curve.${name} is no key in Z85`);
      }
    }
    const { serverPublicKey, clientPublicKey, clientSecretKey } = curve as unknown as Curve;
    const pair = clientPublicKey && clientSecretKey ? { clientPublicKey, clientSecretKey } : {};
    return { serverPublicKey, keys: keysFor({ serverPublicKey, ...pair }, endpoint, this.#key) };
  }
}

function map(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new TypeError(`${path} is no map`);
  return value as Record<string, unknown>;
}

function text(value: unknown, path: string): string {
  if (typeof value !== "string") throw new TypeError(`${path} is no text`);
  return value;
}
