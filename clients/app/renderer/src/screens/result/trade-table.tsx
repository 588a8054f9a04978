/** The trades of a result: sorted, filtered, exported; a row is joined to its fills in the chart. */

import type { Table } from "@backtestr/client/page";
import { createMemo, createSignal, type JSX, Show } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { Select, TextField } from "../../components/field";
import { EmptyState } from "../../components/states";
import { type Column, VirtualTable } from "../../components/virtual-table";
import { saveArrow, saveCsv } from "../../exports/save";
import { change, count, fixed, percent, price, profit, sense } from "../../format/numbers";
import { duration, moment } from "../../format/times";
import { numbers, texts } from "./result-data";

export interface TradeTableProps {
  readonly trades: Table;
  readonly selected: number | undefined;
  onSelect(row: number): void;
  /** The beginning of names of files. */
  readonly name: string;
}

const RESULTS = [
  { value: "all", label: "All trades" },
  { value: "gain", label: "Gains" },
  { value: "loss", label: "Losses" },
  { value: "open", label: "Open" },
];
const SIDES = [
  { value: "all", label: "Both sides" },
  { value: "buy", label: "Long" },
  { value: "sell", label: "Short" },
];

/** Shows trades. */
export function TradeTable(props: TradeTableProps): JSX.Element {
  const app = useApp();
  const [result, setResult] = createSignal("all");
  const [side, setSide] = createSignal("all");
  const [search, setSearch] = createSignal("");
  let order: Uint32Array | undefined;

  const columns = createMemo(() => columnsOf(props.trades));
  const shown = createMemo(() => {
    const { trades } = props;
    const pnl = numbers(trades, "pnl");
    const [status, sides, symbols, reasons] = ["status", "side", "symbol", "exit_reason"].map((one) =>
      texts(trades, one),
    );
    const wanted = search().trim().toLowerCase();
    const rows: number[] = [];
    for (let row = 0; row < trades.rows; row += 1) {
      const isOpen = status?.at(row) === "open";
      if (result() === "open" && !isOpen) continue;
      if (result() === "gain" && !((pnl[row] as number) > 0)) continue;
      if (result() === "loss" && !((pnl[row] as number) < 0)) continue;
      if (side() !== "all" && sides?.at(row) !== side()) continue;
      if (wanted !== "") {
        const words = `${symbols?.at(row) ?? ""} ${reasons?.at(row) ?? ""} ${row + 1}`.toLowerCase();
        if (!words.includes(wanted)) continue;
      }
      rows.push(row);
    }
    return Uint32Array.from(rows);
  });
  const save = (saving: Promise<void>): void => {
    saving.catch((error: Error) => app.notices.show(error.message, { kind: "error" }));
  };
  return (
    <section class="panel trades" data-testid="trades" aria-label="Trades">
      <div class="panel-header">
        <h2>Trades</h2>
        <span class="muted small" role="status">
          {shown().length === props.trades.rows
            ? count(props.trades.rows)
            : `${count(shown().length)} of ${count(props.trades.rows)}`}
        </span>
        <div class="actions">
          <Select label="Result" hideLabel value={result()} choices={RESULTS} onChange={setResult} />
          <Select label="Side" hideLabel value={side()} choices={SIDES} onChange={setSide} />
          <TextField
            label="Find by symbol, reason or number"
            hideLabel
            type="search"
            placeholder="Symbol, reason, number"
            value={search()}
            onInput={setSearch}
          />
          <Button
            title="The trades that are shown, in their order, as CSV"
            onClick={() => save(saveCsv(app.host, `${props.name}-trades`, props.trades, order ?? shown()))}
          >
            CSV
          </Button>
          <Button
            title="All trades as an Arrow IPC stream: polars.read_ipc_stream(file)"
            onClick={() => save(saveArrow(app.host, `${props.name}-trades`, props.trades))}
          >
            Arrow
          </Button>
        </div>
      </div>
      <Show
        when={shown().length > 0}
        fallback={
          <EmptyState title={props.trades.rows === 0 ? "There is no trade" : "No trade is shown"}>
            {props.trades.rows === 0
              ? "The algorithm gave no signal that was filled."
              : "No trade has what is chosen above."}
          </EmptyState>
        }
      >
        <VirtualTable
          label="Trades"
          rows={props.trades.rows}
          columns={columns()}
          shown={shown()}
          selected={props.selected}
          onSelect={(row) => props.onSelect(row)}
          onOrder={(rows) => {
            order = rows;
          }}
          visibleRows={14}
        />
      </Show>
    </section>
  );
}

function columnsOf(trades: Table): readonly Column[] {
  const text = (name: string) => {
    const column = texts(trades, name);
    return (row: number): string => column?.at(row) ?? "";
  };
  const number = (name: string) => {
    const column = numbers(trades, name);
    return (row: number): number => column[row] as number;
  };
  const [side, status, reason, symbol] = [text("side"), text("status"), text("exit_reason"), text("symbol")];
  const [entry, exit, pnl, gain] = [number("entry_time"), number("exit_time"), number("pnl"), number("return")];
  const figure = (
    id: string,
    title: string,
    format: (value: number) => string,
    definition?: string,
    width = "6.5rem",
  ): Column => {
    const value = number(id);
    return { id, title, width, align: "end", text: (row) => format(value(row)), value, definition };
  };
  return [
    { id: "row", title: "#", width: "4rem", align: "end", text: (row) => count(row + 1), value: (row) => row },
    { id: "symbol", title: "Symbol", width: "minmax(5rem, 1fr)", text: symbol, value: symbol },
    { id: "side", title: "Side", width: "4rem", text: (row) => (side(row) === "buy" ? "long" : "short"), value: side },
    { id: "entry", title: "Entry", width: "9.5rem", text: (row) => moment(entry(row)), value: entry },
    {
      id: "exit",
      title: "Exit",
      width: "9.5rem",
      text: (row) => (status(row) === "open" ? "open" : moment(exit(row))),
      value: exit,
      definition: "An open trade is valued at the last close.",
    },
    {
      id: "duration",
      title: "Held",
      width: "6rem",
      align: "end",
      text: (row) => duration(exit(row) - entry(row)),
      value: (row) => exit(row) - entry(row),
    },
    figure("quantity", "Quantity", (value) => fixed(value, 4)),
    figure("entry_price", "Entry price", price),
    figure("exit_price", "Exit price", price),
    {
      id: "pnl",
      title: "PnL",
      width: "7rem",
      align: "end",
      text: (row) => profit(pnl(row)),
      value: pnl,
      class: (row) => sense(pnl(row)),
      definition: "Profit and loss after fees.",
    },
    {
      id: "return",
      title: "Return",
      width: "5.5rem",
      align: "end",
      text: (row) => change(gain(row), 2),
      value: gain,
      class: (row) => sense(gain(row)),
      definition: "PnL / (entry price · quantity).",
    },
    figure("fees", "Fees", (value) => fixed(value, 2)),
    figure(
      "mae",
      "MAE",
      (value) => percent(value, 2),
      "The largest move against the holder, of the entry price.",
      "5rem",
    ),
    figure("mfe", "MFE", (value) => percent(value, 2), "The largest move for the holder, of the entry price.", "5rem"),
    { id: "exit_reason", title: "Exit by", width: "minmax(6rem, 1fr)", text: reason, value: reason },
  ];
}
