/** Numbers as text. A minus is U+2212, thousands are parted by a comma, and what is no number is a dash. */

const NONE = "—";

const formats = new Map<string, Intl.NumberFormat>();

/** Formats a number; to make a format costs as much as to use it a hundred times. */
function formatted(value: number, least: number, most: number): string {
  const key = `${least} ${most}`;
  let format = formats.get(key);
  if (format === undefined) {
    format = new Intl.NumberFormat("en-US", { minimumFractionDigits: least, maximumFractionDigits: most });
    formats.set(key, format);
  }
  return format.format(value);
}

function grouped(value: number, digits: number): string {
  return formatted(value, digits, digits);
}

function signed(text: string): string {
  if (!text.startsWith("-")) return text;
  return /[1-9]/.test(text) ? `−${text.slice(1)}` : text.slice(1); // −0.00 is 0.00
}

function missing(value: number | null | undefined): value is null | undefined {
  return value === null || value === undefined || !Number.isFinite(value);
}

/** Returns `12,345`. */
export function count(value: number | null | undefined): string {
  return missing(value) ? NONE : signed(grouped(Math.round(value), 0));
}

/** Returns `1,234.50` with so many digits behind the point. */
export function fixed(value: number | null | undefined, digits = 2): string {
  return missing(value) ? NONE : signed(grouped(value, digits));
}

/** Returns a fraction as `12.3 %`. */
export function percent(fraction: number | null | undefined, digits = 1): string {
  return missing(fraction) ? NONE : `${signed(grouped(100 * fraction, digits))} %`;
}

/** Returns a fraction as `+12.3 %` or `−4.0 %`, so that the sign tells what the colour tells. */
export function change(fraction: number | null | undefined, digits = 1): string {
  if (missing(fraction)) return NONE;
  const text = percent(fraction, digits);
  return Number((100 * fraction).toFixed(digits)) > 0 ? `+${text}` : text;
}

/** Returns money as `+1,234.50` or `−1,234.50`. */
export function profit(value: number | null | undefined, digits = 2): string {
  if (missing(value)) return NONE;
  return Number(value.toFixed(digits)) > 0 ? `+${fixed(value, digits)}` : fixed(value, digits);
}

/** Returns the class of a gain or loss: `gain`, `loss`, or none for 0 and what is no number. */
export function sense(value: number | null | undefined): "gain" | "loss" | "" {
  if (missing(value) || value === 0) return "";
  return value > 0 ? "gain" : "loss";
}

/** Returns a price with the digits that it needs: six that count, and two behind the point at least. */
export function price(value: number | null | undefined): string {
  if (missing(value)) return NONE;
  if (value === 0) return "0.00";
  const size = Math.floor(Math.log10(Math.abs(value)));
  const digits = Math.min(8, Math.max(2, 5 - size));
  const text = signed(formatted(value, 2, Math.max(2, digits)));
  return text;
}

/** Returns `1.2M`, `34k`. */
export function compact(value: number | null | undefined): string {
  if (missing(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 999_500_000) return signed(`${grouped(value / 1e9, 1)}G`);
  if (size >= 999_500) return signed(`${grouped(value / 1e6, 1)}M`);
  if (size >= 9_995) return signed(`${grouped(value / 1e3, 0)}k`);
  return signed(grouped(value, Number.isInteger(value) ? 0 : 1));
}

/** Returns `12.3 MB`. */
export function bytes(value: number | null | undefined): string {
  if (missing(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 999.5 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${signed(grouped(size, unit === 0 || size >= 99.95 ? 0 : 1))} ${units[unit]}`;
}

/** Returns the number that was typed, undefined where it is none. Takes `1,000`, `1_000`, `2e-3` and a U+2212 minus. */
export function parseNumber(text: string): number | undefined {
  const plain = text
    .trim()
    .replaceAll("−", "-")
    .replace(/(?<=\d)[,_ ](?=\d{3}(?:\D|$))/g, "");
  if (!/^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i.test(plain)) return undefined;
  const value = Number(plain);
  return Number.isFinite(value) ? value : undefined;
}
