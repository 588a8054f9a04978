/** Milliseconds that a browser may take to begin a download, before its data are let go. */
const KEPT_MS = 60_000;

/** Has the browser download `blob` as a file of this name. */
export function offerDownload(name: string, blob: Blob): void {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), KEPT_MS);
}
