"""Keep the sessions: which clients are connected, and which counters each has used.

`Hello` opens a session. It is bound to one connection, kept alive by any request and dropped after a silence. Its
replay window is the highest counter seen and a bit for each of the 1,024 at and below it (PROTOCOL.md, section 4). The
table is bounded: where it is full, a session that has missed several pings in a row is dropped first.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import OrderedDict
from collections.abc import Iterator

from backtestr_protocol.errors import Busy, ReplayDetected, SessionUnknown

REPLAY_WINDOW = 1024
# The most that can be configured. Each costs about a kilobyte, and up to six connections of its client.
MAX_SESSIONS = 4096

_WINDOW_MASK = (1 << REPLAY_WINDOW) - 1


class Session:
    """One client on one connection."""

    __slots__ = ("_highest", "_seen", "client_id", "last_seen", "peer", "session_id")

    def __init__(self, session_id: str, client_id: str, peer: bytes, now: float) -> None:
        self.session_id = session_id
        self.client_id = client_id
        self.peer = peer
        self.last_seen = now
        self._highest = 0
        self._seen = 0  # bit n: counter `_highest - n` was used

    def use(self, counter: int) -> None:
        """Mark `counter` as used. Raises `ReplayDetected` when it was, or is too old to tell."""
        ahead = counter - self._highest
        if ahead > 0:
            # A jump past the whole window leaves nothing of it; the shift is bounded so that it cannot cost memory.
            self._seen = (self._seen << ahead if ahead < REPLAY_WINDOW else 0) & _WINDOW_MASK | 1
            self._highest = counter
            return
        # The counter is the peer's to choose: one that is far behind must not become a shift by that much.
        if -ahead >= REPLAY_WINDOW or self._seen >> -ahead & 1:
            raise ReplayDetected(
                f"counter {counter} was used, or is older than the {REPLAY_WINDOW} that end at {self._highest}; "
                "send with a fresh counter (the same id, if it is the same request)",
                counter=counter,
                highest=self._highest,
            )
        self._seen |= 1 << -ahead


class Sessions:
    """The table of sessions, the longest silent first."""

    def __init__(self, secret: bytes, timeout: float, spared: float = 0.0, most: int = MAX_SESSIONS) -> None:
        """Take the time-out, and for how long a silent session is `spared` when the table is full, in seconds.

        There are at most `most` sessions, or `MAX_SESSIONS` if that is less.
        `secret` makes session ids unguessable and still a function of the events.
        """
        self._secret = secret
        self._timeout = timeout
        self._spared = min(spared, timeout)
        self._most = most
        self._opened = 0
        self._by_id: OrderedDict[str, Session] = OrderedDict()
        self._by_peer: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def limit(self) -> int:
        """The most sessions that there can be."""
        return min(self._most, MAX_SESSIONS)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_id.values())

    def on(self, peer: bytes) -> Session | None:
        """Return the session of a connection, which has one at most."""
        return self._by_peer.get(peer)

    def make_room(self, now: float) -> Session | None:
        """Have room for one more session. In a full table, drop the longest silent one and return it.

        A client that runs pings, and one that was dropped in vain says Hello again. Raises `Busy` when every session
        was used just now.
        """
        if len(self._by_id) < self.limit:
            return None
        silent = next(iter(self._by_id.values()))
        spared_for = self._spared - (now - silent.last_seen)
        if spared_for > 0:
            raise Busy(
                f"{self.limit} sessions are open, the most there can be, and all are in use; max_connections under "
                "[limits] in broker.toml allows more",
                retryAfterMs=math.ceil(spared_for * 1000),
            )
        self.close(silent)
        return silent

    def open(self, client_id: str, peer: bytes, now: float) -> Session:
        """Open a session on a connection that has none, in a table that has room."""
        assert peer not in self._by_peer
        assert len(self._by_id) < self.limit
        self._opened += 1
        session_id = hmac.digest(self._secret, b"session %d" % self._opened, hashlib.sha256).hex()[:32]
        session = Session(session_id, client_id, peer, now)
        self._by_id[session_id] = self._by_peer[peer] = session
        return session

    def find(self, session_id: str | None, peer: bytes, now: float) -> Session:
        """Return the session of that id on that connection, and keep it alive. Raises `SessionUnknown`."""
        session = self._by_id.get(session_id or "")
        if session is None or session.peer != peer:
            raise SessionUnknown("no such session on this connection; say Hello and send again with the same id")
        session.last_seen = now
        self._by_id.move_to_end(session.session_id)
        return session

    def close(self, session: Session) -> None:
        """Drop a session."""
        del self._by_id[session.session_id]
        del self._by_peer[session.peer]

    def expire(self, now: float) -> list[Session]:
        """Drop and return the sessions that were silent for the whole time-out."""
        gone = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            session = next(iter(self._by_id.values()))
            self.close(session)
            gone.append(session)
        return gone

    def clear(self) -> list[Session]:
        """Drop and return all sessions: their connections are gone."""
        gone = list(self._by_id.values())
        for session in gone:
            self.close(session)
        return gone

    def next_deadline(self) -> float | None:
        """Return the time at which the longest silent session is dropped, if there is one."""
        for session in self._by_id.values():
            return session.last_seen + self._timeout
        return None

    def check_invariants(self) -> None:
        assert len(self._by_id) == len(self._by_peer) <= self.limit
        for session_id, session in self._by_id.items():
            assert session.session_id == session_id
            assert self._by_peer[session.peer] is session
        seen = [session.last_seen for session in self._by_id.values()]
        assert seen == sorted(seen), "the longest silent session is not first"
