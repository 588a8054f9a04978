/** A clock that runs faster than the machine's, so that forty seconds of a client pass in four. */

import { type Clock, systemClock } from "../../src/clock.js";

export function fastClock(times: number): Clock {
  return {
    ...systemClock,
    now: () => systemClock.now() * times,
    after: (seconds, due) => systemClock.after(seconds / times, due),
  };
}
