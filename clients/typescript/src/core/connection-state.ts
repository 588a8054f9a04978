/** The connection state is a value, and a table holds every transition. */

/**
 * `connecting`: no session yet. `ready`: a session is open. `reconnecting`: the session is lost, and another connection
 * is being made. `authFailed`: the program at the broker's address does not accept this client's key; another
 * connection file ends that. `closed`: the program has closed the client.
 */
export type ConnectionState = "connecting" | "ready" | "reconnecting" | "authFailed" | "closed";

/**
 * `welcomed`: a session was opened. `lost`: the connection is gone. `replaced`: there is another connection file.
 * `keyRefused`: a key that was never accepted was refused. `closed`: the program has closed the client.
 */
export type ConnectionEvent = "welcomed" | "lost" | "replaced" | "keyRefused" | "closed";

/** Every transition of the connection state. */
export const CONNECTION: {
  readonly [from in ConnectionState]: { readonly [event in ConnectionEvent]: ConnectionState };
} = {
  connecting: {
    welcomed: "ready",
    lost: "connecting",
    replaced: "connecting",
    keyRefused: "authFailed",
    closed: "closed",
  },
  ready: {
    welcomed: "ready",
    lost: "reconnecting",
    replaced: "reconnecting",
    keyRefused: "authFailed",
    closed: "closed",
  },
  reconnecting: {
    welcomed: "ready",
    lost: "reconnecting",
    replaced: "reconnecting",
    keyRefused: "authFailed",
    closed: "closed",
  },
  authFailed: {
    welcomed: "ready",
    lost: "authFailed",
    replaced: "reconnecting",
    keyRefused: "authFailed",
    closed: "closed",
  },
  closed: {
    welcomed: "closed",
    lost: "closed",
    replaced: "closed",
    keyRefused: "closed",
    closed: "closed",
  },
};
