/** Drawing at most once a frame, however often it is asked for. */

/** The functions of the platform that tell of frames; tests bring others. */
export interface Frames {
  request(callback: () => void): number;
  cancel(id: number): void;
}

const PLATFORM: Frames = {
  request: (callback) => requestAnimationFrame(callback),
  cancel: (id) => cancelAnimationFrame(id),
};

/** A drawing that was asked for any number of times is done once, in the next frame. */
export class Coalesced {
  readonly #draw: () => void;
  readonly #frames: Frames;
  #pending: number | undefined;

  constructor(draw: () => void, frames: Frames = PLATFORM) {
    this.#draw = draw;
    this.#frames = frames;
  }

  /** Asks for a drawing in the next frame. */
  request(): void {
    this.#pending ??= this.#frames.request(() => {
      this.#pending = undefined;
      this.#draw();
    });
  }

  /** Forgets a drawing that was asked for. */
  cancel(): void {
    if (this.#pending !== undefined) this.#frames.cancel(this.#pending);
    this.#pending = undefined;
  }
}
