/** A made-up series for a catalogue that is empty, so that a newcomer can go on without data. */

const BARS = 6_000;
const HOUR_MS = 3_600_000;
const START = Date.UTC(2023, 0, 2);

/** Returns hourly bars of a random walk as a CSV file; the same at every call. */
export function sampleFile(): File {
  const random = mulberry(2023);
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const lines = ["time,open,high,low,close,volume"];
  let open = 100;
  for (let bar = 0; bar < BARS; bar += 1) {
    const drift = 0.0008 * Math.sin(bar / 180);
    const close = open * Math.exp(drift + 0.004 * normal());
    const high = Math.max(open, close) * (1 + 0.002 * random());
    const low = Math.min(open, close) * (1 - 0.002 * random());
    const prices = [open, high, low, close].map((one) => one.toFixed(4));
    lines.push(
      `${new Date(START + bar * HOUR_MS).toISOString()},${prices.join(",")},${(500 + 900 * random()).toFixed(0)}`,
    );
    open = Number(prices[3]);
  }
  return new File([`${lines.join("\n")}\n`], "SAMPLE_1h.csv", { type: "text/csv" });
}

/** A small generator of numbers from 0 up to 1, after Tommy Ettinger's mulberry32. */
function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
