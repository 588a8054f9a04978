/**
 * The colours of values: one scale from a dark violet to a light yellow, on both themes. Pure.
 *
 * It is lighter for better values all the way, so that it reads without seeing hues, and equal steps of a value are equal
 * steps of perceived colour: distances in Oklab. The colours that it goes through are those of viridis.
 */

const STEPS = 256;
const THROUGH = [0x46307e, 0x3b528b, 0x2c728e, 0x21918c, 0x28ae80, 0x5ec962, 0xaddc30, 0xfde725];

type Triple = readonly [number, number, number];

/** Red, green and blue of each step of the scale, 0 to 255, one after the other. */
export const SCALE: Uint8ClampedArray = madeScale();

/** Returns the step of a share from 0, the worst, to 1, the best. */
export function stepOf(share: number): number {
  return Math.max(0, Math.min(STEPS - 1, Math.round(share * (STEPS - 1))));
}

/** Returns a step of the scale as a colour of CSS. */
export function colourOfStep(step: number): string {
  return `rgb(${SCALE[3 * step]} ${SCALE[3 * step + 1]} ${SCALE[3 * step + 2]})`;
}

function madeScale(): Uint8ClampedArray {
  const path: Triple[] = [];
  for (let at = 0; at + 1 < THROUGH.length; at += 1) {
    const [from, to] = [oklabOf(THROUGH[at] as number), oklabOf(THROUGH[at + 1] as number)];
    for (let part = 0; part < 64; part += 1) path.push(mixed(from, to, part / 64));
  }
  path.push(oklabOf(THROUGH.at(-1) as number));
  const lengths = [0];
  for (let at = 1; at < path.length; at += 1) {
    lengths.push((lengths[at - 1] as number) + distance(path[at - 1] as Triple, path[at] as Triple));
  }
  const scale = new Uint8ClampedArray(3 * STEPS);
  let at = 0;
  for (let step = 0; step < STEPS; step += 1) {
    const length = ((lengths.at(-1) as number) * step) / (STEPS - 1);
    while (at + 2 < lengths.length && (lengths[at + 1] as number) < length) at += 1;
    const [before, after] = [lengths[at] as number, lengths[at + 1] as number];
    scale.set(rgbOf(mixed(path[at] as Triple, path[at + 1] as Triple, (length - before) / (after - before))), 3 * step);
  }
  return scale;
}

function mixed(from: Triple, to: Triple, share: number): Triple {
  return [0, 1, 2].map((at) => (from[at] as number) + share * ((to[at] as number) - (from[at] as number))) as never;
}

/** The distance of two colours in Oklab. */
export function distance(one: Triple, other: Triple): number {
  return Math.hypot(one[0] - other[0], one[1] - other[1], one[2] - other[2]);
}

/** Returns lightness, a and b in Oklab of a colour `0xRRGGBB`. */
export function oklabOf(colour: number): Triple {
  const [red, green, blue] = [16, 8, 0].map((shift) => {
    const part = ((colour >> shift) & 255) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }) as never as Triple;
  const l = Math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue);
  const m = Math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue);
  const s = Math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function rgbOf([lightness, a, b]: Triple): readonly number[] {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((part) => 255 * (part <= 0.0031308 ? 12.92 * part : 1.055 * part ** (1 / 2.4) - 0.055));
}
