"""A sweep moves along its table, and says how far it is."""

from __future__ import annotations

import msgspec
import pytest

from backtestr_broker.core.scheduling.sweeps import TRANSITIONS, Sweep, Sweeps, restored_sweep
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import NotFound, StateConflict
from backtestr_protocol.sweep_messages import MAX_LIVE_CELLS, SweepBest
from backtestr_protocol.sweep_tasks import BlockDone, CheckedSweep, SurveyedSweep
from support.broker.sweep_steps import UNITS, checked, request


def made(sweep_id: str = "s1", units: int = UNITS, **changes: object) -> Sweep:
    found = decode(_decoder, checked(encode(request(sweep_id, **changes)), units))
    return Sweep(sweep_id, found, ("ann", sweep_id), "asked", 1)


def done(first: int, count: int, best: float | None = None, cell: int = 0) -> BlockDone:
    row = None if best is None else SweepBest(cell=cell, value=best, parameters={"fast": cell})
    return BlockDone(first=first, count=count, rows=count, failed=0, seconds=0.1, best=row)


def finish(sweep: Sweep, best: float, cell: int, now: float = 1.0) -> None:
    block = sweep.blocks.take("w")
    sweep.block_done("w", done(block.first, block.count, best, cell), now)


def test_the_best_row_does_not_depend_on_the_order_of_blocks() -> None:
    for order in ([(1.0, 9), (2.0, 7), (2.0, 3)], [(2.0, 3), (2.0, 7), (1.0, 9)], [(2.0, 7), (2.0, 3), (1.0, 9)]):
        sweep = made(blockSize=10)
        for value, cell in order:
            finish(sweep, value, cell)
        assert sweep.figures.best is not None
        assert (sweep.figures.best.value, sweep.figures.best.cell) == (2.0, 3)


def test_the_lowest_value_is_best_where_it_is_to_be_minimized() -> None:
    sweep = made(blockSize=10, direction="minimize")
    for value, cell in ((3.0, 1), (-1.0, 2), (0.0, 3)):
        finish(sweep, value, cell)
    assert sweep.figures.best is not None
    assert sweep.figures.best.value == -1.0


def test_rate_and_time_left_are_those_of_the_latest_blocks() -> None:
    sweeps, sweep = Sweeps(), made(blockSize=100)
    sweeps.add(sweep)
    sweeps.change(sweep, "started", 2)
    for now in (10.0, 11.0, 12.0):
        finish(sweep, 1.0, 1, now)
    status = sweep.status_message(12.0, workers=1)
    assert status.rate == 100.0
    assert status.time_left_ms == 7_000
    assert status.progress_percent == pytest.approx(30.0)
    sweeps.change(sweep, "paused", 3)
    assert sweep.status_message(20.0, workers=1).rate is None
    sweeps.check_invariants()


@pytest.mark.parametrize("event", ["started", "paused", "resumed", "stopped", "failed"])
def test_a_completed_sweep_stays_as_it_is(event: str) -> None:
    sweeps, sweep = Sweeps(), made()
    sweeps.add(sweep)
    sweeps.change(sweep, "completed", 5)
    with pytest.raises(StateConflict, match="completed"):
        sweeps.change(sweep, event, 6)  # type: ignore[arg-type]  # every name of an event
    assert sweep.end_time == 5


def test_a_failed_sweep_can_go_on_and_its_end_is_forgotten() -> None:
    sweeps, sweep = Sweeps(), made()
    sweeps.add(sweep)
    sweeps.change(sweep, "failed", 5)
    assert not sweeps.has_work()
    sweeps.change(sweep, "resumed", 6)
    assert (sweep.status, sweep.end_time) == ("queued", None)
    assert sweeps.next() is sweep
    sweeps.check_invariants()


def test_sweeps_take_turns() -> None:
    sweeps = Sweeps()
    for name in ("a", "b", "c"):
        sweeps.add(made(name))
    order = [found.sweep_id for _ in range(6) if (found := sweeps.next()) is not None]
    assert order == ["a", "b", "c", "a", "b", "c"]


def test_a_record_gives_the_sweep_again_which_is_to_be_surveyed() -> None:
    sweeps, sweep = Sweeps(), made(blockSize=100)
    sweeps.add(sweep)
    sweeps.change(sweep, "started", 2)
    finish(sweep, 1.5, 4)
    again = restored_sweep(sweep.record())
    assert (again.status, again.start_time, again.asked) == ("queued", 2, "asked")
    assert again.figures == sweep.figures
    assert not again.is_surveyed
    assert again.status_message(1.0, 1).progress_percent == pytest.approx(10.0)
    again.surveyor = "w"
    again.surveyed(SurveyedSweep(done=[(0, 100), (300, 50)], rows=150, failed=2, seconds=3.0))
    assert again.blocks.units_left == UNITS - 150
    assert (again.figures.done, again.figures.failed) == (150, 2)


def test_a_large_space_names_some_of_its_cells_in_progress() -> None:
    assert made(units=MAX_LIVE_CELLS).stride == 1
    assert made(units=MAX_LIVE_CELLS + 1).stride == 2


def test_an_unknown_sweep_is_named_with_its_near_miss() -> None:
    sweeps = Sweeps()
    sweeps.add(made("morning"))
    with pytest.raises(NotFound, match="did you mean 'morning'"):
        sweeps.get("mornin")


def test_every_arrow_of_the_table_ends_in_a_known_status() -> None:
    assert {status for status, _ in TRANSITIONS} | set(TRANSITIONS.values()) == {
        *("queued", "running", "paused", "completed", "failed", "stopped")
    }


_decoder: msgspec.msgpack.Decoder[CheckedSweep] = msgspec.msgpack.Decoder(CheckedSweep)
