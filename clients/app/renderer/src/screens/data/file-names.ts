/** Reads symbol and timeframe from the name of a file; the broker decides by the content. */

/** The symbol and timeframe that a name seems to have; either may be absent. */
export interface Told {
  readonly symbol: string;
  readonly timeframe: string;
}

const TIMEFRAME_WORDS: Readonly<Record<string, string>> = {
  daily: "1d",
  day: "1d",
  hourly: "1h",
  weekly: "1w",
  monthly: "1M",
  minute: "1m",
  tick: "tick",
  ticks: "tick",
};
// Words that say who made a file, or how it is laid out.
const NOISE = new Set(
  (
    "dat ascii mt mt4 mt5 metatrader ohlc ohlcv candlestick candles candle klines kline bars bar data quote quotes trades " +
    "trade yahoo binance histdata dukascopy nasdaq stooq export history historical prices price split date time utc gmt " +
    "bid ask mid csv txt parquet arrow feather gz zip"
  ).split(" "),
);

/** Tells symbol and timeframe from a file's name, such as `BTCUSDT-1m-2022-01.csv`. */
export function toldByName(name: string): Told {
  const words = name.replace(/\.(csv|txt|parquet|arrow|feather|gz|zip|prn|tsv)\b/gi, "").split(/[\s_\-.,()]+/);
  let timeframe = "";
  const rest: string[] = [];
  for (const [at, word] of words.entries()) {
    const found = timeframeOf(word) ?? split(word, words[at + 1]);
    if (found !== undefined) timeframe ||= found;
    else if (word !== "" && !isDate(word) && !NOISE.has(word.toLowerCase()) && !/^[smhd]$/i.test(word)) rest.push(word);
  }
  return { symbol: rest.slice(0, 3).join("_").toUpperCase().slice(0, 64), timeframe };
}

function timeframeOf(word: string): string | undefined {
  const known = TIMEFRAME_WORDS[word.toLowerCase()];
  if (known !== undefined) return known;
  const match = /^(\d{1,3})(s|sec|m|min|h|hour|d|w|M|mo)$/.exec(word);
  if (match !== null) return `${match[1]}${unit(match[2] ?? "")}`;
  const metatrader = /^(MN|[MHDW])(\d{1,2})$/.exec(word); // M1, H4, D1, MN1
  if (metatrader === null) return undefined;
  return `${metatrader[2]}${metatrader[1] === "MN" ? "M" : (metatrader[1] ?? "").toLowerCase()}`;
}

/** Dukascopy writes `1_h`. */
function split(word: string, next: string | undefined): string | undefined {
  return /^\d{1,3}$/.test(word) && next !== undefined && /^[smhd]$/i.test(next)
    ? `${word}${next.toLowerCase()}`
    : undefined;
}

function unit(word: string): string {
  return { sec: "s", min: "m", hour: "h", mo: "M" }[word] ?? word;
}

function isDate(word: string): boolean {
  return /^\d+$/.test(word) || /^\d{4}[a-z]?\d*$/i.test(word);
}
