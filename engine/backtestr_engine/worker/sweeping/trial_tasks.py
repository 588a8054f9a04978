"""The ledger of trials as tasks: list its groups with their numbers, and enter a backtest beside its simulation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from backtestr_engine.backtest.plan import Plan
from backtestr_engine.data.content_version import ContentVersions
from backtestr_engine.data.timeframes import parse_timeframe
from backtestr_engine.research.trials import trial_data, trial_key
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import unknown
from backtestr_protocol.texts import described
from backtestr_protocol.trial_messages import GetTrials, TrialGroup, TrialList

from .trial_store import GroupFacts, TrialStore

_request = msgspec.msgpack.Decoder(GetTrials)

# Rows of bars up to which a backtest is entered at once: that takes less time than to hand it to a thread.
BARS_AT_ONCE = 20_000

_log = logging.getLogger(__name__)

# A function that returns names; it is called where a name is not in the ledger.
Names = Callable[[], Iterable[str]]


class TrialEntries:
    """The single backtests of a worker on their way into the ledger, beside their simulations.

    A backtest does not wait for the disk: its trial is synced behind it, and only the end of the machine may lose it.
    """

    def __init__(self, store: TrialStore) -> None:
        self._store = store
        self._of_short, self._of_long = ContentVersions(), ContentVersions()  # one for each thread
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="backtestr trials")

    def enter(self, plan: Plan) -> Future[str]:
        """Begin to enter a backtest; the result is its group, once no end of a process can lose it, or an `OSError`."""
        if len(plan.panel) > BARS_AT_ONCE:
            return self._thread.submit(self._entered, plan, self._of_long)
        done: Future[str] = Future()
        try:
            done.set_result(self._entered(plan, self._of_short))
        except Exception as error:  # it is raised again where the result is waited for
            done.set_exception(error)
        return done

    def close(self) -> None:
        """Sync what was entered, end the thread and close the file: the worker ends, and its process may go on."""
        self._thread.shutdown()
        self._store.close()

    def _entered(self, plan: Plan, versions: ContentVersions) -> str:
        data = trial_data(plan.algorithm, plan.panel, versions.of(plan.panel.series))
        self._store.append(data, trial_key(plan), synced=False)
        self._thread.submit(self._sync)
        return data.group

    def _sync(self) -> None:
        try:
            self._store.sync()
        except OSError as error:
            _log.warning("trials_not_synced", extra={"reason": described(error)})


def trials_answer(store: TrialStore, data: bytes, algorithms: Names, symbols: Names) -> list[bytes]:
    """Return the frames of the answer to GetTrials.

    Raises `NotFound` for an algorithm or a symbol that is neither in the ledger nor among the given names,
    `ValidationError` for a timeframe, `DataError` and `Busy`.
    """
    request = decode(_request, data)
    timeframe = None if request.timeframe is None else parse_timeframe(request.timeframe)
    algorithm = None if request.algorithm_id is None else request.algorithm_id.partition("@")[0]
    with store.read(merge=True) as groups:
        every = list(groups.values()) if request.group is None else _one(groups.get(request.group))
        if algorithm is not None:
            _check("algorithm", algorithm, {one.data.algorithm for one in groups.values()}, algorithms)
            every = [one for one in every if one.data.algorithm == algorithm]
        if request.symbol is not None:
            _check("symbol", request.symbol, {name for one in groups.values() for name in one.data.symbols}, symbols)
            every = [one for one in every if request.symbol in one.data.symbols]
        if timeframe is not None:
            every = [one for one in every if one.data.timeframe == timeframe]
        every.sort(key=lambda one: (-one.last_ms, one.data.group))
        listed = [_counted(one, store.count_of(one.data.group)) for one in every[: request.limit]]
    return [encode(TrialList(groups=listed, count=len(every)))]


def _one(facts: GroupFacts | None) -> list[GroupFacts]:
    return [] if facts is None else [facts]


def _check(kind: str, name: str, entered: set[str], known: Names) -> None:
    """Raise `NotFound` for a name that is not in the ledger, and that is not known either."""
    if name not in entered and name not in (all_known := {*entered, *known()}):
        raise unknown(kind, name, sorted(all_known))


def _counted(facts: GroupFacts, trials: int) -> TrialGroup:
    data = facts.data
    return TrialGroup(
        group=data.group,
        algorithm=data.algorithm,
        symbols=data.symbols,
        timeframe=data.timeframe,
        data_version=data.data_version,
        start_time=data.start_time,
        end_time=data.end_time,
        bars=data.bars,
        trials=trials,
        runs=facts.runs,
        first_time=facts.first_ms,
        last_time=facts.last_ms,
    )
