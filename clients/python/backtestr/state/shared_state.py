"""The state that programs share, as a mapping: a local replica that follows the broker, writing with compare-and-set.

A thread of its own follows the subscription and takes snapshots; reads are local and never wait for the broker.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from backtestr.core.backoff import backoff
from backtestr.core.effects import Delivery
from backtestr.core.recovery import Recovery
from backtestr.io.callback_thread import CallbackThread
from backtestr.io.error_log import ErrorLog, ErrorReport
from backtestr.io.io_thread import IoThread
from backtestr.requester import Requester
from backtestr_protocol import topics
from backtestr_protocol.errors import BacktestrError, StateConflict
from backtestr_protocol.messages import (
    DeletedState,
    DeleteState,
    SnapshotState,
    StateSnapshot,
    UpdatedState,
    UpdateState,
)
from backtestr_protocol.state_values import value_bytes

from .replica import ABSENT, Committed, Replica, VersionedValue
from .resolvers import DEFAULTS, Resolver, resolver_for

# After the first attempt. Whoever loses four times in a row writes where everybody writes, and should hear of it.
MAX_RETRIES = 3
# The first retry waits 0.05 s, each next one twice as long and at most 5 s; the jitter keeps two writers apart.
RETRIES = Recovery(backoff="exponential", base_delay=0.05, max_delay=5.0, jitter=0.05)
# Keys share these locks: updates of one key by this program go one after the other, those of others seldom wait.
STRIPES = 64

log = logging.getLogger("backtestr")

_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


class StateChange(NamedTuple):
    """A change of a key that the broker has confirmed; `value` is None where it was deleted, `version` 0 then."""

    key: str
    value: Any
    version: int


class SharedState(Mapping[str, Any]):
    """The keys that begin with a prefix, by their full names, as they are now; made by `Client.shared_state`.

    Reading gives this program's own latest proposal for a key, or else what the broker has; what it gives is a copy.
    Writing is `update` and `delete`. While the broker is away it is what it was, and catches up afterwards. For any
    number of threads; a context manager.
    """

    def __init__(
        self,
        ask: Requester,
        io_thread: IoThread,
        prefix: str,
        resolvers: Mapping[str, Resolver],
        callbacks: CallbackThread,
        errors: ErrorLog,
    ) -> None:
        """Subscribe to `state.<prefix>`, and take a first snapshot."""
        self._ask = ask
        self._prefix = prefix
        self._io_thread = io_thread
        self._callback_thread = callbacks
        self._errors = errors
        self._topics = topics.state(prefix)
        self._subscription_id, self._mailbox = io_thread.open(self._topics, "latest")
        self._resolvers = {**DEFAULTS, **resolvers}
        self._replica = Replica()
        self._lock = threading.Lock()  # over the replica and the order in which changes are told
        self._turns = [threading.RLock() for _ in range(STRIPES)]
        self._callbacks: list[Callable[[StateChange], object]] = []
        self._closed = threading.Event()
        self._fault: Exception | None = None
        try:
            self._take_snapshot()
        except BaseException:  # Ctrl-C too: nobody else could end the feed
            self.close()
            raise
        self._thread = threading.Thread(target=self._follow, name=f"backtestr state.{prefix}", daemon=True)
        self._thread.start()

    # --- reading --------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        with self._lock:
            self._check_following()
            value = self._replica.visible(key)
        if value is None:
            raise KeyError(key)
        return _decoder.decode(value)

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            self._check_following()
            return iter(list(self._replica.visible_keys()))

    def __len__(self) -> int:
        with self._lock:
            self._check_following()
            return len(list(self._replica.visible_keys()))

    def version(self, key: str) -> int:
        """The version that the broker has of a key, 0 where there is none. Proposals have no version yet."""
        with self._lock:
            self._check_following()
            return self._replica.committed(key).version

    def on_change(self, callback: Callable[[StateChange], object]) -> Callable[[], None]:
        """Have `callback` called with every `StateChange`, each key's in order of version, this program's own included;
        returns what ends that. It is called by the thread of the client's listeners."""
        with self._lock:
            self._callbacks.append(callback)

        def unsubscribe() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return unsubscribe

    # --- writing --------------------------------------------------------------------------------------------------

    def update(self, key: str, value: Any) -> Any:
        """Set a key to `value`, or, when that is a function, to what it makes of the value there is (None: none).

        The new value is visible here at once, and for all once the broker has it on disk, when this returns: with the
        value that is there then. When somebody else has changed the key meanwhile, a function is applied again to what
        is there, and a value goes to the resolver of the key's prefix, up to 3 times with growing waits. Should
        that not succeed, or the broker refuse or not answer, the value is taken back here, and the error is raised:
        `StateConflict` for those 3 times or for changes that do not go together. (Of an update that was not answered
        the replica shows what came of it.) A function may be called several times, and must not update anything itself.
        """
        self._check_key(key)
        make = value if callable(value) else None
        with self._lock:
            self._check_following()
            shown = self._replica.visible(key)
        first = value_bytes(make(_value(shown)) if make else value)
        with self._lock:
            update_id = self._replica.begin_update(key, first)
        try:
            with self._turn(key):
                write = _Write(self, key, update_id, first, make)
                return _value(write.until_done())
        finally:
            with self._lock:
                self._replica.withdraw_update(key, update_id)

    def delete(self, key: str) -> None:
        """Remove a key, whatever it is; gone here at once, and for all when this returns. Raises `NotFound` when it is
        not there. On an error it is there again."""
        self._check_key(key)
        with self._lock:
            self._check_following()
            update_id = self._replica.begin_update(key, None)
        try:
            with self._turn(key):
                deleted = self._ask("DeleteState", DeleteState(key=key), DeletedState)
                self._confirm(key, update_id, deleted.version)
        finally:
            with self._lock:
                self._replica.withdraw_update(key, update_id)

    def close(self) -> None:
        """Follow no more."""
        self._closed.set()
        with contextlib.suppress(RuntimeError):  # the client is closed already
            self._io_thread.shut(self._subscription_id)

    def __enter__(self) -> SharedState:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- following: its own thread ----------------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            while (delivery := self._mailbox.take()) is not None:
                self._offer(delivery)
                if self._replica.needs_snapshot:
                    self._settle()
        except BacktestrError as fault:  # the subscription cannot go on: reads say so from now on
            log.error("shared state %s* is not followed any more: %s", self._prefix, fault)
            self._fault = fault
        except RuntimeError as closed:  # the client is
            self._fault = closed

    def _offer(self, delivery: Delivery) -> None:
        try:
            with self._lock:
                self._tell(self._replica.receive(delivery))
        except BacktestrError as error:
            self._errors.add(ErrorReport(error, self._topics, time.time_ns() // 1_000_000))

    def _settle(self) -> None:
        """Take snapshots until one is had, or this is closed; what comes meanwhile waits in the mailbox."""
        for attempt in itertools.count(1):
            try:
                self._take_snapshot()
                return
            except BacktestrError:
                if self._closed.is_set():
                    raise
            self._closed.wait(backoff(RETRIES, attempt, random.random()))

    def _take_snapshot(self) -> None:
        with self._lock:
            reasons = self._replica.begin_snapshot()
        snapshot = self._ask("SnapshotState", SnapshotState(prefix=self._prefix), StateSnapshot)
        with self._lock:
            self._tell(self._replica.apply_snapshot(reasons, snapshot.entries, snapshot.watermark))

    def _tell(self, changes: list[Committed]) -> None:
        for change in changes:
            told = StateChange(change.key, _value(change.current.value), change.current.version)
            for callback in self._callbacks:
                self._callback_thread.call(partial(callback, told))

    # --- within ---------------------------------------------------------------------------------------------------

    def _turn(self, key: str) -> AbstractContextManager[bool]:
        return self._turns[hash(key) % STRIPES]

    def _confirm(self, key: str, update_id: int, version: int) -> None:
        with self._lock:
            self._tell(self._replica.confirm_update(key, update_id, version))

    def _learn(self, key: str, held: VersionedValue) -> None:
        with self._lock:
            self._tell(self._replica.learn(key, held))

    def _check_key(self, key: str) -> None:
        if not key.startswith(self._prefix):
            raise ValueError(f"{key!r} does not begin with {self._prefix!r}, as all keys here do")

    def _check_following(self) -> None:
        if self._fault is not None:
            raise RuntimeError(f"shared state {self._prefix}* is not followed any more: {self._fault}") from self._fault
        if self._closed.is_set():
            raise RuntimeError("this shared state is closed")


class _Overtaken(Exception):
    """Somebody else has changed the key since it was read."""


class _Write:
    """One update, from attempt to attempt: `base` is what there was, `mine` what is to be."""

    def __init__(
        self, state: SharedState, key: str, update_id: int, mine: bytes, make: Callable[[Any], Any] | None
    ) -> None:
        self._state = state
        self._key = key
        self._update_id = update_id
        self._make = make
        self._mine = mine
        with state._lock:
            self._base = state._replica.committed(key)
        if make is not None:
            self._propose(value_bytes(make(_value(self._base.value))))

    def until_done(self) -> bytes | None:
        """Try until it is written, or the resolver finds that nothing is to be; returns what is there then."""
        for attempt in range(1 + MAX_RETRIES):
            if attempt:
                time.sleep(backoff(RETRIES, attempt, random.random()))
            with contextlib.suppress(_Overtaken):
                return self._attempt()
        raise StateConflict(
            f"{self._key!r} was changed by others each of the {1 + MAX_RETRIES} times, and is at version "
            f"{self._base.version} now; what this program wanted was taken back",
            currentVersion=self._base.version,
            currentValue=_value(self._base.value),
        )

    def _attempt(self) -> bytes | None:
        try:
            request = UpdateState(key=self._key, value=msgspec.Raw(self._mine), expected_version=self._base.version)
            updated = self._state._ask("UpdateState", request, UpdatedState)
        except StateConflict as conflict:
            theirs = _held(conflict)
            self._state._learn(self._key, theirs)
            if self._resolve(theirs):
                return theirs.value
            raise _Overtaken from conflict
        self._state._confirm(self._key, self._update_id, updated.version)
        return self._mine

    def _resolve(self, theirs: VersionedValue) -> bool:
        """Make up what to write instead; True when what is there is what is to be."""
        if self._make is not None:
            mine = self._make(_value(theirs.value))
        else:
            resolver = resolver_for(self._key, self._state._resolvers)
            mine = resolver(_value(self._mine), _value(theirs.value), _value(self._base.value))
            if mine is None and theirs.value is None:
                return True
        encoded = value_bytes(mine)
        self._base = theirs
        if self._make is None and encoded == theirs.value:
            return True
        self._propose(encoded)
        return False

    def _propose(self, mine: bytes) -> None:
        self._mine = mine
        with self._state._lock:
            self._state._replica.revise_update(self._key, self._update_id, mine)


def _held(conflict: StateConflict) -> VersionedValue:
    details = conflict.details or {}
    version = details.get("currentVersion", 0)
    return VersionedValue(version, value_bytes(details.get("currentValue"))) if version else ABSENT


def _value(encoded: bytes | None) -> Any:
    return None if encoded is None else _decoder.decode(encoded)
