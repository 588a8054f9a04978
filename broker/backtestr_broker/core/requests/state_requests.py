"""What the requests about shared state do (PROTOCOL.md, section 8).

Reads give what is on disk. A change, and a refusal that rests on one, is answered when the disk has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from backtestr_broker.core.clients.idempotency import RequestKey
from backtestr_broker.core.clients.sessions import Session
from backtestr_broker.core.durability import Durability
from backtestr_broker.core.records import StateRecord
from backtestr_broker.core.shared_state import SharedState
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
from backtestr_protocol.state_values import NIL
from backtestr_protocol.stream_messages import StateUpdate


class Desk(Protocol):
    state: SharedState
    durability: Durability
    wall_ms: int


class StateRequests:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def get(self, _session: Session, data: GetState, _request_key: RequestKey) -> StateEntry:
        return _entry(self._desk.state.get(data.key))

    def snapshot(self, _session: Session, data: SnapshotState, _request_key: RequestKey) -> StateSnapshot:
        state = self._desk.state
        return StateSnapshot(entries=[_entry(one) for one in state.snapshot(data.prefix)], watermark=state.revision)

    def update(self, _session: Session, data: UpdateState, request_key: RequestKey) -> None:
        def change() -> StateRecord:
            return self._desk.state.update(data.key, data.value, data.expected_version, self._desk.wall_ms)

        self._change(data.key, change, request_key, memoryview(data.value).nbytes)

    def delete(self, _session: Session, data: DeleteState, request_key: RequestKey) -> None:
        def change() -> StateRecord:
            return self._desk.state.delete(data.key, data.expected_version, self._desk.wall_ms)

        self._change(data.key, change, request_key, 0)

    def _change(self, key: str, change: Callable[[], StateRecord], request_key: RequestKey, size: int) -> None:
        """Make a change and have it written. Raises `BacktestrError` for what can be refused at once."""
        durability = self._desk.durability
        durability.check_room(size)
        try:
            record = change()
        except BacktestrError as error:
            if not self._desk.state.is_on_its_way(key):
                raise
            durability.refuse_in_turn(request_key, error)
            return
        answer: UpdatedState | DeletedState = DeletedState(key=key, version=record.version)
        if record.value is not None:
            answer = UpdatedState(key=key, version=record.version, checksum=record.checksum)
        durability.change_state(request_key, answer, record)


def update_message(record: StateRecord) -> StateUpdate:
    """What subscribers to the key are told of a change."""
    return StateUpdate(**msgspec.structs.asdict(_entry(record)), revision=record.revision, deleted=record.value is None)


def _entry(record: StateRecord) -> StateEntry:
    return StateEntry(
        key=record.key,
        value=msgspec.Raw(NIL if record.value is None else record.value),
        version=record.version,
        checksum=record.checksum,
        timestamp=record.timestamp,
    )
