/** The address of the app's page, and the rules that are told by addresses. Pure. */

import { join, normalize, sep } from "node:path";

/** The scheme under which the page's files are served, instead of `file:`. */
export const SCHEME = "app";
/** The origin of the page. */
export const ORIGIN = `${SCHEME}://backtestr`;
/** The page itself. */
export const PAGE = `${ORIGIN}/index.html`;

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".webp": "image/webp",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
  ".webmanifest": "application/manifest+json",
};

/** The headers of every file of the page: its own scripts alone run, and it connects to nothing but itself. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "font-src 'self'",
    "connect-src 'self'",
    "worker-src 'self'",
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

/** Returns true for an address of the app's own page, and of nothing that only begins like it. */
export function isOwnPage(address: string): boolean {
  const url = parsed(address);
  return url !== undefined && url.protocol === `${SCHEME}:` && url.host === "backtestr";
}

/** Returns true for what a window may load: the app's own files, and data that it has made itself. */
export function mayLoad(address: string): boolean {
  const url = parsed(address);
  if (url === undefined) return false;
  // `devtools:` is Electron's own; windows of the packaged app cannot open them.
  return isOwnPage(address) || url.protocol === "devtools:" || url.protocol === "data:" || isOwnBlob(address);
}

/** Returns true for what a page may be permitted: to put text on the clipboard, when it is the app's own. */
export function mayHavePermission(permission: string, address: string): boolean {
  return permission === "clipboard-sanitized-write" && isOwnPage(address);
}

/**
 * Returns the file that an address of the page means, and its type; null where there is none to serve. No address leads
 * out of `folder`.
 */
export function servedFile(address: string, folder: string): { readonly file: string; readonly type: string } | null {
  const url = parsed(address);
  if (url === undefined || !isOwnPage(address)) return null;
  let path: string;
  try {
    path = decodeURIComponent(url.pathname);
  } catch {
    return null;
  }
  if (path.includes("\0") || path.includes("\\")) return null;
  const file = normalize(join(folder, path === "/" ? "/index.html" : path));
  const type = CONTENT_TYPES[/\.[a-z0-9]+$/.exec(file)?.[0] ?? ""];
  return type !== undefined && file.startsWith(normalize(folder) + sep) ? { file, type } : null;
}

function isOwnBlob(address: string): boolean {
  return address.startsWith(`blob:${ORIGIN}/`);
}

function parsed(address: string): URL | undefined {
  return URL.canParse(address) ? new URL(address) : undefined;
}
