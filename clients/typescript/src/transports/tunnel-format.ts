/**
 * The messages between a page and the tunnel that holds the keys for it, over a WebSocket (subprotocol `backtestr.1`).
 *
 * One WebSocket is one link. Each message is binary: a byte that says what it is, then parts, each after its length as 4
 * bytes, big-endian.
 *
 * | byte | from the page | parts |
 * |---|---|---|
 * | 1 | request | envelope, attachment* |
 * | 2 | subscribe | name of the socket, prefix |
 * | 3 | unsubscribe | name of the socket, prefix |
 * | 4 | taken | a number as text: so many stream messages more were read |
 *
 * | byte | to the page | parts |
 * |---|---|---|
 * | 1 | answer | envelope, attachment* |
 * | 2 | stream message | topic, envelope, attachment* |
 * | 3 | opened, once and first | the `instanceId` of the broker |
 * | 4 | lost | a reason; the tunnel closes the WebSocket behind it |
 * | 5 | absent: there is no broker | a reason; the tunnel closes the WebSocket behind it |
 * | 6 | replaced: another instance of the broker is there | |
 *
 * The tunnel signs requests and verifies everything else, so the frame `signature` does not travel. It drops stream
 * messages while more than 2,000 of them, or 64 MiB, were sent and not yet taken; the page fetches what it misses.
 */

/** The subprotocol of the WebSocket. */
export const SUBPROTOCOL = "backtestr.1";

/** The kinds of messages from a page. */
export const FROM_PAGE = { request: 1, subscribe: 2, unsubscribe: 3, taken: 4 } as const;
/** The kinds of messages to a page. */
export const TO_PAGE = { answer: 1, message: 2, opened: 3, lost: 4, absent: 5, replaced: 6 } as const;

/** Bytes of a length. */
const LENGTH = 4;

/** Returns the bytes of a message. */
export function packed(kind: number, parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const size = parts.reduce((sum, part) => sum + LENGTH + part.length, 1);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  bytes[0] = kind;
  let at = 1;
  for (const part of parts) {
    view.setUint32(at, part.length);
    bytes.set(part, at + LENGTH);
    at += LENGTH + part.length;
  }
  return bytes;
}

/** Returns what a message is and its parts, as views of it; undefined for bytes that are no message. */
export function unpacked(bytes: Uint8Array): { kind: number; parts: Uint8Array[] } | undefined {
  const [kind] = bytes;
  if (kind === undefined) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts: Uint8Array[] = [];
  let at = 1;
  while (at < bytes.length) {
    if (at + LENGTH > bytes.length) return undefined;
    const end = at + LENGTH + view.getUint32(at);
    if (end > bytes.length) return undefined;
    parts.push(bytes.subarray(at + LENGTH, end));
    at = end;
  }
  return { kind, parts };
}
