/** UTF-8, written and read without a name that only Node or only a page has. */

declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  decode(input?: Uint8Array): string;
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Returns the bytes that a text has in UTF-8, or -1 for a text with half of a surrogate pair. */
export function utf8Length(text: string): number {
  let length = text.length;
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit < 0x80) continue;
    if (unit < 0x800) {
      length += 1;
    } else if (unit < 0xd800 || unit > 0xdfff) {
      length += 2;
    } else {
      const low = text.charCodeAt(index + 1);
      if (unit > 0xdbff || !(low >= 0xdc00 && low <= 0xdfff)) return -1;
      length += 2;
      index += 1;
    }
  }
  return length;
}

/** Writes a text, of which `utf8Length` is not -1, from `at` on. */
export function writeUtf8(text: string, into: Uint8Array, at: number): void {
  let next = at;
  for (let index = 0; index < text.length; index += 1) {
    let code = text.charCodeAt(index);
    if (code < 0x80) {
      into[next++] = code;
      continue;
    }
    if (code < 0x800) {
      into[next++] = 0xc0 | (code >> 6);
    } else {
      if (code >= 0xd800 && code <= 0xdbff) {
        index += 1;
        code = 0x10000 + ((code - 0xd800) << 10) + (text.charCodeAt(index) - 0xdc00);
        into[next++] = 0xf0 | (code >> 18);
        into[next++] = 0x80 | ((code >> 12) & 0x3f);
      } else {
        into[next++] = 0xe0 | (code >> 12);
      }
      into[next++] = 0x80 | ((code >> 6) & 0x3f);
    }
    into[next++] = 0x80 | (code & 0x3f);
  }
}

/** Returns the bytes of a text in UTF-8. Raises a `TypeError` for a text with half of a surrogate pair. */
export function utf8(text: string): Uint8Array {
  const length = utf8Length(text);
  if (length < 0) throw new TypeError(`${JSON.stringify(text)} is not valid text: it has half of a surrogate pair`);
  const bytes = new Uint8Array(length);
  writeUtf8(text, bytes, 0);
  return bytes;
}

/** Returns the text of bytes in UTF-8. Raises a `TypeError` for other bytes. */
export function fromUtf8(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}
