/**
 * Effects are what the client's machines ask of the client, and deliveries are what subscriptions receive.
 *
 * The client executes effects in the order in which the machines return them.
 */

import type { BacktestStatus, Welcome } from "../generated/contracts.js";
import type { Batch } from "./batches.js";
import type { BacktestrError } from "./errors.js";

// Bytes of one delivery (of an order: about 500). A bound in deliveries is thereby a bound in memory.
const DELIVERY_BYTES = 500;

/** An effect of the session. */
export type SessionEffect =
  /** Send these frames on the connection for requests. */
  | { readonly kind: "send"; readonly frames: readonly Uint8Array[] }
  /** The broker has opened a session. */
  | { readonly kind: "welcomed"; readonly welcome: Welcome }
  /** The request succeeded. */
  | {
      readonly kind: "answered";
      readonly requestId: string;
      readonly data: unknown;
      readonly attachments: readonly Uint8Array[];
    }
  /** The request failed: the broker answered with an error, or did not answer. */
  | { readonly kind: "failed"; readonly requestId: string; readonly error: BacktestrError }
  /** The broker refuses to open a session; every request fails with `error` until the next connection. */
  | { readonly kind: "refused"; readonly error: BacktestrError }
  /** The answer to Hello was signed with another key: the connection file is old, or of another broker. */
  | { readonly kind: "keyRefused"; readonly error: BacktestrError }
  /** Make another connection, because the broker does not answer on this one. */
  | { readonly kind: "reconnect"; readonly reason: string }
  /** An error that belongs to no request: the broker sent it, or a message was malformed or wrongly signed. */
  | { readonly kind: "unattributed"; readonly error: BacktestrError };

/** One message of a topic. `type` names the contract of `data`, which may be `Packed` until they are read. */
export interface StreamMessage {
  readonly kind: "message";
  readonly topic: string;
  readonly seq: number;
  readonly type: string;
  readonly data: unknown;
}

/** A batch, whole and in order: the messages from `seq` on. */
export interface DeliveredBatch {
  readonly kind: "batch";
  readonly topic: string;
  readonly seq: number;
  readonly content: Batch;
}

/** The messages `fromSeq` to `toSeq` (both included) of a topic are lost; the broker no longer retains them. */
export interface Gap {
  readonly kind: "gap";
  readonly topic: string;
  readonly fromSeq: number;
  readonly toSeq: number;
}

/** There is another instance of the broker: every topic is read again, from number 1. */
export interface Restarted {
  readonly kind: "restarted";
  readonly instanceId: string;
}

/** Messages under `prefix` may be missing; read the state that they describe again. */
export interface MaybeLost {
  readonly kind: "maybeLost";
  readonly prefix: string;
}

/** A subscription receives these. */
export type Delivery = StreamMessage | DeliveredBatch | Gap | Restarted | MaybeLost;

/** Returns the number as which a delivery counts against a bound. */
export function weightOf(delivery: Delivery): number {
  return delivery.kind === "batch" ? Math.max(1, Math.floor(delivery.content.size / DELIVERY_BYTES)) : 1;
}

/** Returns the number as which these deliveries count against a bound. */
export function weight(deliveries: readonly Delivery[]): number {
  let sum = 0;
  for (const one of deliveries) sum += weightOf(one);
  return sum;
}

/**
 * The purpose of a request for missed messages of a topic.
 *
 * `isLast`: the backtest has ended, and the answer shows whether a message follows the last delivered one.
 */
export interface TopicRepair {
  readonly kind: "repair";
  readonly number: number;
  readonly subscriptionId: number;
  readonly topic: string;
  readonly isLast: boolean;
}

/** The purpose of a request for a status: it shows if a backtest has ended. */
export interface StatusCheck {
  readonly kind: "status";
  readonly backtestId: string;
}

/** The purpose for which the client itself sends a request. */
export type Purpose = TopicRepair | StatusCheck;

/** A request of the client itself; its outcome goes to the subscriptions, with `purpose`. */
export interface Ask {
  readonly kind: "ask";
  readonly requestType: "FetchMissed" | "GetBacktestStatus";
  readonly data: { readonly [name: string]: string | number };
  readonly purpose: Purpose;
}

/** An effect of the subscriptions. */
export type SubscriptionEffect =
  /** Subscribe to a prefix on every socket that can carry it. */
  | { readonly kind: "subscribe"; readonly prefix: string }
  /** End the subscription to a prefix on every socket. */
  | { readonly kind: "unsubscribe"; readonly prefix: string }
  | Ask
  /** Give `repair` back to the subscriptions after so many seconds: the messages may be on their way. */
  | { readonly kind: "wait"; readonly seconds: number; readonly repair: TopicRepair }
  /** Put these deliveries into the mailbox of a subscription. */
  | { readonly kind: "deliver"; readonly subscriptionId: number; readonly deliveries: readonly Delivery[] }
  /** End a subscription: everything was delivered, or `error` says why it cannot continue. */
  | { readonly kind: "end"; readonly subscriptionId: number; readonly error: BacktestrError | null }
  /** A followed backtest has ended, or `outcome` is the error that no end will be known. */
  | { readonly kind: "finished"; readonly backtestId: string; readonly outcome: BacktestStatus | BacktestrError }
  | { readonly kind: "unattributed"; readonly error: BacktestrError };
