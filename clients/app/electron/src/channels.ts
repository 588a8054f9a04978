/** The names under which the preload and the main process speak with each other. */

export const CHANNELS = {
  session: "backtestr:session",
  startBroker: "backtestr:start-broker",
  save: "backtestr:save",
  /** With the port of a window's client. */
  client: "backtestr:client",
  /** From the main process: a screen to show. */
  route: "backtestr:route",
} as const;

/** The process of the client tells the main process this. */
export type FromClientProcess = { readonly type: "status"; readonly status: string };
