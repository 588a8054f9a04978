/** The options of an import as the form has them, and those that an error asks for. */

import { BacktestrError, type ImportMarketData } from "@backtestr/client/page";

/** The options as they are typed; an empty one is told from the file. */
export interface ImportForm {
  readonly symbol: string;
  readonly timeframe: string;
  readonly format: string;
  readonly timeZone: string;
  readonly price: string;
  readonly timeUnit: string;
  readonly dateOrder: string;
  readonly decimal: string;
  readonly symbolColumn: string;
  readonly repair: string;
}

export type ImportField = keyof ImportForm;

export const EMPTY_FORM: ImportForm = {
  symbol: "",
  timeframe: "",
  format: "",
  timeZone: "",
  price: "",
  timeUnit: "",
  dateOrder: "",
  decimal: "",
  symbolColumn: "",
  repair: "",
};

export interface OptionChoice {
  readonly field: ImportField;
  readonly label: string;
  readonly hint: string;
  /** The values of one with few; others are typed. */
  readonly choices?: readonly (readonly [value: string, label: string])[];
}

const TOLD = ["", "Told from the file"] as const;

/** The options beside symbol and timeframe, in the order in which they matter. */
export const OPTIONS: readonly OptionChoice[] = [
  { field: "timeZone", label: "Time zone", hint: "Of times without an offset, such as America/New_York." },
  {
    field: "format",
    label: "Format",
    hint: "The source format, where the content does not tell.",
    choices: [TOLD, ...each("csv yahoo nasdaq mt4 mt5 histdata dukascopy binance parquet arrow")],
  },
  {
    field: "timeUnit",
    label: "Unit of times",
    hint: "Of times that are counts since 1970.",
    choices: [TOLD, ["s", "Seconds"], ["ms", "Milliseconds"], ["us", "Microseconds"], ["ns", "Nanoseconds"]],
  },
  {
    field: "dateOrder",
    label: "Order of dates",
    hint: "In dates such as 03/04/2024.",
    choices: [TOLD, ["dmy", "Day first"], ["mdy", "Month first"]],
  },
  {
    field: "decimal",
    label: "Decimal mark",
    hint: "Of numbers such as 1,234.",
    choices: [TOLD, [".", "Point: 1,234.5"], [",", "Comma: 1.234,5"]],
  },
  { field: "symbolColumn", label: "Symbol column", hint: "Each value of this column becomes a series." },
  {
    field: "price",
    label: "Price of ticks",
    hint: "The price that bars are made of, where the file has ticks and a timeframe is given.",
    choices: [["", "The middle, or last"], ...each("mid bid ask last")],
  },
  {
    field: "repair",
    label: "Rows that cannot be used",
    hint: "A file with such rows is refused unless they are to be left out.",
    choices: [
      ["", "Refuse the file"],
      ["drop", "Leave the rows out"],
    ],
  },
];

// The flags of the command line, by which the broker's messages name the options.
const FLAGS: readonly (readonly [flag: string, field: ImportField])[] = [
  ["--time-unit", "timeUnit"],
  ["--date-order", "dateOrder"],
  ["--decimal", "decimal"],
  ["--symbol-column", "symbolColumn"],
  ["--timeframe", "timeframe"],
  ["--tz", "timeZone"],
  ["--format", "format"],
  ["--price", "price"],
  ["--repair", "repair"],
];

/** The options that an error names: by the path of its field, by the flag in its words, or in its advice. */
export function askedFor(error: unknown): readonly ImportField[] {
  if (!(error instanceof BacktestrError)) return [];
  const found = new Set<ImportField>();
  const { path, paths } = (error.details ?? {}) as { path?: unknown; paths?: unknown };
  for (const one of [path, ...(Array.isArray(paths) ? paths : [])]) {
    const field = typeof one === "string" ? one.replace("$.", "") : "";
    if (field in EMPTY_FORM) found.add(field as ImportField);
  }
  const words = [error.message, ...error.recoveryActions.map((one) => one.description)].join("\n");
  for (const [flag, field] of FLAGS) if (new RegExp(`${flag}(?![\\w-])`).test(words)) found.add(field);
  return [...found];
}

/** Returns the request of a form for a file that lies at `path`. */
export function importRequest(path: string, form: ImportForm): ImportMarketData {
  const filled = Object.entries(form).filter(([, value]) => value.trim() !== "");
  return { path, ...Object.fromEntries(filled.map(([name, value]) => [name, value.trim()])) };
}

/** Returns the reason why a form cannot be sent yet, by field. */
export function formErrors(form: ImportForm): Partial<Record<ImportField, string>> {
  const errors: Partial<Record<ImportField, string>> = {};
  const symbol = form.symbol.trim();
  if (symbol === "" && form.symbolColumn.trim() === "") {
    errors.symbol = "Name the series, or the column that names each.";
  } else if ([...symbol].length > 64) errors.symbol = "A symbol has up to 64 characters.";
  const timeframe = form.timeframe.trim();
  if (timeframe !== "" && timeframe !== "tick" && !/^[1-9]\d*[smhdwM]$/.test(timeframe)) {
    errors.timeframe = "A number and a unit: 30s 5m 2h 1d 1w 1M, or tick.";
  }
  return errors;
}

function each(words: string): readonly (readonly [string, string])[] {
  return words.split(" ").map((one) => [one, one] as const);
}
