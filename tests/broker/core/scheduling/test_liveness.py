"""A worker is found well, busy or hung by its beats and processor time in the seconds that the broker ran."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.scheduling.liveness import (
    CRASH_LOOP_STAGES,
    WELL_AFTER,
    Liveness,
    ToKill,
)

HUNG, SILENCE = 15.0, 600.0


class Watch:
    """One worker that is checked every second."""

    def __init__(self, *, ready: bool = True) -> None:
        self.now = 100.0
        self.cpu = 5.0
        self.liveness = Liveness(hung=HUNG, silence=SILENCE, interval=1.0, now=self.now)
        self.liveness.started("w", self.now)
        if ready:
            self.liveness.ready("w", 1.0)

    def pass_time(self, seconds: int, *, beats: bool = False, works: bool = False) -> list[ToKill]:
        to_kill = []
        for _ in range(seconds):
            self.now += 1.0
            self.cpu += works * 0.9
            if beats:
                self.liveness.heard("w")
            to_kill += self.liveness.check({"w": self.cpu}, self.now)
        return to_kill


def test_a_worker_that_beats_is_well_however_little_it_works() -> None:
    assert Watch().pass_time(10_000, beats=True) == []


def test_a_worker_that_works_without_a_beat_is_busy() -> None:
    watch = Watch()
    assert watch.pass_time(599, works=True) == []
    assert watch.pass_time(1, beats=True) == []
    assert watch.pass_time(598, works=True) == []


def test_a_worker_without_a_beat_and_without_work_is_hung() -> None:
    watch = Watch()
    watch.pass_time(1)  # the first check measures the processor time
    assert watch.pass_time(14) == []
    (to_kill,) = watch.pass_time(1)
    assert to_kill.worker_id == "w"
    assert to_kill.reason == "it was killed: no beat and no processor time for 15 s"
    assert watch.pass_time(10_000) == [], "it is killed once"


def test_a_busy_worker_that_stops_working_is_hung_so_much_later() -> None:
    watch = Watch()
    assert watch.pass_time(60, works=True) == []
    assert watch.pass_time(14) == []
    assert len(watch.pass_time(1)) == 1


def test_a_worker_in_an_endless_call_is_tolerated_for_a_bounded_time() -> None:
    watch = Watch()
    assert watch.pass_time(599, works=True) == []
    (to_kill,) = watch.pass_time(1, works=True)
    assert "without a beat for 600 s" in to_kill.reason
    assert "worker_silence_ms" in to_kill.reason


def test_a_worker_that_hangs_before_it_is_ready_is_found() -> None:
    watch = Watch(ready=False)
    assert watch.pass_time(100, works=True) == [], "it compiles, and cannot beat yet"
    assert len(watch.pass_time(15)) == 1


def test_slow_beats_are_waited_for() -> None:
    watch = Watch()
    watch.liveness.ready("w", 10.0)
    watch.pass_time(1)
    assert watch.pass_time(29) == []
    assert len(watch.pass_time(1)) == 1


def test_a_worker_without_a_measured_processor_time_counts_as_working() -> None:
    watch = Watch()
    for _ in range(599):
        watch.now += 1.0
        assert watch.liveness.check({}, watch.now) == []


@pytest.mark.parametrize("away", [60.0, 100_000.0])
def test_seconds_in_which_the_broker_was_suspended_do_not_count(away: float) -> None:
    watch = Watch()
    watch.pass_time(10)
    watch.now += away
    assert watch.pass_time(1) == [], "the broker was suspended, not the worker"
    assert watch.liveness.of("w").silent <= 12.0


def test_a_restarted_worker_has_no_silence_from_before() -> None:
    watch = Watch()
    watch.pass_time(20)
    watch.liveness.ended("w", "killed by signal 9", 0, watch.now, watch.now)
    assert watch.pass_time(1000) == [], "an ended worker is not watched"
    watch.liveness.started("w", watch.now)
    watch.liveness.ready("w", 1.0)
    watch.cpu = 0.0
    watch.pass_time(1)
    assert watch.pass_time(14) == []
    assert len(watch.pass_time(1)) == 1
    assert watch.liveness.of("w").restarts == 1


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 1.0, 2.0, 500.0]), st.booleans(), st.sampled_from([0.0, 0.0, 0.01, 0.9])),
        max_size=60,
    )
)
def test_no_worker_is_killed_that_beat_or_worked_lately(steps: list[tuple[float, bool, float]]) -> None:
    watch = Watch()
    since = 0.0  # at most so many watched seconds since a beat or work
    for gap, beats, works in steps:
        watch.now += gap
        watch.cpu += works
        if beats:
            watch.liveness.heard("w")
        to_kill = watch.liveness.check({"w": watch.cpu}, watch.now)
        since = 0.0 if works else since + min(gap, 2.0)
        if beats:
            since = min(since, min(gap, 2.0))
        if since < HUNG:
            assert to_kill == []


# --- crash loops ---


def test_a_crash_loop_is_reported_once_a_stage() -> None:
    watch = Watch()
    reported = {}
    for early_exits in range(1, 50):
        if error := watch.liveness.ended("w", "exit code 1", early_exits, watch.now + 10.0, watch.now):
            reported[early_exits] = error
        watch.liveness.started("w", watch.now)
    assert tuple(reported) == CRASH_LOOP_STAGES
    assert "w has ended 4 times in a row within 10 s of its start, the last time: exit code 1" in reported[4]
    assert "started again after 10.0 s; " in reported[4]
    assert "started again after 10.0 s from now on" in reported[8]


def test_a_crash_loop_ends_when_a_worker_keeps_running() -> None:
    watch = Watch()
    watch.liveness.ended("w", "exit code 1", 3, watch.now + 0.8, watch.now)
    health = watch.liveness.of("w")
    assert not health.crash_loops(watch.now)
    watch.liveness.ended("w", "exit code 1", 4, watch.now + 0.8, watch.now)
    assert health.crash_loops(watch.now)
    watch.liveness.started("w", watch.now + 0.8)
    assert health.crash_loops(watch.now + 0.8 + WELL_AFTER - 0.1)
    assert not health.crash_loops(watch.now + 0.8 + WELL_AFTER)
    watch.liveness.ended("w", "exit code 1", 0, watch.now + 20, watch.now + 20)
    assert not health.crash_loops(watch.now + 20)
