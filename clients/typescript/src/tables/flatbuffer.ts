/**
 * Reads the few fields of a flatbuffer that Arrow's messages need.
 *
 * A table begins with the distance to its vtable, which has the place of each field, 0 for an absent one. Reading beyond
 * the data raises a `RangeError` of the `DataView`, so every place is checked.
 */

/** A table inside a flatbuffer. */
export class FlatTable {
  readonly #view: DataView;
  readonly #at: number;

  constructor(view: DataView, at: number) {
    this.#view = view;
    this.#at = at;
  }

  /** Returns the table to which the first offset of a buffer leads. */
  static root(view: DataView): FlatTable {
    return new FlatTable(view, view.getUint32(0, true));
  }

  #place(field: number): number {
    const vtable = this.#at - this.#view.getInt32(this.#at, true);
    const entry = 4 + 2 * field;
    if (entry + 2 > this.#view.getUint16(vtable, true)) return 0;
    const offset = this.#view.getUint16(vtable + entry, true);
    return offset === 0 ? 0 : this.#at + offset;
  }

  #reference(field: number): number {
    const place = this.#place(field);
    return place === 0 ? 0 : place + this.#view.getUint32(place, true);
  }

  byte(field: number): number {
    const place = this.#place(field);
    return place === 0 ? 0 : this.#view.getUint8(place);
  }

  short(field: number): number {
    const place = this.#place(field);
    return place === 0 ? 0 : this.#view.getInt16(place, true);
  }

  int(field: number): number {
    const place = this.#place(field);
    return place === 0 ? 0 : this.#view.getInt32(place, true);
  }

  /** Returns an integer of 64 bits. Throws a `RangeError` for one that is negative, or too large to be a size. */
  size(field: number): number {
    const place = this.#place(field);
    return place === 0 ? 0 : sizeAt(this.#view, place);
  }

  has(field: number): boolean {
    return this.#place(field) !== 0;
  }

  table(field: number): FlatTable {
    const at = this.#reference(field);
    if (at === 0) throw new RangeError("a field is missing");
    return new FlatTable(this.#view, at);
  }

  /** Returns the UTF-8 of a text, empty for an absent one. */
  text(field: number): Uint8Array {
    const at = this.#reference(field);
    if (at === 0) return new Uint8Array(0);
    const { buffer, byteOffset, byteLength } = this.#view;
    const length = this.#view.getUint32(at, true);
    if (at + 4 + length > byteLength) throw new RangeError("a text reaches beyond its end");
    return new Uint8Array(buffer, byteOffset + at + 4, length);
  }

  tables(field: number): FlatTable[] {
    const [at, count] = this.#vector(field, 4);
    return Array.from({ length: count }, (_, index) => {
      const place = at + 4 * index;
      return new FlatTable(this.#view, place + this.#view.getUint32(place, true));
    });
  }

  /** Returns a vector of structs that are two integers of 64 bits each. */
  pairs(field: number): [number, number][] {
    const [at, count] = this.#vector(field, 16);
    return Array.from({ length: count }, (_, index) => [
      sizeAt(this.#view, at + 16 * index),
      sizeAt(this.#view, at + 16 * index + 8),
    ]);
  }

  /** Returns a vector of the places in a file (Arrow's struct Block): where each message begins. */
  blocks(field: number): number[] {
    const [at, count] = this.#vector(field, 24);
    return Array.from({ length: count }, (_, index) => sizeAt(this.#view, at + 24 * index));
  }

  #vector(field: number, itemBytes: number): [at: number, count: number] {
    const at = this.#reference(field);
    if (at === 0) return [0, 0];
    const count = this.#view.getUint32(at, true);
    if (at + 4 + count * itemBytes > this.#view.byteLength) throw new RangeError("a list reaches beyond its end");
    return [at + 4, count];
  }
}

function sizeAt(view: DataView, place: number): number {
  const size = view.getUint32(place + 4, true) * 2 ** 32 + view.getUint32(place, true);
  if (size > Number.MAX_SAFE_INTEGER) throw new RangeError("a size that is none");
  return size;
}
