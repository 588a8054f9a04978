/**
 * Starts the app as it was built, with Electron's binary: that of `BACKTESTR_ELECTRON`, else that of the package
 * `electron`, which is fetched apart. With `--check` it only looks for the binary, and says how to get it.
 */

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const folder = join(import.meta.dirname, "..");

function installed() {
  const electron = join(folder, "node_modules/electron");
  const path = join(electron, "path.txt");
  return existsSync(path) ? join(electron, "dist", readFileSync(path, "utf8").trim()) : undefined;
}

const named = process.env.BACKTESTR_ELECTRON;
const binary = named || installed();
if (binary === undefined || !existsSync(binary)) {
  const missing = named ? `there is no ${named}, which BACKTESTR_ELECTRON names` : "Electron's binary is not here";
  process.stderr.write(
    `${missing}; get it with this, which fetches it from github.com:\n\n` +
      "  PATH=$PWD/.venv/bin:$PATH npm --prefix clients/app/electron exec install-electron\n\n" +
      "or name one that is there: BACKTESTR_ELECTRON=/path/to/electron make run-app\n" +
      "(the same app in a browser needs none: make run-ui)\n",
  );
  process.exit(1);
}
if (!process.argv.includes("--check")) {
  // Chromium's sandbox does not work for root.
  const args = process.getuid?.() === 0 ? [folder, "--no-sandbox"] : [folder];
  process.exit(spawnSync(binary, args, { stdio: "inherit" }).status ?? 1);
}
