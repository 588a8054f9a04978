/** The counters of a client: its requests, and the losses and repairs of its streams. */

/**
 * The counters of a client since it was made, at one moment.
 *
 * Requests are those of the program, without the client's own. Each gap in a topic is counted as seen, and at last as
 * one of `gapsRepaired`, `gapsLost` (at least one message of it is lost; `messagesLost` counts them) or `gapsLeft` (its
 * repair was given up: the subscription was closed, or another instance of the broker began the topic again).
 */
export interface Statistics {
  /** Sessions opened: 1, and one more for every reconnection. */
  readonly sessions: number;
  /** Requests of the program. */
  readonly requests: number;
  /** Requests that succeeded. */
  readonly answered: number;
  /** Requests that failed. */
  readonly failed: number;
  /** Sent again under the same id: after silence, a fault, a busy broker or a new session. */
  readonly resent: number;
  /** Requests without an answer, now. */
  readonly waiting: number;
  /** Of those, the ones that wait for a broker. */
  readonly queued: number;
  /** Failed without having been sent: the offline queue was full, the circuit open, or time was up. */
  readonly dropped: number;
  /** Gaps that were found in topics. */
  readonly gapsSeen: number;
  /** Of these, the ones whose messages were all fetched. */
  readonly gapsRepaired: number;
  /** Of these, the ones of which messages are lost. */
  readonly gapsLost: number;
  /** Of these, the ones whose repair was given up. */
  readonly gapsLeft: number;
  /** Of these, the ones that are being repaired. */
  readonly gapsOpen: number;
  /** Messages that are lost. */
  readonly messagesLost: number;
  /** Messages that came twice. */
  readonly duplicatesDropped: number;
  /** Watermarks that reported messages which had not come. */
  readonly watermarksBehind: number;
  /** Errors that were reported, including those that `errors` no longer holds. */
  readonly errors: number;
}

/** The counters of the program's requests. */
export class RequestCounters {
  requests = 0;
  answered = 0;
  failed = 0;
  /** By this client, before the session had them. */
  refused = 0;

  /** The requests without an answer. */
  get waiting(): number {
    return this.requests - this.answered - this.failed;
  }
}

/** The counters of one session object, across connections. */
export class SessionCounters {
  sessions = 0;
  resent = 0;
  dropped = 0;
}

/** The counters of all topics of one client. */
export class StreamCounters {
  gapsSeen = 0;
  gapsRepaired = 0;
  gapsLost = 0;
  gapsLeft = 0;
  messagesLost = 0;
  duplicatesDropped = 0;
  watermarksBehind = 0;

  /** The gaps that are being repaired. */
  get gapsOpen(): number {
    return this.gapsSeen - this.gapsRepaired - this.gapsLost - this.gapsLeft;
  }
}

/** Returns all counters as one value. */
export function statistics(
  requests: RequestCounters,
  session: SessionCounters,
  streams: StreamCounters,
  queued: number,
  errors: number,
): Statistics {
  return {
    sessions: session.sessions,
    requests: requests.requests,
    answered: requests.answered,
    failed: requests.failed,
    resent: session.resent,
    waiting: requests.waiting,
    queued,
    dropped: session.dropped + requests.refused,
    gapsSeen: streams.gapsSeen,
    gapsRepaired: streams.gapsRepaired,
    gapsLost: streams.gapsLost,
    gapsLeft: streams.gapsLeft,
    gapsOpen: streams.gapsOpen,
    messagesLost: streams.messagesLost,
    duplicatesDropped: streams.duplicatesDropped,
    watermarksBehind: streams.watermarksBehind,
    errors,
  };
}
