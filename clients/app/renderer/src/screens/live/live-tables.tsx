/** The orders, positions and events of a running backtest, the newest first. */

import type { OrderUpdate, PositionUpdate } from "@backtestr/client/page";
import { createMemo, For, type JSX, Show } from "solid-js";
import { type Column, VirtualTable } from "../../components/virtual-table";
import { count, fixed, price, profit, sense } from "../../format/numbers";
import { moment } from "../../format/times";
import { MAX_ROWS } from "./live-columns";
import { LOG_LINES, type LogLine } from "./live-log";
import type { LiveModel } from "./live-model";

/** The lines of the log that are in the page. */
const SHOWN_LINES = 60;

export interface LiveTableProps {
  readonly model: LiveModel;
  /** Changes whenever texts are to be made anew. */
  readonly words: number;
}

/** Shows orders in their latest state. */
export function OrdersTable(props: LiveTableProps): JSX.Element {
  const at = (row: number): OrderUpdate | undefined => {
    void props.words;
    return props.model.orders.newest(row);
  };
  const columns: readonly Column[] = [
    { id: "time", title: "Time", width: "9rem", text: (row) => moment(at(row)?.timestamp ?? Number.NaN) },
    { id: "side", title: "Side", width: "3.5rem", text: (row) => at(row)?.side ?? "" },
    ...symbolColumn(props.model, (row) => at(row)?.symbol),
    { id: "type", title: "Type", width: "4.5rem", text: (row) => (at(row)?.orderType ?? "").replace("_", " ") },
    { id: "quantity", title: "Quantity", width: "5.5rem", align: "end", text: (row) => fixed(at(row)?.quantity, 4) },
    {
      id: "price",
      title: "Price",
      width: "5.75rem",
      align: "end",
      text: (row) => price(at(row)?.fillPrice ?? at(row)?.price),
      definition: "The price of the fill, or else that of the order.",
    },
    {
      id: "status",
      title: "Status",
      width: "minmax(4.5rem, 1fr)",
      text: (row) => [at(row)?.status, at(row)?.reason].filter(Boolean).join(": "),
      class: (row) => (at(row)?.status === "rejected" ? "loss" : ""),
    },
  ];
  const counts = createMemo(() => {
    void props.words;
    return { kept: props.model.orders.length, seen: props.model.orders.seen };
  });
  return (
    <Panel title="Orders" counts={counts()} none="There is no order yet." testId="live-orders">
      <VirtualTable label="Orders" rows={counts().kept} columns={columns} visibleRows={8} />
    </Panel>
  );
}

/** Shows positions in their latest state. */
export function PositionsTable(props: LiveTableProps): JSX.Element {
  const at = (row: number): PositionUpdate | undefined => {
    void props.words;
    return props.model.positions.newest(row);
  };
  const isOpen = (row: number): boolean => at(row)?.quantity !== 0;
  const pnl = (row: number): number | undefined => {
    const one = at(row);
    return one === undefined ? undefined : one.quantity === 0 ? one.realizedPnL : one.unrealizedPnL;
  };
  const columns: readonly Column[] = [
    { id: "time", title: "Time", width: "9rem", text: (row) => moment(at(row)?.timestamp ?? Number.NaN) },
    ...symbolColumn(props.model, (row) => at(row)?.symbol),
    {
      id: "quantity",
      title: "Quantity",
      width: "5.75rem",
      align: "end",
      text: (row) => (isOpen(row) ? fixed(at(row)?.quantity, 4) : "closed"),
      definition: "Negative is short.",
    },
    { id: "average", title: "Average", width: "5.75rem", align: "end", text: (row) => price(at(row)?.averagePrice) },
    { id: "current", title: "Latest", width: "5.75rem", align: "end", text: (row) => price(at(row)?.currentPrice) },
    {
      id: "pnl",
      title: "PnL",
      width: "5.75rem",
      align: "end",
      text: (row) => profit(pnl(row)),
      class: (row) => sense(pnl(row)),
      definition: "Of an open position at its latest price, of a closed one what it made.",
    },
  ];
  const counts = createMemo(() => {
    void props.words;
    return { kept: props.model.positions.length, seen: props.model.positions.seen };
  });
  return (
    <Panel title="Positions" counts={counts()} none="There is no position yet." testId="live-positions">
      <VirtualTable label="Positions" rows={counts().kept} columns={columns} visibleRows={8} />
    </Panel>
  );
}

/** The column of the symbol, where there are several. */
function symbolColumn(model: LiveModel, symbol: (row: number) => string | undefined): readonly Column[] {
  if (model.config.symbols.length === 1) return [];
  return [{ id: "symbol", title: "Symbol", width: "minmax(4rem, 1fr)", text: (row) => symbol(row) ?? "" }];
}

interface PanelProps {
  readonly title: string;
  readonly counts: { readonly kept: number; readonly seen: number };
  readonly none: string;
  readonly testId: string;
  readonly children: JSX.Element;
}

function Panel(props: PanelProps): JSX.Element {
  return (
    <section class="panel" data-testid={props.testId} aria-label={props.title}>
      <div class="panel-header">
        <h2>{props.title}</h2>
        <span class="muted small">
          {props.counts.seen > props.counts.kept
            ? `the latest of ${count(props.counts.seen)} (at most ${count(MAX_ROWS)}); the result will have all`
            : count(props.counts.seen)}
        </span>
      </div>
      <Show when={props.counts.kept > 0} fallback={<p class="muted live-none">{props.none}</p>}>
        {props.children}
      </Show>
    </section>
  );
}

/** Shows the log, the newest line first. */
export function LiveLog(props: LiveTableProps): JSX.Element {
  const lines = createMemo(() => {
    void props.words;
    const found: LogLine[] = [];
    for (let age = 0; age < Math.min(SHOWN_LINES, props.model.log.length); age += 1) {
      const line = props.model.log.newest(age);
      if (line !== undefined) found.push(line);
    }
    return found;
  });
  const seen = createMemo(() => {
    void props.words;
    return props.model.log.seen;
  });
  return (
    <section class="panel" data-testid="live-log" aria-label="Log">
      <div class="panel-header">
        <h2>Log</h2>
        <span class="muted small">
          {seen() > SHOWN_LINES ? `the latest ${SHOWN_LINES} of ${count(seen())} lines (${LOG_LINES} are kept)` : ""}
        </span>
      </div>
      <div class="live-log small" role="group" aria-label="Lines of the log" tabindex={0}>
        <ul>
          <For each={lines()}>
            {(line) => (
              <li class={line.kind}>
                <span class="muted mono">{line.time === undefined ? "" : moment(line.time)}</span>
                <span>{line.text}</span>
              </li>
            )}
          </For>
        </ul>
      </div>
    </section>
  );
}
