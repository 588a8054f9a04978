"""What the engine says to a command line on this machine, without a broker: one JSON document on standard output.

python -m backtestr_engine --check FILE     CheckedFile
python -m backtestr_engine --indicators     IndicatorList
"""

from __future__ import annotations

from .messages import Contract, Finding


class Verdict(Contract, frozen=True, kw_only=True):
    """What came of the look-ahead check of one algorithm: `finding` is None when it passed. `cuts` are the numbers of
    bars that it was cut to, of all `bars`."""

    algorithm_id: str
    bars: int
    cuts: list[int]
    finding: Finding | None

    @property
    def passed(self) -> bool:
        return self.finding is None


class CheckedFile(Contract, frozen=True, kw_only=True):
    """The verdicts on the algorithms of a file. `problems`: why it has none, or what failed without being cut."""

    file: str
    verdicts: list[Verdict]
    problems: list[str]

    @property
    def passed(self) -> bool:
        return not self.problems and all(verdict.passed for verdict in self.verdicts)


class IndicatorInfo(Contract, frozen=True, kw_only=True):
    """One indicator: its TA-Lib name, its parameters with their defaults, and the names of what it returns."""

    name: str
    description: str
    group: str
    parameters: dict[str, int | float]
    outputs: list[str]


class IndicatorList(Contract, frozen=True, kw_only=True):
    indicators: list[IndicatorInfo]
