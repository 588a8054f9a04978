/** Times of frames in a page, while something is done to it. */

import type { Page } from "playwright-core";

/** A gesture, done once a frame: a wheel over the middle of an element. */
export interface Gesture {
  readonly selector: string;
  readonly deltaX: number;
  readonly deltaY: number;
  /** The direction turns after so many frames. */
  readonly turnAfter: number;
}

/** Returns the milliseconds between the frames in which a gesture was made, one wheel a frame. */
export function framesOf(page: Page, gesture: Gesture, frames: number): Promise<number[]> {
  return page.evaluate(
    async ([made, count]) => {
      const area = document.querySelector(made.selector);
      if (area === null) throw new Error(`there is no ${made.selector}`);
      const box = area.getBoundingClientRect();
      const [clientX, clientY] = [box.left + 0.55 * box.width, box.top + 0.5 * box.height];
      const took: number[] = [];
      let before = performance.now();
      for (let frame = 0; frame < count; frame += 1) {
        const sign = Math.floor(frame / made.turnAfter) % 2 === 0 ? 1 : -1;
        area.dispatchEvent(
          new WheelEvent("wheel", {
            bubbles: true,
            cancelable: true,
            clientX,
            clientY,
            deltaX: sign * made.deltaX,
            deltaY: sign * made.deltaY,
          }),
        );
        await new Promise((next) => requestAnimationFrame(next));
        const now = performance.now();
        took.push(now - before);
        before = now;
      }
      return took;
    },
    [gesture, frames] as const,
  );
}

/** Begins to note the milliseconds between frames; `endFrames` gives them. */
export async function beginFrames(page: Page): Promise<void> {
  await page.evaluate(() => {
    const noted: number[] = [];
    let before = performance.now();
    const note = (): void => {
      const now = performance.now();
      noted.push(now - before);
      before = now;
      requestAnimationFrame(note);
    };
    requestAnimationFrame(note);
    (window as unknown as { noted: number[] }).noted = noted;
  });
}

/** Returns the milliseconds between the frames since `beginFrames`. */
export function endFrames(page: Page): Promise<number[]> {
  return page.evaluate(() => (window as unknown as { noted: number[] }).noted.splice(0));
}

/** Returns the megabytes of the page's heap after a collection. */
export async function heapMegabytes(page: Page): Promise<number> {
  const session = await page.context().newCDPSession(page);
  try {
    await session.send("HeapProfiler.collectGarbage");
    const { usedSize } = await session.send("Runtime.getHeapUsage");
    return usedSize / 1e6;
  } finally {
    await session.detach();
  }
}
