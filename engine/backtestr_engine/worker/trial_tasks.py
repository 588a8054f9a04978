"""The ledger of trials as tasks: list its groups with their numbers, and enter a backtest beside its simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from backtestr_engine.backtest.plan import Plan
from backtestr_engine.data.timeframes import parse_timeframe
from backtestr_engine.research.trials import trial_data, trial_key
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import unknown
from backtestr_protocol.trial_messages import GetTrials, TrialGroup, TrialList

from .trial_store import GroupFacts, TrialStore

_request = msgspec.msgpack.Decoder(GetTrials)

# A function that returns names; it is called where a name is not in the ledger.
Names = Callable[[], Iterable[str]]


class TrialEntries:
    """The single backtests of a worker on their way into the ledger, in a thread beside their simulations."""

    def __init__(self, store: TrialStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="backtestr trials")

    def enter(self, plan: Plan) -> Future[str]:
        """Begin to enter a backtest; the result is its group, once it is on disk, or an `OSError`."""
        return self._thread.submit(self._entered, plan)

    def _entered(self, plan: Plan) -> str:
        data = trial_data(plan.algorithm, plan.panel)
        self._store.append(data, trial_key(plan))
        return data.group


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
