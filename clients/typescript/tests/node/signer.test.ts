/** The signer, against the golden vectors and node:crypto's own HMAC. */

import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, it } from "vitest";
import type { Label } from "../../src/core/transport.js";
import { hmacSigner } from "../../src/node/signer.js";
import { ROOT } from "../support/broker.js";

const key = Uint8Array.from({ length: 32 }, (_, at) => at);

it("makes the signature of PROTOCOL.md, section 14.1", () => {
  const page = readFileSync(join(ROOT, "protocol/PROTOCOL.md"), "utf8");
  const envelope = /^envelope {3}([0-9a-f]+)\n +([0-9a-f]+)\n +([0-9a-f]+)\n +([0-9a-f]+)$/m.exec(page);
  const signature = /^signature {2}([0-9a-f]{64})$/m.exec(page)?.[1];
  const frames = [Buffer.from((envelope as RegExpExecArray).slice(1).join(""), "hex")];
  const signer = hmacSigner(key);
  expect(Buffer.from(signer.sign("req", frames)).toString("hex")).toBe(signature);
  expect(signer.verify("req", frames, Buffer.from(signature as string, "hex"))).toBe(true);
  expect(signer.verify("rep", frames, Buffer.from(signature as string, "hex"))).toBe(false);
});

it("is HMAC-SHA256 over label, lengths and frames, for frames of any size and number", () => {
  const frame = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.integer({ min: 0, max: 40_000 }).map((size) => new Uint8Array(size).fill(size)),
  );
  const label = fc.constantFrom<Label>("req", "rep", "pub");
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      label,
      fc.array(frame, { maxLength: 6 }),
      (own, which, frames) => {
        const hmac = createHmac("sha256", own).update(which);
        for (const one of frames)
          hmac.update(Buffer.from([one.length >> 24, one.length >> 16, one.length >> 8, one.length])).update(one);
        const expected = hmac.digest();
        const signer = hmacSigner(own);
        expect(Buffer.from(signer.sign(which, frames)).equals(expected)).toBe(true);
        expect(signer.verify(which, frames, expected)).toBe(true);
        expected[7] = (expected[7] as number) ^ 1;
        expect(signer.verify(which, frames, expected)).toBe(false);
        expect(signer.verify(which, frames, expected.subarray(0, 31))).toBe(false);
      },
    ),
  );
});
