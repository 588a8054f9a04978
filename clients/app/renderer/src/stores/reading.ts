/** Reads a stream for as long as the page lives: after an error it is opened again, with growing pauses. */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

/** Calls `take` with every item of what `open` opens; returns what ends that. */
export function keepReading<Item>(open: () => AsyncIterable<Item>, take: (item: Item) => void): () => void {
  let ended = false;
  let wake = (): void => undefined;
  let iterator: AsyncIterator<Item> | undefined;

  async function pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async function read(): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    while (!ended) {
      try {
        iterator = open()[Symbol.asyncIterator]();
        for (;;) {
          const next = await iterator.next();
          if (next.done === true || ended) break;
          take(next.value);
          pauseMs = FIRST_PAUSE_MS;
        }
      } catch {
        // The connection store shows the state of the connection, and client.errors has the error.
      }
      if (!ended) await pause(pauseMs);
      pauseMs = Math.min(LONGEST_PAUSE_MS, 2 * pauseMs);
    }
  }

  void read();
  return () => {
    ended = true;
    wake();
    void iterator?.return?.().catch(() => undefined);
  };
}
