"""The shared state as a mapping: a local replica that follows the broker, and writes with compare-and-set.

A thread of its own follows the subscription and takes snapshots; reads are local and never wait for the broker.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import operator
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, overload

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

from .handed_out import UNCONFIRMED, HandedOut
from .replica import ABSENT, Committed, Replica, VersionedValue
from .resolvers import DEFAULTS, Resolver, resolver_for

# After the first attempt. A program that loses four times in a row writes to a contended key, and must learn of it.
MAX_RETRIES = 3
# The first retry waits 0.05 s, each next one twice as long and at most 5 s; the jitter keeps two writers apart.
RETRIES = Recovery(backoff="exponential", base_delay=0.05, max_delay=5.0, jitter=0.05)
# Keys share these locks: updates of one key by this program are made in turn, updates of other keys seldom wait.
KEY_LOCKS = 64

log = logging.getLogger("backtestr")

_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


class StateChange(NamedTuple):
    """A change of a key that the broker has confirmed; for a deletion `value` is None and `version` is 0."""

    key: str
    value: Any
    version: int


Callback = Callable[[StateChange], object]


class SharedState(Mapping[str, Any]):
    """The keys that begin with a prefix, by their full names, as they are now; made by `Client.shared_state`.

    A read returns a copy of this program's own latest optimistic update of a key, or else of the broker's value, and
    is remembered: a change of the key by the same thread is based on it. `update` and `delete` write. While the broker
    is away the mapping stays as it was, and catches up afterwards. Any number of threads may use it. It is a context
    manager.
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
        self._handed_out = HandedOut()
        self._lock = threading.Lock()  # guards the replica and the order of the calls of callbacks
        self._key_locks = [threading.RLock() for _ in range(KEY_LOCKS)]
        self._callbacks: list[tuple[str | None, Callback]] = []  # each with its key, None for all keys
        self._closed = threading.Event()
        self._fault: Exception | None = None
        try:
            self._take_snapshot()
        except BaseException:  # Ctrl-C too: without this object, nothing else can end the subscription
            self.close()
            raise
        self._thread = threading.Thread(target=self._follow, name=f"backtestr state.{prefix}", daemon=True)
        self._thread.start()

    # --- reading --------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        with self._lock:
            self._check_following()
            value = self._replica.visible(key)
            self._handed_out.give(key, self._versioned(key, value))
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
        """Return the broker's version of a key, 0 where it has none. Optimistic updates have no version yet."""
        return self.read(key).version

    def read(self, key: str) -> StateChange:
        """Return a key as the broker has it: its value and version, for `update(..., base_version=version)`.

        A key that is not there has the value None and the version 0.
        """
        with self._lock:
            self._check_following()
            current = self._replica.committed(key)
            self._handed_out.note(key, current)
        return StateChange(key, _value(current.value), current.version)

    @overload
    def on_change(self, callback: Callback, /) -> Callable[[], None]: ...
    @overload
    def on_change(self, key: str, callback: Callback, /) -> Callable[[], None]: ...
    def on_change(self, key: str | Callback, callback: Callback | None = None, /) -> Callable[[], None]:
        """Call `callback` with every further `StateChange`; return a function that ends that.

        With a key it is called for that key alone, and first with its present value (`value` None and `version` 0 where
        it is not there). The changes of each key come in order of version, and changes by this program are included.
        The client's callback thread makes the calls.
        """
        if callable(key):
            watched: tuple[str | None, Callback] = (None, key)
        elif callback is None:
            raise TypeError("on_change takes a callback, or a key and a callback")
        else:
            self._check_key(key)
            watched = (key, callback)
        with self._lock:
            self._check_following()
            self._callbacks.append(watched)
            if watched[0] is not None:
                self._call_back([Committed(watched[0], self._replica.committed(watched[0]))], [watched])

        def unsubscribe() -> None:
            with self._lock:
                self._callbacks = [one for one in self._callbacks if one is not watched]

        return unsubscribe

    # --- writing --------------------------------------------------------------------------------------------------

    def update(self, key: str, value: Any, *, base_version: int | None = None) -> Any:
        """Set a key to `value`; a function as `value` makes the new value of the current one, None where there is none.

        The change is based on the version that this thread last read or wrote here, or on `base_version` (see `read`),
        not on the one that the replica has by now; a key that this program never read has its present version as base.

        The new value is visible here at once. It is visible to all once the broker has it on disk; then this returns
        the value that the key has. If another client has changed the key since the base, a function is applied again to
        the new current value, and a value goes to the resolver of the key's prefix, up to 3 times with growing waits.
        If that does not succeed, or the broker refuses or does not answer, the value is taken back here, and the error
        is raised: `StateConflict` after those 3 times or for changes that cannot be joined. (After an update without an
        answer the replica shows its outcome.) A function may be called several times, and must not update a key itself.
        """
        self._check_key(key)
        make = value if callable(value) else None
        if make is not None and base_version is not None:
            raise ValueError("a function makes the new value of the current one; base_version is for values")
        with self._lock:
            self._check_following()
            shown = self._replica.visible(key)
            base = None if make else self._base(key, base_version)
        first = value_bytes(make(_value(shown)) if make else value)
        with self._lock:
            update_id = self._replica.begin_update(key, first)
        try:
            with self._lock_of(key):
                write = _Write(self, key, update_id, first, make, base)
                written = write.until_done()
            with self._lock:
                self._handed_out.give(key, written)
            return _value(written.value)
        finally:
            with self._lock:
                self._replica.withdraw_update(key, update_id)

    def delete(self, key: str) -> None:
        """Remove a key at any version. It is gone here at once, and for all when this returns.

        Raises `NotFound` when it is not there. After an error the key is there again.
        """
        self._check_key(key)
        with self._lock:
            self._check_following()
            update_id = self._replica.begin_update(key, None)
        try:
            with self._lock_of(key):
                deleted = self._ask("DeleteState", DeleteState(key=key), DeletedState)
                self._confirm(key, update_id, deleted.version)
            with self._lock:
                self._handed_out.give(key, ABSENT)
        finally:
            with self._lock:
                self._replica.withdraw_update(key, update_id)

    def close(self) -> None:
        """End the subscription. Reads and writes raise `RuntimeError` from then on."""
        self._closed.set()
        with contextlib.suppress(RuntimeError):  # the client is closed already
            self._io_thread.shut(self._subscription_id)

    def __enter__(self) -> SharedState:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- following, by its own thread -----------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            while (delivery := self._mailbox.take()) is not None:
                self._receive(delivery)
                if self._replica.needs_snapshot:
                    self._snapshot_until_done()
        except BacktestrError as fault:  # the subscription has ended: reads raise from now on
            log.error("shared state %s* is not followed any more: %s", self._prefix, fault)
            self._fault = fault
        except RuntimeError as closed:  # the client is closed
            self._fault = closed

    def _receive(self, delivery: Delivery) -> None:
        try:
            with self._lock:
                self._call_back(self._replica.receive(delivery))
        except BacktestrError as error:
            self._errors.add(ErrorReport(error, self._topics, time.time_ns() // 1_000_000))

    def _snapshot_until_done(self) -> None:
        """Try to take a snapshot until one succeeds, or this is closed; deliveries wait in the mailbox meanwhile."""
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
            self._call_back(self._replica.apply_snapshot(reasons, snapshot.entries, snapshot.watermark))

    def _call_back(self, changes: list[Committed], watched: list[tuple[str | None, Callback]] | None = None) -> None:
        """Have the changes given to callbacks, all of them unless some are named; the caller holds the lock."""
        for change in changes:
            concerned = [one for key, one in watched or self._callbacks if key in (None, change.key)]
            if concerned:
                self._handed_out.note(change.key, change.current)
            for callback in concerned:
                self._callback_thread.call(partial(self._hand_over, callback, change))

    def _hand_over(self, callback: Callback, change: Committed) -> None:
        """Call a callback: it may base a change of the key on what it is given."""
        self._handed_out.taken(change.key, change.current)
        callback(StateChange(change.key, _value(change.current.value), change.current.version))

    # --- within ---------------------------------------------------------------------------------------------------

    def _versioned(self, key: str, shown: bytes | None) -> VersionedValue:
        """Return what a key shows with its version; an optimistic update has none."""
        committed = self._replica.committed(key)
        return committed if shown == committed.value else VersionedValue(UNCONFIRMED, shown)

    def _base(self, key: str, version: int | None) -> VersionedValue:
        """Return the value on which a change by the calling thread is based."""
        committed = self._replica.committed(key)
        if version is None:
            return self._handed_out.base(key) or committed
        if isinstance(version, bool) or (number := operator.index(version)) < 0:
            raise ValueError(f"base_version is the version of a value, 0 for a key that was not there, not {version!r}")
        return committed if number == committed.version else self._handed_out.at(key, number)

    def _lock_of(self, key: str) -> AbstractContextManager[bool]:
        return self._key_locks[hash(key) % KEY_LOCKS]

    def _confirm(self, key: str, update_id: int, version: int) -> None:
        with self._lock:
            self._call_back(self._replica.confirm_update(key, update_id, version))

    def _learn(self, key: str, current: VersionedValue) -> None:
        with self._lock:
            self._call_back(self._replica.learn(key, current))

    def _check_key(self, key: str) -> None:
        if not key.startswith(self._prefix):
            raise ValueError(f"{key!r} does not begin with {self._prefix!r}, as all keys here do")

    def _check_following(self) -> None:
        if self._fault is not None:
            raise RuntimeError(f"shared state {self._prefix}* is not followed any more: {self._fault}") from self._fault
        if self._closed.is_set():
            raise RuntimeError("this shared state is closed")


class _Overtaken(Exception):
    """Another client has changed the key since it was read."""


class _Write:
    """One update over all its attempts: `base` is the value that was read, `mine` the value to write."""

    def __init__(
        self,
        state: SharedState,
        key: str,
        update_id: int,
        mine: bytes,
        make: Callable[[Any], Any] | None,
        base: VersionedValue | None,
    ) -> None:
        """Prepare the write of `mine`, which was made of `base`, or by the function `make` of the current value."""
        self._state = state
        self._key = key
        self._update_id = update_id
        self._make = make
        self._mine = mine
        with state._lock:
            committed = state._replica.committed(key)
        self._base = committed if base is None else base
        if make is not None:
            self._show(value_bytes(make(_value(self._base.value))))

    def until_done(self) -> VersionedValue:
        """Try until the value is written or the resolver prefers the current one; return the value that the key has."""
        if self._base.version == UNCONFIRMED and self._is_settled_by_itself():
            return self._base
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

    def _is_settled_by_itself(self) -> bool:
        """Use as the base what has become of this program's own update; return True when nothing is to be written.

        Updates of one key are made in turn, so that update is confirmed, joined with another change, or withdrawn.
        """
        with self._state._lock:
            current = self._state._replica.committed(self._key)
        if current.value == self._base.value:
            self._base = current
            return False
        return self._resolve(current)

    def _attempt(self) -> VersionedValue:
        try:
            request = UpdateState(key=self._key, value=msgspec.Raw(self._mine), expected_version=self._base.version)
            updated = self._state._ask("UpdateState", request, UpdatedState)
        except StateConflict as conflict:
            theirs = _current_value(conflict)
            self._state._learn(self._key, theirs)
            if self._resolve(theirs):
                return theirs
            raise _Overtaken from conflict
        self._state._confirm(self._key, self._update_id, updated.version)
        return VersionedValue(updated.version, self._mine)

    def _resolve(self, theirs: VersionedValue) -> bool:
        """Find the value to write instead; return True when the key has that value already."""
        if self._make is not None:
            mine = self._make(_value(theirs.value))
        else:
            resolver = resolver_for(self._key, self._state._resolvers)
            mine = resolver(_value(self._mine), _value(theirs.value), _value(self._base.value))
            if mine is None and theirs.value is None:
                self._base = theirs
                return True
        encoded = value_bytes(mine)
        self._base = theirs
        if self._make is None and encoded == theirs.value:
            return True
        self._show(encoded)
        return False

    def _show(self, mine: bytes) -> None:
        self._mine = mine
        with self._state._lock:
            self._state._replica.revise_update(self._key, self._update_id, mine)


def _current_value(conflict: StateConflict) -> VersionedValue:
    details = conflict.details or {}
    version = details.get("currentVersion", 0)
    return VersionedValue(version, value_bytes(details.get("currentValue"))) if version else ABSENT


def _value(encoded: bytes | None) -> Any:
    return None if encoded is None else _decoder.decode(encoded)
