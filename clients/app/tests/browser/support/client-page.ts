/** The page without screens of `tests/browser/client-page`, beside the app's page on the same server. */

import { join, resolve } from "node:path";
import type { Page } from "playwright-core";
import { build } from "vite";

const SOURCE = resolve(import.meta.dirname, "../client-page");
const FOLDER = "tried";

/** Builds it into the copy of `servedCopy`; the server serves whatever is in the folder of its page. */
export async function buildClientPage(copy: string): Promise<void> {
  await build({
    configFile: false,
    root: SOURCE,
    base: "./",
    logLevel: "error",
    worker: { format: "es" },
    build: { outDir: join(copy, "backtestr/ui/page", FOLDER), target: "es2022", assetsInlineLimit: 0 },
  });
}

/** Shows it in a page that was let in; its host is `window.tried.host`. */
export async function showClientPage(page: Page): Promise<void> {
  await page.goto(new URL(`/${FOLDER}/index.html`, page.url()).href);
  await page.waitForFunction(() => window.tried !== undefined);
}
