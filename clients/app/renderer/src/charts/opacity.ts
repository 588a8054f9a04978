/** Colours with an opacity. Pure. */

/** Returns a colour `rgb(…)` with an opacity; any other text as it is. */
export function withOpacity(rgb: string, opacity: number): string {
  return rgb.replace(/^rgb\(([^)]*)\)$/, (_, inner: string) =>
    inner.includes(",") ? `rgba(${inner}, ${opacity})` : `rgb(${inner} / ${opacity})`,
  );
}
