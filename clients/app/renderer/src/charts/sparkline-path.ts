/** The path of a sparkline. Pure. */

/** Returns the path of an SVG for values; NaN is a gap. Empty if no value is finite. At most four points a pixel column. */
export function sparklinePath(values: ArrayLike<number>, width: number, height: number, margin = 1.5): string {
  const length = values.length;
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (let index = 0; index < length; index += 1) {
    const value = values[index] as number;
    if (!Number.isFinite(value)) continue;
    if (value < min) min = value;
    if (value > max) max = value;
  }
  if (min > max) return "";
  const spread = max - min;
  const y = (value: number): number =>
    spread === 0 ? height / 2 : margin + (1 - (value - min) / spread) * (height - 2 * margin);
  const x = (index: number): number => margin + (length === 1 ? 0.5 : index / (length - 1)) * (width - 2 * margin);
  const step = Math.max(1, Math.floor(length / (4 * width)));
  let path = "";
  let isDown = false;
  for (let index = 0; index < length; index += 1) {
    if (index % step !== 0 && index !== length - 1) continue;
    const value = values[index] as number;
    if (!Number.isFinite(value)) {
      isDown = false;
      continue;
    }
    path += `${isDown ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    // A lone point is drawn as a line of no length, which round caps show.
    if (!isDown && !Number.isFinite(values[index + step] as number)) path += "h0";
    isDown = true;
  }
  return path;
}
