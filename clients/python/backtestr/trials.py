"""The ledger of trials: how many combinations the broker has ever run with an algorithm on the same bars."""

from __future__ import annotations

from backtestr_protocol.trial_messages import LISTED_GROUPS, GetTrials, TrialGroup, TrialList

from .requester import BULK_TIMEOUT, Requester


def list_trials(ask: Requester, request: GetTrials) -> list[TrialGroup]:
    """Return the groups that a request is about, those that were run last first. Raises `NotFound`."""
    return ask("GetTrials", request, TrialList, BULK_TIMEOUT).groups


def count_trials(ask: Requester, group: str | None) -> int | None:
    """Return the number of trials of a group, now; None where an earlier version did not name the group."""
    if group is None:
        return None
    found = list_trials(ask, GetTrials(group=group, limit=1))
    return found[0].trials if found else 0


class TrialRequests:
    """The methods of a client for the ledger of trials."""

    _ask: Requester

    def trials(
        self,
        algorithm: str | None = None,
        symbol: str | None = None,
        timeframe: str | None = None,
        *,
        group: str | None = None,
        limit: int = LISTED_GROUPS,
    ) -> list[TrialGroup]:
        """Count the combinations that this broker has ever run, by algorithm and tested bars, the latest first.

        The same combination counts once, as a backtest or as a row of a sweep. `symbol` is among those of a group, and
        `group` the `trial_group` of a result or of a sweep. Without any, all groups are counted, up to `limit`. Raises
        `NotFound` for an algorithm or a symbol that does not exist.
        """
        return list_trials(
            self._ask,
            GetTrials(group=group, algorithm_id=algorithm, symbol=symbol, timeframe=timeframe, limit=limit),
        )
