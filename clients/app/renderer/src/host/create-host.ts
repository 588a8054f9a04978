import type { Host } from "./host";

/** Makes the host that this renderer runs in. */
export function createHost(): Host {
  throw new Error("the hosts of the renderer are not there yet");
}
