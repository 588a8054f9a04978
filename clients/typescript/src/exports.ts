/** Everything public that is the same in Node and in a page. */

export type { Instant } from "./arguments.js";
export { Client, createClient } from "./client.js";
export type { RequestType } from "./context.js";
export type { Compression, Decompress } from "./core/batches.js";
export type { ConnectionState } from "./core/connection-state.js";
export type { Statistics } from "./core/counters.js";
export type { Gap, Restarted } from "./core/effects.js";
export type { ErrorCallback, ErrorReport } from "./core/error-log.js";
export * from "./core/errors.js";
export type { Pulse } from "./core/heartbeat.js";
export { Extension } from "./core/msgpack-encoder.js";
export type { Backoff, Recovery } from "./core/recovery.js";
export { lastWriter, laterUpdate, mergeFields, type Resolver } from "./core/resolvers.js";
export type { TopicData } from "./core/topics.js";
export type {
  HandshakeOutcome,
  Label,
  Link,
  LinkEvent,
  LinkListener,
  Signer,
  StreamSocket,
  TableFiles,
  Transport,
} from "./core/transport.js";
export type { Filters } from "./core/update-filter.js";
export type { Update } from "./core/updates.js";
export type { ClientEvents, Errors } from "./events.js";
export type * from "./generated/contracts.js";
export {
  METRIC_DEFINITIONS,
  METRIC_SYMBOLS,
  type MetricDefinition,
  type MetricUnit,
} from "./generated/metrics.js";
export { PROTOCOL_VERSION, VERSION } from "./generated/protocol.js";
export type * from "./options.js";
export { PriceBatch } from "./price-batch.js";
export { PriceReplay, type ReplayState } from "./replay.js";
export { Results, type TableName } from "./results.js";
export { type BacktestState, Run, type Stream, type Waiting } from "./run.js";
export { type MakeValue, SharedState, type StateCallback, type StateChange } from "./state.js";
export { type Extent, type Received, Subscription } from "./subscription.js";
export { Sweep, type SweepState, type SweepUpdate } from "./sweep.js";
export { type ColumnType, type ColumnValues, type Table, TextColumn } from "./tables/index.js";
