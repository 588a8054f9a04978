"""Count the workers that a job loses, and take what its workers say of its checkpoints.

A worker that goes on from a checkpoint finds there which bars have ended the workers before it, if they did: two of
them are enough, and the job fails (`CostWorkers`). So a worker that is killed from outside costs a job nothing but the
work since its last checkpoint. The count here is the bound for all other losses, as of workers that end while they read
the bars, without a checkpoint between that was further on. It is lower for workers that ended by themselves than for
those that were killed.
"""

from __future__ import annotations

from array import array

from backtestr_broker.core.outbox import Outbox
from backtestr_protocol import topics
from backtestr_protocol.errors import ValidationError, WorkersLost
from backtestr_protocol.worker_channel import Checkpointed, Continued, CostWorkers

from .jobs import MAX_KILLED, MAX_LOSSES, Job


def count_loss(job: Job, reason: str, *, counts: bool, killed: bool) -> None:
    """Note the loss of a worker that had a job, which `counts` if it worked on it."""
    job.lost_reason = reason
    job.losses += counts
    job.killed += counts and killed


def has_lost_too_many(job: Job) -> bool:
    """Return whether a job has lost more workers than it may without a further checkpoint."""
    return job.losses - job.killed > MAX_LOSSES or job.killed > MAX_KILLED


def take_checkpoint(job: Job, message: Checkpointed) -> None:
    """Take that a job has a checkpoint: one that is further on than all before it ends the count of losses."""
    if message.bars > job.bars_stored:
        job.bars_stored = message.bars
        job.losses = job.killed = 0


def go_on(outbox: Outbox, job: Job, message: Continued) -> None:
    """Have the topics of a job of an earlier broker go on from the numbers in its checkpoint.

    Raises `ValidationError` where something was published on them already, or for other topics.
    """
    if not job.unnumbered:
        raise ValidationError(
            f"{job.worker_id} goes on with the topics of {job.backtest_id}, which have numbers already"
        )
    of_job = topics.of_backtest(job.backtest_id)
    if unknown := sorted(message.numbers.keys() - set(of_job)):
        raise ValidationError(
            f"{job.worker_id} goes on with {unknown[0][:200]!r}, which is no topic of {job.backtest_id}"
        )
    for topic, seq in message.numbers.items():
        if seq:
            outbox.sequencer.skip(topic, seq)
    job.unnumbered = False
    job.progress_at = array("q", message.progress_at)
    job.progress_percent = max(job.progress_percent, message.progress_percent or 0.0)


def too_many(job: Job, reason: str) -> WorkersLost:
    """Return the error of a job that has lost too many workers without a further checkpoint between."""
    where = "before its first bar" if job.bars_stored <= 0 else f"behind the first {job.bars_stored:,} of its bars"
    return WorkersLost(
        f"backtest {job.backtest_id} has lost {job.losses} workers {where}, one after the other and without going on; "
        f"the last one ended: {reason}",
        fromBar=max(job.bars_stored, 0),
    )


def cost_two(job: Job, message: CostWorkers) -> WorkersLost:
    """Return the error of a job of which the same bars have ended two workers."""
    first, last = message.first_bar, message.stop_bar - 1
    if first <= last:
        where = f"its bars {first:,} to {last:,}" if first < last else f"its bar {first:,}"
        details = {"fromBar": first, "toBar": last}
    else:
        where, details = ("its end, after its last bar", {"fromBar": first}) if first else ("its algorithm", {})
        where += "" if first else ", before its first bar"
    ended = "" if job.lost_reason is None else f"; the last one ended: {job.lost_reason}"
    return WorkersLost(f"backtest {job.backtest_id} has cost two workers at {where}{ended}", **details)
