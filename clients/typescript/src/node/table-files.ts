/**
 * Table files: tables that a broker of this machine has written for its clients, which are read and not received.
 *
 * A file is used only if this user or root alone may have written it and all directories on the way to it (PROTOCOL.md,
 * section 6.10). Node maps no files; reading one copies it once, out of the page cache.
 */

import { closeSync, read as readAt, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { promisify } from "node:util";
import type { TableFiles } from "../core/transport.js";
import type { TableFile } from "../generated/contracts.js";
import type { Connection } from "./connection-file.js";
import { checkDirectory, checkFile, openRegular } from "./private-files.js";

const NAME = /^[0-9a-f][0-9a-f-]{0,99}\.arrow$/;
/** Bytes that are read at a time, so that no read of Node reaches its limit of 2 GiB. */
const CHUNK = 2 ** 30;

/** The table files of the broker that was connected to last. */
export class NodeTableFiles implements TableFiles {
  #directory: string | null = null;

  /** Takes the directory of this connection, if files in it can be trusted. */
  use(connection: Connection): void {
    this.#directory = trustedDirectory(connection);
  }

  areReadable(): boolean {
    return this.#directory !== null;
  }

  async read(file: TableFile): Promise<Uint8Array | null> {
    if (this.#directory === null || !NAME.test(file.name)) return null;
    try {
      return await readWhole(join(this.#directory, file.name), file.size);
    } catch {
      return null; // gone, a link, or one that others may have written: the table is received instead
    }
  }
}

function trustedDirectory(connection: Connection): string | null {
  const directory = connection.tablesDirectory;
  const isLocal = connection.endpoints.requests.startsWith("ipc://") && connection.curve === null;
  if (directory === null || !isLocal || process.getuid === undefined || !isAbsolute(directory)) return null;
  try {
    if (!statSync(directory).isDirectory()) return null;
    checkDirectory(directory);
    return directory;
  } catch {
    return null;
  }
}

async function readWhole(path: string, size: number): Promise<Uint8Array | null> {
  const { descriptor, found } = openRegular(path, true);
  try {
    checkFile(path, found);
    if (found.size !== size) return null;
    // Of its own, not out of Node's pool: columns are views of it, and may be transferred to another thread. It is not
    // cleared before, since all of it is read.
    const content = new Uint8Array(Buffer.allocUnsafeSlow(size).buffer);
    for (let at = 0; at < size; ) {
      const length = Math.min(CHUNK, size - at);
      const { bytesRead } = await promisify(readAt)(descriptor, content, at, length, at);
      if (bytesRead === 0) return null;
      at += bytesRead;
    }
    return content;
  } finally {
    closeSync(descriptor);
  }
}
