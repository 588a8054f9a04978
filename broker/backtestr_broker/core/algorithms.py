"""Keep which version the name of each algorithm means, the last errors of versions, and the files not loaded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from backtestr_protocol.errors import ErrorData, unknown
from backtestr_protocol.messages import AlgorithmInfo, AlgorithmProblem, AlgorithmStatus

# Algorithm versions whose last error is remembered; the ones that failed longest ago are forgotten.
MAX_ERRORS = 1000
# Problems that are kept of one worker: as many as a folder and the registrations may have files.
MAX_PROBLEMS = 2000


class Algorithms:
    """The algorithms that workers have: by name the newest version, by algorithm id the latest error."""

    def __init__(self) -> None:
        self._by_name: dict[str, AlgorithmInfo] = {}
        self._errors: OrderedDict[str, ErrorData] = OrderedDict()  # the latest error is last
        self._problems: dict[str, list[AlgorithmProblem]] = {}  # by worker id

    def registered(self, info: AlgorithmInfo) -> None:
        """Have the name mean this version, unless one that was registered later has the name.

        A worker may report an earlier version: it may have begun its warm-up before the later one was registered.
        """
        known = self._by_name.get(info.name)
        later = known.registered_time if known is not None else None
        if info.registered_time is None or later is None or info.registered_time >= later:
            self._by_name[info.name] = info

    def stored(self, info: AlgorithmInfo) -> None:
        """Take a version that was registered just now: what was wrong with the files of its name has been replaced."""
        self.registered(info)
        for worker_id, problems in self._problems.items():
            self._problems[worker_id] = [one for one in problems if one.name != info.name]

    def not_loaded(self, worker_id: str, problems: Sequence[AlgorithmProblem]) -> None:
        """Take the files that a worker which has just started did not load, in place of those of the one before."""
        self._problems[worker_id] = list(problems[:MAX_PROBLEMS])

    def problems(self) -> list[AlgorithmProblem]:
        """Return the files that some worker has not loaded, each with one reason, ordered by file."""
        by_file = {one.file: one for problems in self._problems.values() for one in reversed(problems)}
        return sorted(by_file.values(), key=lambda one: one.file)

    def failed(self, algorithm_id: str, error: ErrorData) -> None:
        """Remember the error as that version's last."""
        self._errors[algorithm_id] = error
        self._errors.move_to_end(algorithm_id)
        if len(self._errors) > MAX_ERRORS:
            self._errors.popitem(last=False)

    def all(self) -> list[AlgorithmInfo]:
        """Return the newest version of each, ordered by name."""
        return sorted(self._by_name.values(), key=lambda info: info.name)

    def status(self, asked: str, active: Iterable[str]) -> AlgorithmStatus | None:
        """Return the status of a name (all of its versions) or of an algorithm id; None for an earlier version.

        `active` has the algorithm id of every backtest that has not ended. Raises `NotFound` for an unknown name.
        """
        if (named := self._by_name.get(asked)) is not None:
            return self.status_of(named, active, all_versions=True)
        info = self._by_name.get(_name_of(asked))
        if info is None:
            raise unknown("algorithm", asked, self._by_name)
        return self.status_of(info, active) if info.algorithm_id == asked else None

    def status_of(self, info: AlgorithmInfo, active: Iterable[str], *, all_versions: bool = False) -> AlgorithmStatus:
        """Return a version's status, with the active backtests and the last error of it, or of all of its name."""

        def concerns(algorithm_id: str) -> bool:
            return algorithm_id == info.algorithm_id or (all_versions and _name_of(algorithm_id) == info.name)

        errors = (error for one, error in reversed(self._errors.items()) if concerns(one))
        return AlgorithmStatus(
            **msgspec.structs.asdict(info),
            active_backtests=sum(map(concerns, active)),
            last_error=next(errors, None),
        )

    def check_invariants(self) -> None:
        assert len(self._errors) <= MAX_ERRORS
        assert all(info.name == name for name, info in self._by_name.items())


def _name_of(algorithm_id: str) -> str:
    """Return what stands before the version in `<name>@<version>`."""
    return algorithm_id.rpartition("@")[0]
