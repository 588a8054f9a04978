"""Adaptive tuning of batches: the setting of a topic class follows measurements, within the bounds of the class.

    larger and later     when the processors are busy, or the unsent messages grow: a batch costs its reader and its
                         broker the same few dozen microseconds, whatever it holds
    smaller and earlier  when messages wait more than twice the target latency of their class, and there is no load

A step is taken only if it changes something by more than a tenth: otherwise settings would never settle.
"""

from __future__ import annotations

import msgspec

from .batching import Batcher, BatchOptions, Setting

# Load of the machine's processors, in percent.
BUSY_CPU_PERCENT = 80.0
# A fraction of the bound of unsent messages: growth below this is that of a few messages.
NOTABLE_BACKLOG = 0.1
# Messages are late when they wait longer than this many times the target of their class.
LATE = 2.0
# The factor of one step: ten steps lead from one message to fifty, and settings do not swing between extremes.
STEP = 1.5
# The least relative change for which a step is taken.
WORTH_IT = 0.1


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The measurements since the last step.

    `latency_ms` is how long the oldest message of a batch waited until it was sent. `backlog` is the used fraction of
    the bound of unsent messages, `backlog_before` that of the step before. `cpu_percent` is the load of the machine.
    """

    latency_ms: float
    backlog: float
    backlog_before: float
    cpu_percent: float


def tuned(setting: Setting, options: BatchOptions, measured: Measured) -> Setting:
    """Return the next setting, or `setting` itself where nothing or too little would change."""
    growing = measured.backlog > NOTABLE_BACKLOG and measured.backlog > measured.backlog_before
    if measured.cpu_percent > BUSY_CPU_PERCENT or growing:
        factor = STEP
    elif measured.latency_ms > LATE * options.target_latency_ms:
        factor = 1 / STEP
    else:
        return setting
    # A wait below the target has no use.
    earliest = min(options.target_latency_ms, setting.wait_ms)
    wanted = Setting(
        messages=int(_within(round(setting.messages * factor), options.min_messages, options.max_messages)),
        wait_ms=_within(setting.wait_ms * factor, earliest, options.max_wait_ms),
    )
    change = max(abs(wanted.messages / setting.messages - 1), abs(wanted.wait_ms / setting.wait_ms - 1))
    return wanted if change > WORTH_IT else setting


class Tuner:
    """The tuner of a batcher: its settings follow the load, one step at a time."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._backlog = 0.0
        self._batches = dict.fromkeys(batcher.classes, 0)

    def step(self, *, backlog: float, cpu_percent: float, sending_ms: float) -> None:
        """Tune every class that published since the last step; of the others nothing was measured.

        `sending_ms` is how long recent batches waited between the batcher and their sending.
        """
        batcher = self._batcher
        for name in batcher.classes:
            if batcher.batches(name) == self._batches[name]:
                continue
            self._batches[name] = batcher.batches(name)
            measured = Measured(
                latency_ms=1000 * batcher.latency(name) + sending_ms,
                backlog=backlog,
                backlog_before=self._backlog,
                cpu_percent=cpu_percent,
            )
            batcher.set(name, tuned(batcher.setting(name), batcher.options(name), measured))
        self._backlog = backlog


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
