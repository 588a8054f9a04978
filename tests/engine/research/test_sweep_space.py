"""Laws of the space of a sweep: counted, addressed and tiled by arithmetic as if every combination were listed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.algorithms.algorithm import algorithm
from backtestr_engine.algorithms.parameters import Bool, Float, Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.bars import Bars
from backtestr_engine.research import sweep_space
from backtestr_engine.research.sweep_space import MAX_CELLS, Points, Space, Steps, Values, space_of
from backtestr_protocol.errors import InvalidConfiguration, ValidationError

SMA = BUILT_IN["sma_cross"]


@algorithm(
    "of_all_kinds",
    length=Int(5, low=1, high=1_000_000),
    level=Float(0.5, low=0.0, high=2.0),
    both=Bool(True),
    requires=["level < length"],
)
def of_all_kinds(bars: Bars, length: int, level: float, both: bool) -> Signals:
    """Nothing."""
    return Signals.of(entries=bars.close > length * level)


def test_a_space_is_what_python_s_product_lists() -> None:
    space = space_of(of_all_kinds, {"both": [True, False], "length": range(1, 8, 3), "level": [0.5, 0.25]})
    listed = [
        {"both": both, "length": length, "level": level}
        for both, length, level in itertools.product([True, False], [1, 4, 7], [0.5, 0.25])
    ]
    assert space.cells == len(listed) == 12
    assert [space.values(cell) for cell in range(12)] == listed
    found = space.combinations(0, 100)
    assert [found.at(row) for row in range(len(found))] == listed
    assert [type(value) for value in found.at(0).values()] == [bool, int, float]


axes = st.tuples(
    st.lists(st.integers(2, 30), min_size=1, max_size=7, unique=True), st.integers(3, 40), st.integers(1, 9)
)
constraints = st.sampled_from(
    [None, "slow - fast > 4", "fast + slow < 40 or fast == 2", "slow % 3 == 0", "fast <= slow"]
)


@given(axes, constraints, st.lists(st.integers(1, 20), max_size=30))
def test_blocks_of_any_size_cover_a_space_once(
    drawn: tuple[list[int], int, int], where: str | None, sizes: list[int]
) -> None:
    fast, slow, count = drawn
    space = space_of(SMA, {"fast": fast, "slow": range(slow, slow + 3 * count, 3)}, where=where)
    whole = space.combinations(0, space.cells)
    python = {"abs": abs}
    expected = [
        cell
        for cell in range(space.cells)
        if all(eval(text, python, dict(space.values(cell))) for text in (where or "True", "fast < slow"))
    ]
    assert whole.cells.tolist() == expected
    if expected:
        counted = space.count()
        assert (counted.admissible, counted.exact) == (len(expected), True)
    else:
        with pytest.raises(InvalidConfiguration, match="no combination of"):
            space.count()

    bounds = np.cumsum([0, *sizes, space.cells])
    parts = [space.combinations(int(first), int(end - first)) for first, end in itertools.pairwise(bounds)]
    assert np.concatenate([part.cells for part in parts]).tolist() == expected
    for name in ("fast", "slow"):
        assert np.concatenate([part.columns[name] for part in parts]).tolist() == whole.columns[name].tolist()


def test_a_billion_cells_are_counted_and_addressed_without_being_made() -> None:
    space = space_of(of_all_kinds, {"length": range(1, 1_000_001), "level": {"low": 0, "high": 0.999, "step": 0.001}})
    assert space.cells == 10**9
    assert space.values(10**9 - 1) == {"length": 1_000_000, "level": 0.999, "both": True}
    block = space.combinations(10**9 - 3, 10)
    assert block.columns["level"].tolist() == [0.997, 0.998, 0.999]
    assert (Space(space.axes, space.fixed).count().admissible, Space(space.axes, space.fixed).count().exact) == (
        10**9,
        True,
    )


def test_what_constraints_do_not_name_is_counted_by_arithmetic() -> None:
    macd = BUILT_IN["macd"]
    space = space_of(macd, {"fast": range(2, 500), "slow": range(3, 1000), "signal": range(2, 501)})
    count = space.count()
    assert count.exact
    assert count.admissible == sum(max(0, 999 - max(fast, 2)) for fast in range(2, 500)) * 499
    assert str(count) == f"{count.admissible:,} of {space.cells:,} combinations"


def test_more_cells_than_are_counted_are_sampled_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of(SMA, {"fast": range(2, 500), "slow": range(3, 1000)})
    exact = space.count().admissible
    monkeypatch.setattr(sweep_space, "COUNTED_EXACTLY", 1000)
    sampled = space.count()
    assert (sampled.exact, sampled.sampled) == (False, 200_000)
    assert sampled.admissible == pytest.approx(exact, rel=0.01)
    assert str(sampled).startswith("about ")


def test_steps_are_decimal() -> None:
    space = space_of(BUILT_IN["bollinger_reversion"], {"deviations": {"low": 0.1, "high": 0.7, "step": 0.1}})
    assert space.combinations(0, 9).columns["deviations"].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_a_space_survives_the_wire() -> None:
    space = space_of(SMA, {"fast": range(5, 9), "slow": [20, 30]}, where="slow < 10 * fast")
    assert space.axes == {"fast": Steps(5, 1, 4), "slow": Values((20, 30))}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(space), type=Space) == space


@pytest.mark.parametrize(
    ("given_space", "more", "kind", "said"),
    [
        ({}, {}, InvalidConfiguration, r"the space is empty: name parameters of sma_cross .*'fast': range\(2, 22\)"),
        ({"fats": [3]}, {}, ValidationError, r"unknown parameter 'fats' of sma_cross; did you mean 'fast'\?"),
        ({"fast": range(9, 9)}, {}, ValidationError, "has no value"),
        ({"fast": []}, {}, ValidationError, "the space of fast is empty"),
        ({"fast": [1, 5]}, {}, ValidationError, r"must be a whole number within 2\.\.500, not 1"),
        ({"fast": range(2, 502)}, {}, ValidationError, "not 501"),
        ({"fast": {"low": 2, "high": 9, "step": 0.5}}, {}, ValidationError, "not 2.5"),
        ({"fast": {"low": 2, "high": 9}}, {}, ValidationError, "'low': …, 'high': …, 'step': …"),
        ({"fast": {"low": 9, "high": 2, "step": 1}}, {}, ValidationError, "from low up to high"),
        ({"fast": {"low": 2, "high": 9, "step": float("nan")}}, {}, ValidationError, "finite numbers"),
        ({"fast": "5"}, {}, ValidationError, "not '5'"),
        ({"fast": [5, 6, 5]}, {}, ValidationError, "has 5 more than once"),
        ({"fast": [5]}, {"fixed": {"fast": 6}}, InvalidConfiguration, "both swept and fixed"),
        ({"fast": [5]}, {"fixed": {"slow": 2}}, ValidationError, "must be a whole number within"),
        ({"fast": [5]}, {"where": "fats > 3"}, ValidationError, "did you mean 'fast'"),
        (
            {"fast": [50], "slow": [20, 30]},
            {},
            InvalidConfiguration,
            r"'fast < slow' leaves no combination of 2 \(fast: 50;",
        ),
        ({"fast": [5], "slow": [20]}, {"where": "slow > 90"}, InvalidConfiguration, "'slow > 90' leaves no"),
        (
            {"fast": [5, 9], "slow": [7, 20]},
            {"where": "slow < 9 and fast > 5"},
            InvalidConfiguration,
            "'slow < 9 and fast > 5' and 'fast < slow' together leave no combination of 4",
        ),
    ],
)
def test_a_space_that_cannot_be_says_what_to_mend(
    given_space: Mapping[str, Any], more: Mapping[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        space_of(SMA, given_space, **more).count()


def test_too_many_cells_are_refused() -> None:
    huge = {"length": range(1, 1_000_001), "level": {"low": 0, "high": 2, "step": 1e-10}}
    with pytest.raises(InvalidConfiguration, match="more than 1,000,000,000,000,000: take fewer values"):
        space_of(of_all_kinds, huge)


def test_cells_outside_of_the_space_are_no_cells() -> None:
    space = space_of(SMA, {"fast": [5, 6]})
    for cell in (-1, 2):
        with pytest.raises(IndexError):
            space.values(cell)
    assert len(space.combinations(2, 5)) == 0
    with pytest.raises(IndexError):
        space.combinations(-1, 5)


def test_any_cells_in_any_order_are_the_combinations_of_the_whole() -> None:
    space = space_of(of_all_kinds, {"length": range(1, 8), "level": [0.5, 3.0 / 2.0, 0.25]}, where="length != 3")
    whole = space.combinations(0, space.cells)
    cells = np.array([20, 3, 3, 6, 0, 11])
    found = space.at(cells)
    kept = [cell for cell in cells.tolist() if cell in whole.cells]
    assert 6 not in kept, "length is 3 there"
    assert found.cells.tolist() == kept
    assert space.admissible(cells).tolist() == [cell in kept for cell in cells.tolist()]
    for row, cell in enumerate(kept):
        assert found.at(row) == whole.at(whole.cells.tolist().index(cell))


@given(low=st.floats(0.0, 0.9), span=st.floats(1e-6, 1.0), kind=st.sampled_from(["uniform", "log_uniform"]))
def test_a_distribution_is_many_values_between_its_ends(low: float, span: float, kind: str) -> None:
    low, high = max(low, 1e-6), min(2.0, max(low, 1e-6) + span)
    space = space_of(of_all_kinds, {"level": {"low": low, "high": high, "distribution": kind}})
    values = space.combinations(0, space.cells, []).columns["level"]
    assert (values[0], values[-1], len(values)) == (low, high, 4_001)
    steps = np.diff(np.log(values) if kind == "log_uniform" else values)
    assert (np.diff(values) > 0).all()
    assert np.allclose(steps, steps.mean(), rtol=1e-2)
    assert [space.values(cell)["level"] for cell in (0, 17, 4_000)] == values[[0, 17, 4_000]].tolist()


def test_round_ends_have_round_values_between() -> None:
    space = space_of(of_all_kinds, {"level": {"low": 0.5, "high": 1.5, "distribution": "uniform"}})
    assert space.axes["level"].at(np.arange(4)).tolist() == [0.5, 0.50025, 0.5005, 0.50075]


def test_whole_numbers_of_a_distribution_are_every_one_or_2_percent_apart() -> None:
    even = space_of(of_all_kinds, {"length": {"low": 2, "high": 500, "distribution": "uniform"}})
    assert even.axes["length"] == Steps(2, 1, 499)
    [axis] = space_of(of_all_kinds, {"length": {"low": 2, "high": 900, "distribution": "log_uniform"}}).axes.values()
    assert isinstance(axis, Values)
    numbers = [int(one) for one in axis.values]
    assert numbers[:30] == list(range(2, 32))
    assert numbers[-1] == 900
    assert all(1 <= after - before <= max(1, 0.021 * before) for before, after in itertools.pairwise(numbers))


def test_distributions_have_fewer_values_where_the_space_would_be_too_large() -> None:
    names, level = list("abcdef"), Float(0.5, low=0.0, high=1.0)

    @algorithm("of_many", a=level, b=level, c=level, d=level, e=level, f=level)
    def of_many(bars: Bars, a: float, b: float, c: float, d: float, e: float, f: float) -> Signals:
        """Nothing."""
        return Signals.of(entries=bars.close > a + b + c + d + e + f)

    wide = {"low": 0.0, "high": 1.0, "distribution": "uniform"}
    for count in range(1, 7):
        space = space_of(of_many, dict.fromkeys(names[:count], wide))
        assert 1e13 < space.cells <= MAX_CELLS or count < 4
        assert len({len(axis) for axis in space.axes.values()}) == 1
    assert isinstance(space.axes["a"], Points)


@pytest.mark.parametrize(
    ("name", "given", "match"),
    [
        ("level", {"low": 0.1, "high": 1.0, "distribution": "log_unform"}, "did you mean 'log_uniform'"),
        ("level", {"low": 0.1, "distribution": "uniform"}, "a distribution is"),
        ("level", {"low": 0.1, "high": 1.0, "step": 0.1, "distribution": "uniform"}, "a distribution is"),
        ("level", {"low": 0.1, "high": "x", "distribution": "uniform"}, "finite numbers"),
        ("level", {"low": 1.0, "high": 1.0, "distribution": "uniform"}, "up to a higher number"),
        ("level", {"low": 0.0, "high": 1.0, "distribution": "log_uniform"}, "begins above 0"),
        ("level", {"low": 0.5, "high": 9.0, "distribution": "uniform"}, "level"),
        ("level", {"low": 1.0, "high": 1.0 + 1e-14, "distribution": "uniform"}, "too narrow"),
        ("both", {"low": 0, "high": 1, "distribution": "uniform"}, "true or false"),
        ("length", {"low": 1.5, "high": 9, "distribution": "uniform"}, "length"),
    ],
)
def test_a_distribution_that_is_none_is_refused_with_the_way_out(name: str, given: Any, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        space_of(of_all_kinds, {name: given})
