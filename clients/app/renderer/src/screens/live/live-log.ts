/** The log of a running backtest in words. Pure. */

import type { BacktestStatus, OrderUpdate, PositionUpdate } from "@backtestr/client/page";
import { fixed, price, profit } from "../../format/numbers";

/** The lines that are kept. */
export const LOG_LINES = 500;

/** A line of the log. */
export interface LogLine {
  /** In the time of the market where it has one, else undefined. */
  readonly time: number | undefined;
  readonly text: string;
  readonly kind: "plain" | "warning";
}

/** Returns the line of an order; undefined for a state that needs none. */
export function lineOfOrder(order: OrderUpdate): LogLine | undefined {
  const deal = `${fixed(order.fillQuantity ?? order.quantity, 4)} ${order.symbol}`;
  switch (order.status) {
    case "filled": {
      const reason = order.reason === undefined ? "" : ` (${order.reason})`;
      const verb = order.side === "buy" ? "Bought" : "Sold";
      return { time: order.timestamp, text: `${verb} ${deal} at ${price(order.fillPrice)}${reason}`, kind: "plain" };
    }
    case "rejected":
      return {
        time: order.timestamp,
        text: `The order to ${order.side} ${deal} was rejected: ${order.reason}`,
        kind: "warning",
      };
    case "cancelled": {
      const reason = order.reason === undefined ? "" : `: ${order.reason}`;
      return {
        time: order.timestamp,
        text: `The order to ${order.side} ${deal} was cancelled${reason}`,
        kind: "plain",
      };
    }
    case "pending":
      return undefined;
  }
}

/** Returns the line of a closed position; undefined for any other. */
export function lineOfPosition(position: PositionUpdate): LogLine | undefined {
  if (position.mark === true || position.quantity !== 0) return undefined;
  const text = `Position ${position.positionId} in ${position.symbol} closed, PnL ${profit(position.realizedPnL)}`;
  return { time: position.timestamp, text, kind: "plain" };
}

/** Returns the line of a new status. */
export function lineOfStatus(status: BacktestStatus["status"], before: BacktestStatus["status"] | undefined): LogLine {
  const text = {
    queued:
      before === undefined
        ? "It waits for a worker"
        : "Its worker was lost: it waits for another and goes on from its last checkpoint",
    running: before === "paused" ? "Resumed" : "Running",
    paused: "Paused",
    completed: "Completed",
    stopped: "Stopped",
    failed: "Failed",
  }[status];
  const isLoss = status === "queued" && before !== undefined;
  return { time: undefined, text, kind: isLoss || status === "failed" ? "warning" : "plain" };
}
