/** The topics: how each is spelled, which socket carries it, and what its messages are. */

import type { StreamTypes, TopicTypes } from "../generated/contracts.js";
import { TOPIC_CLASSES } from "../generated/protocol.js";
import { didYouMean } from "./near-miss.js";
import type { StreamSocket } from "./transport.js";

/** The status of the system, every heartbeat. */
export const STATUS = "system.status";
/** The errors of the broker. */
export const ERRORS = "system.errors";
/** The status of each backtest at each change. */
export const BACKTESTS = "system.backtests";
/** The last sequence numbers of the topics that moved. */
export const WATERMARKS = "system.watermarks";

/** A topic class: one topic, or all whose names begin with a prefix that ends with a dot. */
export interface TopicClass {
  readonly prefix: string;
  readonly socket: StreamSocket;
  /** The number of messages that each topic retains for repair. */
  readonly retained: number;
}

type Prefix = keyof TopicTypes;
type ClassOf<Topic extends string> = {
  [P in Prefix]: P extends `${string}.` ? (Topic extends `${P}${string}` ? P : never) : Topic extends P ? P : never;
}[Prefix];
type Within<Topic extends string> = { [P in Prefix]: P extends `${Topic}${string}` ? P : never }[Prefix];

/** The data of the messages of a topic, or of all topics under a prefix; of a text that is not known, of any. */
export type TopicData<Topic extends string> = string extends Topic
  ? StreamTypes[TopicTypes[Prefix]]
  : StreamTypes[TopicTypes[[ClassOf<Topic>] extends [never] ? Within<Topic> : ClassOf<Topic>]];

/** Returns the class of a topic; undefined if no topic is spelled like that. */
export function classOf(topic: string): TopicClass | undefined {
  return TOPIC_CLASSES.find(({ prefix }) =>
    prefix.endsWith(".") ? topic.startsWith(prefix) && topic.length > prefix.length : topic === prefix,
  );
}

/** Returns the sockets on which a subscription to `prefix` can match any topic. */
export function socketsFor(prefix: string): readonly StreamSocket[] {
  const own = classOf(prefix);
  const carrying = TOPIC_CLASSES.filter((one) => one.prefix.startsWith(prefix) || one === own);
  return [...new Set(carrying.map((one) => one.socket))];
}

/** Returns `prefix` if it names a topic or is, with a dot at its end, the beginning of some. Raises a `TypeError`. */
export function checkedPrefix(prefix: unknown): string {
  if (typeof prefix !== "string") throw new TypeError(`a topic is a text; ${typeof prefix} came`);
  const isPossible = prefix.endsWith(".") ? socketsFor(prefix).length > 0 : classOf(prefix) !== undefined;
  if (isPossible) return prefix;
  const known = TOPIC_CLASSES.map((one) => one.prefix);
  throw new TypeError(
    `${JSON.stringify(prefix)} is neither a topic nor the beginning of one that ends with a dot` +
      `${didYouMean(prefix, known)} (${known.join(", ")})`,
  );
}
