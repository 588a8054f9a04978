"""Adaptive batching: a class's setting follows what is measured of its publishing, within the class's bounds.

    larger and later     when the processors are busy, or what waits to be sent grows: a batch costs its reader and
                         its broker the same few dozen microseconds, whatever it holds
    smaller and earlier  when messages wait more than twice as long as their class aims at, and nothing else is short

A step is taken only where it changes something by more than a tenth: otherwise settings would never come to rest.
"""

from __future__ import annotations

import msgspec

from .batching import Batcher, BatchOptions, Setting

# Of the machine's processors, in percent.
BUSY_CPU_PERCENT = 80.0
# Of what may wait to be sent: growth below this is the coming and going of a few messages.
NOTABLE_BACKLOG = 0.1
# Messages that wait longer than so many times their class's target wait too long.
LATE = 2.0
# How far one step goes. Half again: ten steps from one message to fifty, and no swinging between extremes.
STEP = 1.5
# What a step has to change to be taken.
WORTH_IT = 0.1


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen since the last step: how long the oldest message of a batch waited, in ms, until it was sent; of
    what may wait to be sent, the part that does, and did at the step before; the machine's load."""

    latency_ms: float
    backlog: float
    backlog_before: float
    cpu_percent: float


def tuned(setting: Setting, options: BatchOptions, measured: Measured) -> Setting:
    """The setting to go on with: `setting` itself where nothing, or too little, is to be gained."""
    growing = measured.backlog > NOTABLE_BACKLOG and measured.backlog > measured.backlog_before
    if measured.cpu_percent > BUSY_CPU_PERCENT or growing:
        factor = STEP
    elif measured.latency_ms > LATE * options.target_latency_ms:
        factor = 1 / STEP
    else:
        return setting
    # A wait below the target gains nothing that anyone has asked for.
    earliest = min(options.target_latency_ms, setting.wait_ms)
    wanted = Setting(
        messages=int(_within(round(setting.messages * factor), options.min_messages, options.max_messages)),
        wait_ms=_within(setting.wait_ms * factor, earliest, options.max_wait_ms),
    )
    change = max(abs(wanted.messages / setting.messages - 1), abs(wanted.wait_ms / setting.wait_ms - 1))
    return wanted if change > WORTH_IT else setting


class Tuner:
    """Has a batcher's settings follow the load, a step at a time."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._backlog = 0.0
        self._batches = dict.fromkeys(batcher.classes, 0)

    def step(self, *, backlog: float, cpu_percent: float, sending_ms: float) -> None:
        """`sending_ms`: how long batches waited lately after the batcher. A class that nothing was published of since
        the last step stays as it is: of it nothing was measured."""
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
