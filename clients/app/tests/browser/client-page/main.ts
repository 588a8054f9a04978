/** A page without screens: its host, for tests of what stands between screens and the broker. */

import { createHost } from "../../../renderer/src/host/create-host";
import type { Host, HostState } from "../../../renderer/src/host/host";

/** The functions that the page gives its tests. */
export interface Tried {
  readonly host: Host;
  readonly states: HostState[];
}

declare global {
  interface Window {
    tried: Tried;
  }
}

const host = createHost();
const states: HostState[] = [];
host.onState((state) => states.push(state));
window.tried = { host, states };
