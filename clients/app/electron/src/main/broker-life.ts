/**
 * The life of the broker as far as this app is concerned: which one it has started, and what becomes of it. Pure.
 *
 * The app connects to a broker that runs, whoever has started it. It ends none that it did not start, and asks before it
 * leaves one running that it did.
 *
 *                    start            serves           quit, stop it
 *     none ───────────────▶ starting ────────▶ running ─────────────▶ stopping ──▶ (the app quits)
 *       ▲                      │ exits, is late    │ exits                │ exits, is late
 *       └──────────────────────┴───────────────────┘                      └──▶ quit
 */

/** `none`: this app has started no broker that still runs; another may run. */
export type BrokerLife = "none" | "starting" | "running" | "discarding" | "stopping";

export type BrokerEvent =
  /** The user wants a broker, and none serves. */
  | "startAsked"
  /** The user wants a broker, and one serves. */
  | "startAskedWhileOneServes"
  /** A broker serves, while the one that was started here lives. */
  | "serves"
  /** The process of the broker that was started here has ended. */
  | "exits"
  /** It takes longer than it may. */
  | "isLate"
  /** The user wants to quit the app. */
  | "quitAsked"
  /** The user wants to leave the broker running. */
  | "leaveChosen"
  /** The user wants to stop the broker. */
  | "stopChosen";

export type BrokerEffect =
  | "spawn"
  /** Tell those who asked for a broker that it serves, has failed, or was too slow. */
  | "tellStarted"
  | "tellFailed"
  | "tellLate"
  /** End the process that was started here, and no other. */
  | "stop"
  | "ask"
  | "quit";

type Step = readonly [BrokerLife, ...BrokerEffect[]];

const STEPS: { readonly [life in BrokerLife]: { readonly [event in BrokerEvent]?: Step } } = {
  none: {
    startAsked: ["starting", "spawn"],
    startAskedWhileOneServes: ["none", "tellStarted"],
    quitAsked: ["none", "quit"],
  },
  starting: {
    serves: ["running", "tellStarted"],
    exits: ["none", "tellFailed"],
    isLate: ["discarding", "tellLate", "stop"],
    quitAsked: ["starting", "ask"],
    leaveChosen: ["starting", "quit"],
    stopChosen: ["stopping", "stop"],
  },
  running: {
    startAsked: ["running", "tellStarted"], // it has just been lost sight of
    startAskedWhileOneServes: ["running", "tellStarted"],
    exits: ["none"],
    quitAsked: ["running", "ask"],
    leaveChosen: ["running", "quit"],
    stopChosen: ["stopping", "stop"],
  },
  discarding: {
    startAsked: ["discarding", "tellLate"],
    startAskedWhileOneServes: ["discarding", "tellStarted"],
    exits: ["none"],
    quitAsked: ["stopping"],
    isLate: ["none"],
  },
  stopping: {
    exits: ["none", "quit"],
    isLate: ["none", "quit"],
  },
};

/** Returns the next state and what is to be done; an event that means nothing in a state changes nothing. */
export function brokerStep(life: BrokerLife, event: BrokerEvent): Step {
  return STEPS[life][event] ?? [life];
}
