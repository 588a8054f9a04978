"""Execute the requests about stored results: list, pin, delete and prune them (PROTOCOL.md, section 6.8).

All of them wait for a survey of the files, so that they speak of what is on disk now.
"""

from __future__ import annotations

from backtestr_broker.core.clients.answers import Answer, RequestKey
from backtestr_broker.core.clients.sessions import Session
from backtestr_broker.core.commit_queue import PendingPin
from backtestr_broker.core.deletions import Deletions
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.records import Change, PinDeleted, PinPut, PinRecord
from backtestr_broker.core.retention import DueItem, RetentionRules
from backtestr_broker.core.scheduling.jobs import Jobs
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.messages import BacktestRef
from backtestr_protocol.result_messages import (
    LISTED,
    MAX_LISTED,
    MAX_PRUNED,
    ListResults,
    PinBacktest,
    PinnedBacktest,
    PrunedResult,
    PrunedResults,
    PruneResults,
    ResultList,
    StoredResult,
)


class ResultRequests:
    """The requests about stored results, as methods. Each is answered later."""

    def __init__(self, outbox: Outbox, jobs: Jobs, deletions: Deletions) -> None:
        self._outbox = outbox
        self._jobs = jobs
        self._deletions = deletions

    def check_readable(self, backtest_id: str) -> None:
        """Raise `NotFound` for a backtest that is deleted, though files of it may still be there."""
        self._deletions.check_readable(backtest_id)

    def delete(self, _session: Session, data: BacktestRef, request_key: RequestKey) -> None:
        self._deletions.after_survey(request_key, lambda: self._deletions.delete(data.backtest_id, request_key))

    def list_all(self, _session: Session, data: ListResults, request_key: RequestKey) -> None:
        self._deletions.after_survey(request_key, lambda: self._list(data, request_key))

    def pin(self, _session: Session, data: PinBacktest, request_key: RequestKey) -> None:
        self._deletions.after_survey(request_key, lambda: self._pin(data, request_key))

    def prune(self, _session: Session, data: PruneResults, request_key: RequestKey) -> None:
        # One at a time, since each looks at every result.
        self._deletions.after_survey(request_key, lambda: self._prune(data, request_key), alone=True)

    def _list(self, data: ListResults, request_key: RequestKey) -> None:
        stored, jobs = self._deletions.stored, self._jobs
        shown = stored.newest()[: min(data.limit or LISTED, MAX_LISTED)]
        results = [
            StoredResult(
                backtest_id=backtest_id,
                bytes=size,
                stored_time=stored_ms,
                pinned=stored.is_pinned(backtest_id),
                status=jobs.get(backtest_id).status if backtest_id in jobs else None,
            )
            for backtest_id, size, stored_ms in shown
        ]
        self._outbox.answer(request_key, ResultList(results=results, count=len(stored), bytes=stored.total_bytes))

    def _pin(self, data: PinBacktest, request_key: RequestKey) -> None:
        backtest_id, pinned = data.backtest_id, data.pinned
        stored = self._deletions.stored
        if pinned or not stored.is_pinned(backtest_id):
            self._deletions.check_known(backtest_id)
        if pinned:
            stored.check_pins(backtest_id)
        record = PinRecord(backtest_id=backtest_id, wall_ms=self._outbox.wall_ms)
        answer = Answer(encoded_payload("Success", PinnedBacktest(backtest_id=backtest_id, pinned=pinned)))
        changes: list[Change] = [
            PinPut(record) if pinned else PinDeleted(backtest_id),
            self._outbox.remembered(request_key, answer),
        ]
        self._outbox.submit(changes, PendingPin(request_key, answer, backtest_id, pinned))
        if pinned:
            stored.begin_pin(backtest_id)

    def _prune(self, data: PruneResults, request_key: RequestKey) -> None:
        configured = self._deletions.rules
        rules = RetentionRules(
            max_age_ms=configured.max_age_ms if data.max_age_ms is None else data.max_age_ms,
            max_count=configured.max_count if data.max_count is None else data.max_count,
            max_bytes=configured.max_bytes if data.max_bytes is None else data.max_bytes,
            keep_newest=configured.keep_newest if data.keep_newest is None else data.keep_newest,
        )
        due = self._deletions.due(rules)
        items, remaining = due[:MAX_PRUNED], len(due[MAX_PRUNED:])
        if data.dry_run or not items:
            self._outbox.answer(request_key, _pruned(items, {}, data.dry_run, remaining))
            return
        self._deletions.prune(items, request_key, lambda freed: _pruned(items, freed, False, remaining))


def _pruned(items: list[DueItem], freed: dict[str, int], dry_run: bool, remaining: int) -> PrunedResults:
    """Return the answer of these results; `freed` has the bytes of those that are removed."""
    results = [
        PrunedResult(backtest_id=one.name, bytes=freed.get(one.name, one.size), reason=one.reason) for one in items
    ]
    total = sum(one.bytes for one in results)
    return PrunedResults(results=results, freed_bytes=total, dry_run=dry_run, remaining=remaining)
