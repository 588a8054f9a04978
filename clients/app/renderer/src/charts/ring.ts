/** The latest of many items, with a stated bound. Pure. */

/** Keeps the latest `capacity` items. */
export class Ring<Item> {
  readonly capacity: number;
  #items: Item[] = [];
  #start = 0;
  #seen = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** The number of items that are kept. */
  get length(): number {
    return this.#items.length;
  }

  /** The number of items that ever came. */
  get seen(): number {
    return this.#seen;
  }

  /** The number of items that came and are not kept any more. */
  get dropped(): number {
    return this.#seen - this.#items.length;
  }

  /** Adds an item; the oldest goes where there is no room. */
  push(item: Item): void {
    this.#seen += 1;
    if (this.#items.length < this.capacity) {
      this.#items.push(item);
      return;
    }
    this.#items[this.#start] = item;
    this.#start = (this.#start + 1) % this.capacity;
  }

  /** Returns the item that is `age` items older than the newest, which has the age 0; undefined beyond the oldest. */
  newest(age: number): Item | undefined {
    if (age < 0 || age >= this.#items.length) return undefined;
    const place = (this.#start + this.#items.length - 1 - age) % this.#items.length;
    return this.#items[place];
  }
}
