/** A backtest as Python and as a command, which run as they are. */

import type { Config } from "./run-config";

/** Returns a program of the Python client that runs a backtest and prints its result. */
export function asPython(config: Config): string {
  const symbols = config.symbols !== undefined && config.symbols.length > 0 ? config.symbols : config.symbol;
  const { options = {} } = config;
  const named: [string, unknown][] = [
    ["timeframe", config.timeframe],
    ["start", config.startDate],
    ["end", config.endDate],
    ["price", config.price],
    ["capital", config.initialCapital],
    ["commission", config.commission || undefined],
    ["slippage", config.slippage || undefined],
    ["parameters", Object.keys(config.parameters).length === 0 ? undefined : config.parameters],
    ["warmup", config.warmup],
    ...Object.entries(options).map(([name, value]): [string, unknown] => [snake(name), value]),
  ];
  const lines = named.flatMap(([name, value]) => (value === undefined ? [] : [`        ${name}=${pythonOf(value)},`]));
  return [
    "import backtestr",
    "",
    "with backtestr.connect() as client:",
    "    run = client.backtest(",
    `        ${pythonOf(config.algorithmId)},`,
    `        ${pythonOf(symbols)},`,
    ...lines,
    "    )",
    "    print(run.result())",
    "",
  ].join("\n");
}

/** Returns the command that runs a backtest and prints its result. */
export function asCommand(config: Config): string {
  const symbols = config.symbols !== undefined && config.symbols.length > 0 ? config.symbols : [config.symbol ?? ""];
  const { pace, preset, ...options } = config.options ?? {};
  const words: string[] = ["backtestr backtest", shell(config.algorithmId), ...symbols.map(shell)];
  const flag = (name: string, value: unknown): void => {
    if (value !== undefined) words.push(`--${name} ${shell(String(value))}`);
  };
  flag("timeframe", config.timeframe);
  flag("start", config.startDate);
  flag("end", config.endDate);
  flag("price", config.price);
  flag("capital", config.initialCapital);
  flag("commission", config.commission || undefined);
  flag("slippage", config.slippage || undefined);
  flag("warmup", config.warmup);
  for (const [name, value] of Object.entries(config.parameters)) flag("param", `${name}=${JSON.stringify(value)}`);
  for (const [name, value] of Object.entries(options)) {
    flag("option", `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  }
  flag("preset", preset);
  flag("pace", pace);
  return words.join(" ");
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function pythonOf(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return JSON.stringify(value); // its escapes are Python's as well
  if (Array.isArray(value)) return `[${value.map(pythonOf).join(", ")}]`;
  return `{${Object.entries(value as object)
    .map(([name, one]) => `${JSON.stringify(name)}: ${pythonOf(one)}`)
    .join(", ")}}`;
}

function shell(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
