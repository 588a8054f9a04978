"""Adaptive tuning: settings change in the right direction, stay within their bounds, and settle."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.publishing.adaptive_tuning import WORTH_IT, Measured, Tuner, tuned
from backtestr_engine.publishing.batching import BatchOptions, Setting, default_setting
from engine.publishing.test_batching import options
from support.engine.batches import batcher, numbers

OPTIONS = BatchOptions(
    min_messages=10,
    max_messages=1000,
    target_latency_ms=2.0,
    max_wait_ms=20.0,
    compression_bytes=1,
    priority="real_time",
)
MIDDLE = Setting(100, 8.0)


def measured(**changes: Any) -> Measured:
    return Measured(**{"latency_ms": 3.0, "backlog": 0.0, "backlog_before": 0.0, "cpu_percent": 50.0, **changes})


def test_busy_processors_make_batches_larger_and_later() -> None:
    assert tuned(MIDDLE, OPTIONS, measured(cpu_percent=80.1)) == Setting(150, 12.0)
    assert tuned(MIDDLE, OPTIONS, measured(cpu_percent=80.0)) == MIDDLE


def test_a_growing_backlog_makes_batches_larger_and_later() -> None:
    assert tuned(MIDDLE, OPTIONS, measured(backlog=0.5, backlog_before=0.2)) == Setting(150, 12.0)
    assert tuned(MIDDLE, OPTIONS, measured(backlog=0.5, backlog_before=0.5)) == MIDDLE
    assert tuned(MIDDLE, OPTIONS, measured(backlog=0.05)) == MIDDLE, "a few messages are no backlog"


def test_lateness_makes_batches_smaller_and_earlier() -> None:
    assert tuned(MIDDLE, OPTIONS, measured(latency_ms=4.1)) == Setting(67, 8.0 / 1.5)
    assert tuned(MIDDLE, OPTIONS, measured(latency_ms=4.0)) == MIDDLE


def test_load_counts_before_lateness() -> None:
    """Messages that are late because they wait for their sending arrive sooner in larger batches."""
    assert tuned(MIDDLE, OPTIONS, measured(latency_ms=100.0, cpu_percent=90.0)) == Setting(150, 12.0)


@given(options, st.data())
def test_a_setting_stays_within_its_bounds_and_moves_by_a_tenth_or_not_at_all(
    chosen: BatchOptions, data: st.DataObject
) -> None:
    setting = default_setting(chosen)
    for _ in range(20):
        before = setting
        seen = measured(
            latency_ms=data.draw(st.floats(0, 100)),
            backlog=data.draw(st.floats(0, 1)),
            backlog_before=data.draw(st.floats(0, 1)),
            cpu_percent=data.draw(st.floats(0, 100)),
        )
        setting = tuned(before, chosen, seen)
        assert chosen.min_messages <= setting.messages <= chosen.max_messages
        assert chosen.target_latency_ms <= setting.wait_ms <= chosen.max_wait_ms
        if setting != before:
            by = (abs(setting.messages / before.messages - 1), abs(setting.wait_ms / before.wait_ms - 1))
            assert max(by) > WORTH_IT


@given(options, st.sampled_from([{"cpu_percent": 99.0}, {"latency_ms": 1e6}]))
def test_under_a_steady_load_settings_settle(chosen: BatchOptions, load: dict[str, float]) -> None:
    setting = default_setting(chosen)
    for _ in range(40):
        setting = tuned(setting, chosen, measured(**load))
    assert tuned(setting, chosen, measured(**load)) == setting


def test_a_class_without_messages_keeps_its_setting() -> None:
    one = batcher(orders=OPTIONS, positions=OPTIONS)
    tuner = Tuner(one)
    one.add("orders.b", numbers(0, 1), 0.0)
    one.take(1.0)
    tuner.step(backlog=0.0, cpu_percent=10.0, sending_ms=0.0)
    assert one.setting("orders").messages < OPTIONS.max_messages, "it waited a second"
    assert one.setting("positions") == default_setting(OPTIONS)
    at_rest = one.setting("orders")
    tuner.step(backlog=0.0, cpu_percent=10.0, sending_ms=0.0)
    assert one.setting("orders") == at_rest
