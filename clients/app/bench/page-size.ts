/** The JavaScript of the built page: of all of it, and of what comes before the first chart. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Page } from "playwright-core";
import type { Figure } from "./figures";

/** Measures what stands in the folder of the page, and what `page` has loaded. */
export async function measureSize(folder: string, page: Page): Promise<readonly Figure[]> {
  const assets = join(folder, "assets");
  const scripts = readdirSync(assets).filter((name) => name.endsWith(".js"));
  const kilobytes = (names: readonly string[]): number =>
    names.reduce((sum, name) => sum + gzipSync(readFileSync(join(assets, name)), { level: 9 }).length, 0) / 1000;
  const loaded = await page.evaluate(() =>
    performance.getEntriesByType("resource").map((one) => new URL(one.name).pathname.split("/").at(-1) ?? ""),
  );
  // The worker's script is no resource of the page, and is loaded with it.
  const first = scripts.filter((name) => loaded.includes(name) || name.startsWith("client-worker"));
  return [
    { what: "JavaScript in all, gzipped", value: kilobytes(scripts), unit: "kB", target: 250, better: "less" },
    { what: "JavaScript before the first chart", value: kilobytes(first), unit: "kB", target: 80, better: "less" },
  ];
}
