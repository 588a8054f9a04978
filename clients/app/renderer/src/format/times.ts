/** Times and durations as text. Times are milliseconds since 1970 and are shown in UTC, as the broker has them. */

/** Returns `2024-03-01`. */
export function day(ms: number): string {
  return Number.isFinite(ms) ? new Date(ms).toISOString().slice(0, 10) : "—";
}

/** Returns `2024-03-01 14:05`, with seconds or milliseconds where the time has them. */
export function moment(ms: number): string {
  if (!Number.isFinite(ms)) return "—";
  const text = new Date(ms).toISOString();
  const end = ms % 60_000 === 0 ? 16 : ms % 1000 === 0 ? 19 : 23;
  return text.slice(0, end).replace("T", " ");
}

/** Returns the time of the day here, `14:05:09`. */
export function clock(ms: number): string {
  return new Date(ms).toTimeString().slice(0, 8);
}

/** Returns `2024-01-02 – 2024-03-01`, with times of the day where the range is shorter than two days. */
export function range(start: number, end: number): string {
  const shown = Math.abs(end - start) < 2 * 86_400_000 && (start % 86_400_000 !== 0 || end % 86_400_000 !== 0);
  return shown ? `${moment(start)} – ${moment(end)}` : `${day(start)} – ${day(end)}`;
}

/** Returns a wait as `0.4 s`, `12 s`, `3 min 5 s`. */
export function seconds(ms: number): string {
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  const whole = Math.round(ms / 1000);
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : duration(ms);
}

const UNITS: readonly (readonly [number, string])[] = [
  [365.25 * 86_400_000, "y"],
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1_000, "s"],
];

/** Returns a duration in its two largest units, such as `3 d 4 h`. */
export function duration(ms: number): string {
  if (!Number.isFinite(ms)) return "—";
  if (Math.abs(ms) < 1000) return `${Math.round(ms)} ms`;
  const sign = ms < 0 ? "−" : "";
  let rest = Math.abs(ms);
  const parts: string[] = [];
  for (const [length, name] of UNITS) {
    const count = Math.floor(rest / length);
    if (count > 0) {
      parts.push(`${count} ${name}`);
      rest -= count * length;
    } else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return sign + parts.join(" ");
}

/** Returns how long ago a time was, such as `5 min ago`. */
export function ago(ms: number, now: number): string {
  const passed = now - ms;
  if (passed < 5_000) return "just now";
  return `${duration(passed).split(" ").slice(0, 2).join(" ")} ago`;
}

const TIMEFRAMES: Readonly<Record<string, number>> = {
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 7 * 86_400_000,
  M: 30.44 * 86_400_000,
};

/** Returns the milliseconds of a timeframe such as `5m`; 0 for `tick`, undefined for what is none. */
export function timeframeMs(timeframe: string): number | undefined {
  if (timeframe === "tick") return 0;
  const match = /^(\d{1,6})([smhdwM])$/.exec(timeframe);
  const unit = TIMEFRAMES[match?.[2] ?? ""];
  const count = Number(match?.[1]);
  return unit === undefined || !(count > 0) ? undefined : count * unit;
}
