"""Trials: which group a backtest counts in, and the key by which equal combinations in it are told from others.

A key is 64 bits of everything that decides the figures of a backtest on given bars: the version of its algorithm, every
parameter, money, costs, conventions, and the bars of warm-up. A row of a sweep has the key of its single backtest. Keys
of many rows are computed as columns. They are not meant against an attacker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.parameters import Bool, Float, Parameter, Value
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.data.arrays import AnyArray, Integers
from backtestr_engine.data.content_version import content_version
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.timeframes import close_time
from backtestr_engine.simulation.conventions import Options
from backtestr_protocol.messages import BacktestConfig

from .sweep_blocks import SweepWork
from .sweep_space import Combinations

Keys = npt.NDArray[np.uint64]

_ID_BYTES = 16
# Options that change when things happen, or whether they are checked, and no figure.
_WITHOUT_FIGURES = ("preset", "pace", "streams", "timeLimitMs", "lookAheadCheck")
# Steps of splitmix64, whose last step maps words one to one: keys of one swept parameter never collide.
_GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)
_FACTORS = np.uint64(0xBF58_476D_1CE4_E5B9), np.uint64(0x94D0_49BB_1331_11EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


class TrialData(msgspec.Struct, frozen=True, rename="camel"):
    """The facts of a group of trials: one algorithm on the same bars. Times in milliseconds since the Unix epoch.

    `start_time` is the open time of the first bar that is tested, and `end_time` the close of the last.
    """

    algorithm: str
    symbols: list[str]
    timeframe: str
    data_version: str
    start_time: int
    end_time: int
    bars: int

    @property
    def group(self) -> str:
        """The id of the group, 32 characters of hex."""
        facts = [self.algorithm, self.symbols, self.timeframe, self.data_version]
        return hashlib.blake2b(msgspec.msgpack.encode(facts), digest_size=_ID_BYTES).hexdigest()


def trial_data(algorithm: Algorithm, tested: Panel, version: str | None = None) -> TrialData:
    """Return the group of backtests of an algorithm on bars that are tested, at least one.

    `version` is the content version of the bars, where it is known.
    """
    return TrialData(
        algorithm=algorithm.name,
        symbols=list(tested.symbols),
        timeframe=tested.timeframe,
        data_version=content_version(tested.series) if version is None else version,
        start_time=int(tested.timestamp[0]) // 1000,
        end_time=close_time(int(tested.timestamp[-1]), tested.timeframe) // 1000,
        bars=sum(len(bars) for bars in tested.series),
    )


def trial_key(plan: Plan) -> Keys:
    """Return the key of a single backtest, as an array of one."""
    given = (0,) * len(plan.panel.series) if plan.warm_up is None else plan.warm_up.given
    return _keys(
        _setting(plan.algorithm, plan.config, plan.options),
        plan.algorithm.parameters,
        {name: np.array([value]) for name, value in plan.parameters.items()},
        [np.array([bars]) for bars in given],
    )


def row_keys(work: SweepWork, algorithm: Algorithm, found: Combinations) -> Keys:
    """Return the keys of combinations of a sweep: those of their single backtests."""
    plan, rows = work.plan, len(found)
    fixed = {name: np.full(rows, value) for name, value in plan.space.fixed.items()}
    setting = _setting(algorithm, plan.config, plan.options)
    return _keys(setting, algorithm.parameters, {**fixed, **found.columns}, work.warm_up_bars(found))


def _setting(algorithm: Algorithm, config: BacktestConfig, options: Options) -> int:
    """Return a hash of all but parameters and warm-up."""
    money = [float(config.initial_capital), float(config.commission), float(config.slippage)]
    rules = {name: rule for name, rule in options.to_wire().items() if name not in _WITHOUT_FIGURES}
    return _hashed(msgspec.msgpack.encode([algorithm.algorithm_id, money, sorted(rules.items())]))


def _keys(
    setting: int,
    parameters: Mapping[str, Parameter],
    values: Mapping[str, AnyArray],
    given: Sequence[Integers],
) -> Keys:
    """Return the key of each row: of columns of values by parameter, and of columns of given bars by symbol."""
    columns = [(name, _words(values[name], parameters[name])) for name in sorted(values)]
    columns += [(f"warmup {place}", bars.astype(np.uint64)) for place, bars in enumerate(given)]
    keys = np.full(len(columns[0][1]), setting, dtype=np.uint64)
    for name, words in columns:
        keys = _mixed(keys ^ _mixed(words + np.uint64(_hashed(name.encode()))))
    return keys


def _words(values: AnyArray, parameter: Parameter) -> Keys:
    """Return a word of each value of a parameter, the same for the same value however it was given."""
    match parameter:
        case Bool():
            return values.astype(np.uint64)
        case Float():
            numbers = values.astype(np.float64) + 0.0  # -0.0 is 0.0
            return numbers.view(np.uint64)
        case _:
            if values.dtype.kind in "iu":
                return values.astype(np.int64).view(np.uint64)
            return np.array([_word(value) for value in values.tolist()], dtype=np.uint64)


def _word(value: Value | str) -> int:
    """Return a word of an integer of any size, or of a text."""
    return _hashed(value.encode()) if isinstance(value, str) else int(value) % (1 << 64)


def _hashed(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _mixed(words: Keys) -> Keys:
    """Return words whose every bit depends on every bit of another: the end of splitmix64."""
    words = words + _GOLDEN
    words = (words ^ (words >> _SHIFTS[0])) * _FACTORS[0]
    words = (words ^ (words >> _SHIFTS[1])) * _FACTORS[1]
    mixed: Keys = words ^ (words >> _SHIFTS[2])
    return mixed
