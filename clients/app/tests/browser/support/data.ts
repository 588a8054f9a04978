/** Data of the tests: real files of a folder that is not in the project, and made ones. */

import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { ROOT } from "../../../../typescript/tests/support/broker";

/** The folder of real market data: BACKTESTR_TEST_DATA, else `shared/data` beside the checkout. */
export const REAL_DATA = resolve(process.env.BACKTESTR_TEST_DATA ?? join(ROOT, "../shared/data"));

/** The path of a real file; undefined where it is not there, so that a test can be skipped with its reason. */
export function realFile(name: string): string | undefined {
  const path = join(REAL_DATA, name);
  return existsSync(path) ? path : undefined;
}

/** Bars of a random walk as CSV; the same arguments give the same text. Times are UTC, one bar a minute. */
export function csvOfBars(count: number, seed = 1): string {
  const lines = ["timestamp,open,high,low,close,volume"];
  let state = seed;
  const random = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  let price = 100;
  for (let bar = 0; bar < count; bar += 1) {
    const open = price;
    price *= 1 + (random() - 0.5) * 0.002;
    const [high, low] = [Math.max(open, price) * 1.0004, Math.min(open, price) * 0.9996];
    const time = new Date(1_577_836_800_000 + bar * 60_000).toISOString().slice(0, 19);
    lines.push(
      `${time}Z,${open.toFixed(5)},${high.toFixed(5)},${low.toFixed(5)},${price.toFixed(5)},${1 + (bar % 50)}`,
    );
  }
  return `${lines.join("\n")}\n`;
}
