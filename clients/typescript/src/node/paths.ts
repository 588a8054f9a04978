/**
 * Finds the connection file and the folder of keys. No other module reads environment variables.
 *
 * The places are those of the Python package platformdirs (PROTOCOL.md, section 1).
 */

import { lstatSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";

const APP = "backtestr";

/** Returns `$BACKTESTR_CONNECTION_FILE`, else `connection.json` in the runtime directory. */
export function connectionFile(): string {
  return named("BACKTESTR_CONNECTION_FILE") ?? join(runtimeDirectory(), "connection.json");
}

/** Returns the folder of CURVE keys: `keys` in the data directory. */
export function keysDirectory(): string {
  return join(named("BACKTESTR_DATA_DIR") ?? userDataDirectory(), "keys");
}

/** Returns `$BACKTESTR_KEY`, the name or path of the CURVE key of this user's clients; undefined if it is not set. */
export function namedKey(): string | undefined {
  return process.env.BACKTESTR_KEY || undefined;
}

/** Returns a path with a leading `~` made that of this user's home directory, from `/` on. */
export function expanded(path: string): string {
  return resolve(/^~(?=[/\\]|$)/.test(path) ? join(homedir(), path.slice(1)) : path);
}

function runtimeDirectory(): string {
  const chosen = named("BACKTESTR_RUNTIME_DIR");
  if (chosen !== undefined) return chosen;
  if (process.platform === "win32") return join(localAppData(), "Temp", APP, APP);
  const xdg = absolute("XDG_RUNTIME_DIR");
  if (xdg !== undefined && isPrivate(xdg, true)) return join(xdg, APP);
  if (process.platform === "darwin") return join(homedir(), "Library", "Caches", "TemporaryItems", APP);
  const user = process.getuid?.() ?? 0;
  const usual = process.platform.endsWith("bsd") ? `/var/run/user/${user}` : `/run/user/${user}`;
  return join(isPrivate(usual, false) ? usual : join(tmpdir(), `runtime-${user}`), APP);
}

/** Returns true for a directory of this user with mode 0700, which is no link. */
function isPrivate(directory: string, mayBeMissing: boolean): boolean {
  try {
    const found = lstatSync(directory);
    return found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o777) === 0o700;
  } catch (error) {
    return mayBeMissing && (error as NodeJS.ErrnoException).code === "ENOENT";
  }
}

function userDataDirectory(): string {
  if (process.platform === "win32") return join(localAppData(), APP, APP);
  const xdg = absolute("XDG_DATA_HOME");
  if (xdg !== undefined) return join(xdg, APP);
  if (process.platform === "darwin") return join(homedir(), "Library", "Application Support", APP);
  return join(homedir(), ".local", "share", APP);
}

function localAppData(): string {
  return process.env.LOCALAPPDATA || join(homedir(), "AppData", "Local");
}

function named(name: string): string | undefined {
  const value = process.env[name];
  return value ? expanded(value) : undefined;
}

/** Returns the path in a variable of the XDG specification, which ignores those that are not absolute. */
function absolute(name: string): string | undefined {
  const value = process.env[name]?.trim();
  return value?.startsWith("/") ? resolve(value) : undefined;
}
