/** The wait of a new client for its broker. */

import type { Clock } from "./clock.js";
import { AuthenticationError, BacktestrError, NetworkError } from "./core/errors.js";
import type { Driver } from "./driver.js";
import type { Welcome } from "./generated/contracts.js";

/**
 * Waits up to `seconds` for the broker. Raises `NetworkError` if it is not there or does not answer by then, and
 * `AuthenticationError` if it does not take this client's key.
 */
export async function welcomed(driver: Driver, clock: Clock, seconds: number): Promise<Welcome> {
  const origin = new Error("opened");
  let cancel = (): void => undefined;
  const late = new Promise<null>((resolve) => {
    cancel = clock.after(seconds, () => resolve(null));
  });
  try {
    const welcome = await Promise.race([driver.welcomed(), late]);
    if (welcome !== null) return welcome;
    const { keyRefusal, lastReason } = driver;
    if (keyRefusal !== null) {
      throw new AuthenticationError(`the broker does not take this client's key: ${keyRefusal.message}`);
    }
    throw new NetworkError(`no broker answered within ${seconds} s${lastReason === null ? "" : `: ${lastReason}`}`);
  } catch (error) {
    throw error instanceof BacktestrError ? error.at(origin) : error;
  } finally {
    cancel();
  }
}
