/** The page to test, with the Python package that serves it, as a copy: a build during the tests changes nothing of it. */

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { ROOT } from "../../../../typescript/tests/support/broker";

const APP = resolve(import.meta.dirname, "../../..");
const PACKAGE = join(ROOT, "clients/python/backtestr");
const BUILT = join(PACKAGE, "ui/page");
const SOURCES = [join(APP, "renderer"), join(APP, "vite.config.ts"), join(ROOT, "clients/typescript/dist/page.mjs")];

/**
 * Returns a new folder to put first in PYTHONPATH. Its page is what BACKTESTR_APP_PAGE names, else the one that
 * `make ui` has built if no source is newer, else one that is built now.
 */
export function servedCopy(): string {
  const folder = mkdtempSync(join(tmpdir(), "bt-page-"));
  try {
    const copy = join(folder, "backtestr");
    cpSync(PACKAGE, copy, {
      recursive: true,
      filter: (path) => path !== BUILT && !path.endsWith("__pycache__"),
    });
    const page = join(copy, "ui/page");
    const given = process.env.BACKTESTR_APP_PAGE ?? (isNew() ? BUILT : undefined);
    mkdirSync(page);
    if (given === undefined) {
      execFileSync(join(APP, "node_modules/.bin/vite"), ["build", "--logLevel", "warn", "--outDir", page], {
        cwd: APP,
        env: { ...process.env, NODE_ENV: "production" }, // as it is shipped, not as vitest's environment has it
        stdio: ["ignore", "ignore", "inherit"],
      });
    } else cpSync(given, page, { recursive: true });
    return folder;
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}

function isNew(): boolean {
  try {
    const built = statSync(join(BUILT, "index.html")).mtimeMs;
    return SOURCES.every((path) => newest(path) <= built);
  } catch {
    return false;
  }
}

function newest(path: string): number {
  const found = statSync(path);
  if (!found.isDirectory()) return found.mtimeMs;
  return Math.max(found.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}
