"""The reason why a backtest has not ended in time: it runs, is paused, or waits for a worker behind others.

A paced backtest that lends its worker is not before others; only where workers are lent by as many as they may be, a
further paced one waits for one of these to end.
"""

from __future__ import annotations

from backtestr_protocol.errors import BacktestrError, TimedOut
from backtestr_protocol.messages import MAX_LENDING, BacktestList, BacktestRef, BacktestStatus, ListBacktests

from .requester import Requester

_ASK_SECONDS = 2.0
_SHOWN = 3
"""The most backtests that are named: those that have a worker."""


def late(ask: Requester, backtest_id: str, error: TimedOut) -> TimedOut:
    """Return `error` with the state of the backtest; as it is where the broker does not say it in a moment."""
    try:
        status = ask("GetBacktestStatus", BacktestRef(backtest_id=backtest_id), BacktestStatus, _ASK_SECONDS)
        if status.status != "queued":
            return _told(
                error, f"backtest {backtest_id} is {status.status}, at {status.progress_percent:.0f} %", status
            )
        known = ask("ListBacktests", ListBacktests(limit=1000), BacktestList, _ASK_SECONDS).backtests
    except BacktestrError:  # it is late for another reason, such as that the broker is gone
        return error
    ahead = sum(one.status == "queued" and one.submit_time < status.submit_time for one in known)
    lending = [one for one in known if one.lends]
    waits_for_them = status.pace is not None and len(lending) >= MAX_LENDING
    busy = [one for one in known if one.status == "running" and (waits_for_them or not one.lends)]
    text = f"backtest {backtest_id} is queued"
    if busy:
        named = ", ".join(f"{one.backtest_id} ({_described(one)})" for one in busy[:_SHOWN])
        more = f" and {len(busy) - _SHOWN} more" if len(busy) > _SHOWN else ""
        text += f" behind {named}{more}, which the workers run"
    if ahead:
        text += f"{' and' if busy else ' behind'} {ahead} that {'was' if ahead == 1 else 'were'} queued before it"
    return _told(error, text, status, [one.backtest_id for one in busy])


def _described(one: BacktestStatus) -> str:
    return f"{one.algorithm_id.partition('@')[0]} on {one.symbol}, at {one.progress_percent:.0f} %"


def _told(error: TimedOut, text: str, status: BacktestStatus, behind: list[str] | None = None) -> TimedOut:
    details = {**(error.details or {}), "status": status.status, "progressPercent": status.progress_percent}
    return TimedOut(f"{error.message}: {text}", **details, **({"behind": behind} if behind else {}))
