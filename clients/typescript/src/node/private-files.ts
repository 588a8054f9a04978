/**
 * Decides whose files are trusted.
 *
 * A file is trusted if it belongs to this user or to root, and nobody else may write to it. A directory is trusted if
 * that holds for it and for every directory and link on the way to it. In a directory with the sticky bit, such as
 * /tmp, nobody can exchange what belongs to others. A group that has one user only counts as that user. These are the
 * rules of the Python client (docs/decisions/0023); users and groups are read from /etc alone, so where they come from
 * elsewhere the rules are stricter.
 */

import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  type Stats,
  statSync,
} from "node:fs";
import { isAbsolute, join, parse, resolve, sep } from "node:path";

const GROUP_AND_OTHERS = 0o077;
const OTHERS_WRITE = 0o002;
const GROUP_WRITES = 0o020;
const STICKY = 0o1000;
/** Links on the way to a directory; Linux follows no more either. */
const MAX_LINKS = 40;

/** Without users and modes there is nothing to check: Windows protects a user's directories by access lists. */
const HAS_OWNERS = process.getuid !== undefined;

/** A file or directory that is not used, since others could have written or read it; the message says what to do. */
export class UntrustedFileError extends Error {
  override readonly name = "UntrustedFileError";
}

/**
 * Opens a regular file for reading, and returns its descriptor and what it is; nobody can exchange it meanwhile.
 *
 * Throws `UntrustedFileError` for a directory, a FIFO or a device, without waiting for it, and what `openSync` throws.
 * With `noLink` a link is not followed.
 */
export function openRegular(file: string, noLink = false): { descriptor: number; found: Stats } {
  const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (noLink ? (constants.O_NOFOLLOW ?? 0) : 0);
  const descriptor = openSync(file, flags);
  try {
    const found = fstatSync(descriptor);
    if (!found.isFile()) throw new UntrustedFileError(`${file} is no regular file`);
    return { descriptor, found };
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}

/** Returns the content of a file that is a secret of this user, of at most `limit` bytes. */
export function readSecret(file: string, limit: number): Buffer {
  const { descriptor, found } = openRegular(file);
  try {
    checkSecret(file, found);
    if (found.size > limit) throw new UntrustedFileError(`${file} has ${found.size} bytes; at most ${limit} are read`);
    return readFileSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function checkSecret(file: string, found: Stats): void {
  if (!HAS_OWNERS) return;
  if (!trustedUsers().has(found.uid)) {
    throw new UntrustedFileError(`${file} belongs to another user (id ${found.uid}); keys must be your own`);
  }
  if ((found.mode & GROUP_AND_OTHERS) !== 0) {
    throw new UntrustedFileError(`${file} is open to others (mode ${octal(found)}); run: chmod 600 '${file}'`);
  }
}

/** Throws `UntrustedFileError` for a file that a user other than this one and root may have written. */
export function checkFile(file: string, found: Stats): void {
  if (!HAS_OWNERS) return;
  if (!trustedUsers().has(found.uid)) {
    throw new UntrustedFileError(`${file} belongs to another user (id ${found.uid}) and is not used; remove it`);
  }
  if (othersMayWrite(found)) {
    throw new UntrustedFileError(`others may write to ${file} (mode ${octal(found)}), so it is not used`);
  }
}

/** Throws `UntrustedFileError` for a directory in which a user other than this one and root can change anything. */
export function checkDirectory(directory: string): void {
  if (!HAS_OWNERS) return;
  const way = wayTo(directory);
  for (const [index, step] of way.entries()) {
    const found = lstatSync(step);
    if (!trustedUsers().has(found.uid)) {
      throw new UntrustedFileError(`${step} belongs to another user (id ${found.uid})`);
    }
    if (found.isSymbolicLink() || !othersMayWrite(found)) continue;
    if (index === way.length - 1 || (found.mode & STICKY) === 0) {
      throw new UntrustedFileError(`others may write to ${step} (mode ${octal(found)}); run: chmod go-w '${step}'`);
    }
  }
}

/** Returns every directory and link that is passed on the way to a directory, and the directory itself last. */
function wayTo(directory: string): string[] {
  const { root } = parse(resolve(directory));
  let at = root;
  const way = [at];
  const left = resolve(directory).slice(root.length).split(sep).filter(Boolean).reverse();
  for (let links = 0, name = left.pop(); name !== undefined; name = left.pop()) {
    if (name === "..") {
      at = join(at, "..");
      way.push(at);
      continue;
    }
    const step = join(at, name);
    way.push(step);
    if (!lstatSync(step).isSymbolicLink() || links === MAX_LINKS) {
      at = step;
      continue;
    }
    links += 1;
    const target = readlinkSync(step);
    if (isAbsolute(target)) at = parse(target).root;
    left.push(
      ...target
        .split(sep)
        .filter((part) => part !== "" && part !== ".")
        .reverse(),
    );
  }
  return way;
}

let ownerOfRoot: number | undefined;

/** Returns this user and root. In a container root's files may have another id: that of the owner of /. */
function trustedUsers(): Set<number> {
  ownerOfRoot ??= statSync("/").uid;
  return new Set([process.getuid?.() ?? 0, 0, ownerOfRoot]);
}

function othersMayWrite(found: Stats): boolean {
  if ((found.mode & OTHERS_WRITE) !== 0) return true;
  return (found.mode & GROUP_WRITES) !== 0 && !isGroupOfOne(found.uid, found.gid);
}

/** Returns true for root's group, and for a group that has a user's name and no other user. */
function isGroupOfOne(user: number, group: number): boolean {
  if (group === 0) return true;
  const users = entries("/etc/passwd");
  const owner = users.find((one) => one[2] === String(user))?.[0];
  const named = entries("/etc/group").find((one) => one[2] === String(group));
  if (owner === undefined || named === undefined || named[0] !== owner) return false;
  const members = (named[3] ?? "").split(",").filter(Boolean);
  const byLogin = users.filter((one) => one[3] === String(group)).map((one) => one[0]);
  return [...members, ...byLogin].every((one) => one === owner);
}

function entries(file: string): string[][] {
  try {
    return readFileSync(file, "utf8")
      .split("\n")
      .map((line) => line.split(":"));
  } catch {
    return [];
  }
}

function octal(found: Stats): string {
  return (found.mode & 0o7777).toString(8);
}
