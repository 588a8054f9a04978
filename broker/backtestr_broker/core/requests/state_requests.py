"""Execute the requests about shared state (PROTOCOL.md, section 8).

Reads give what is on disk. A change, and a refusal that rests on one, is answered when the disk has it.
"""

from __future__ import annotations

from collections.abc import Callable

from backtestr_broker.core.clients.answers import RequestKey
from backtestr_broker.core.clients.sessions import Session
from backtestr_broker.core.durability import Durability
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.records import StateRecord
from backtestr_broker.core.shared_state import SharedState, state_entry
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.messages import (
    DeletedState,
    DeleteState,
    GetState,
    SnapshotState,
    StateEntry,
    StateSnapshot,
    UpdatedState,
    UpdateState,
)


class StateRequests:
    """The requests about shared state, as methods."""

    def __init__(self, outbox: Outbox, state: SharedState, durability: Durability) -> None:
        self._outbox = outbox
        self._state = state
        self._durability = durability

    def has(self, key: str) -> bool:
        """Return true if there is such a key on disk, or was."""
        return key in self._state

    def get(self, _session: Session, data: GetState, _request_key: RequestKey) -> StateEntry:
        return state_entry(self._state.get(data.key))

    def snapshot(self, _session: Session, data: SnapshotState, _request_key: RequestKey) -> StateSnapshot:
        entries = [state_entry(one) for one in self._state.snapshot(data.prefix)]
        return StateSnapshot(entries=entries, watermark=self._state.revision)

    def update(self, _session: Session, data: UpdateState, request_key: RequestKey) -> None:
        def change() -> StateRecord:
            return self._state.update(data.key, data.value, data.expected_version, self._outbox.wall_ms)

        self._change(data.key, change, request_key, memoryview(data.value).nbytes)

    def delete(self, _session: Session, data: DeleteState, request_key: RequestKey) -> None:
        def change() -> StateRecord:
            return self._state.delete(data.key, data.expected_version, self._outbox.wall_ms)

        self._change(data.key, change, request_key, 0)

    def _change(self, key: str, change: Callable[[], StateRecord], request_key: RequestKey, size: int) -> None:
        """Make a change and have it written. Raises `BacktestrError` for what can be refused at once."""
        self._durability.check_room(size)
        try:
            record = change()
        except BacktestrError as error:
            if not self._state.is_on_its_way(key):
                raise
            self._durability.refuse_in_turn(request_key, error)
            return
        answer: UpdatedState | DeletedState = DeletedState(key=key, version=record.version)
        if record.value is not None:
            answer = UpdatedState(key=key, version=record.version, checksum=record.checksum)
        self._durability.change_state(request_key, answer, record)
