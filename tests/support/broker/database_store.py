"""A database as the event loop uses it, which tests can open again, and records to write into it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from backtestr_broker.core.events import Persist
from backtestr_broker.core.records import (
    AnswerRecord,
    Change,
    JobRecord,
    StateRecord,
)
from backtestr_broker.core.scheduling.jobs import Job
from backtestr_broker.io.database import Connect, Database, Report, connect_to
from backtestr_protocol.errors import TimedOut
from backtestr_protocol.state_values import NIL, checksum
from support.harness import wait_until


class _AnyTime(int):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and other > 0

    def __hash__(self) -> int:
        return 0


# The time of a commit is the clock's.
ANY_TIME = _AnyTime()
LATE = TimedOut("too late", bar=7).to_data(component="engine", timestamp=5)


def job(backtest_id: str, request_id: str | None = None, **changes: Any) -> JobRecord:
    made = Job(
        backtest_id=backtest_id,
        algorithm_id="sma_cross",
        symbols=["SYNTH", "OTHER"],
        config=b"\x80",
        request_key=("ann", request_id or f"start {backtest_id}"),
        submit_time=1000,
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made.record()


def answer(request_id: str, wall_ms: int, client_id: str = "ann") -> AnswerRecord:
    return AnswerRecord(client_id=client_id, request_id=request_id, payload=request_id.encode(), wall_ms=wall_ms)


def key(name: str, version: int, value: bytes | None, revision: int) -> StateRecord:
    found = checksum(NIL if value is None else value)
    return StateRecord(key=name, version=version, value=value, checksum=found, timestamp=version, revision=revision)


class Store:
    """A database in a folder of its own, used as the event loop uses it, that can be opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.woken = threading.Event()
        self.generation = 0
        self.connect: Connect = connect_to
        self._database: Database | None = None
        self._tickets = 0
        self._reports: list[Report] = []

    @property
    def database(self) -> Database:
        if self._database is None:
            self._database = Database(self.path, self.woken.set, self.connect)
            self._database.start()
        return self._database

    def submit(self, *changes: Change) -> int:
        self._tickets += 1
        self.database.submit(Persist(self._tickets, self.generation, changes))
        return self._tickets

    def report(self) -> Report:
        """Return the next report of the thread."""

        def came() -> bool:
            self._reports += self.database.take()
            return bool(self._reports)

        wait_until(came, 10)
        return self._reports.pop(0)

    def write(self, *changes: Change) -> Report:
        self.submit(*changes)
        return self.report()

    def reopen(self) -> Database:
        self.close()
        return self.database

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
