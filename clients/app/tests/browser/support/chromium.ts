/** The browser of the tests: Debian's chromium, or what BACKTESTR_CHROMIUM names. */

import { accessSync, constants } from "node:fs";

const USUAL = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Nothing of it reaches for the network, and pages are composed without a GPU, as they are on a build machine. */
export const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Returns the path of the browser. Throws an error that names the package where there is none. */
export function chromiumPath(): string {
  const named = process.env.BACKTESTR_CHROMIUM;
  for (const path of named ? [named] : USUAL) {
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // The next one may be there.
    }
  }
  throw new Error(
    named
      ? `BACKTESTR_CHROMIUM names ${named}, which cannot be run`
      : "there is no chromium; install the package chromium (apt-get install chromium), or name a browser of its kind in BACKTESTR_CHROMIUM",
  );
}
