"""Take the stream messages of backtests, and count those that another worker would make again.

A backtest whose worker is lost goes on from its last checkpoint, or runs again from its start, and its orders,
positions and prices are the same again. Its progress and its marks to market follow the clock: so the next worker is
told at which bars the former made them. It makes the messages behind the checkpoint again, and leaves out as many as
were published.
"""

from __future__ import annotations

from backtestr_broker.core.outbox import Outbox
from backtestr_protocol import topics
from backtestr_protocol.errors import ValidationError
from backtestr_protocol.worker_channel import MAX_PROGRESS, Counted, Published

from .jobs import Job, Jobs
from .workers import Worker


def publish(outbox: Outbox, jobs: Jobs, worker: Worker, message: Published, payload: list[bytes]) -> None:
    """Publish what a worker sent: on a topic of a backtest that it has, or prices.

    Raises `ValidationError` for anything else, and then changes nothing.
    """
    topic, backtest_id = message.topic, ""
    if is_of_prices := topic.startswith("prices."):
        is_own = topics.class_of(topic) is not None
    else:
        backtest_id = topic.partition(".")[2]
        is_own = worker.holds(backtest_id) and topic in topics.of_backtest(backtest_id)
    has_task = message.task_id is None or worker.holds(message.task_id)
    if worker.kind != "compute" or not has_task or not is_own:
        raise ValidationError(f"{worker.worker_id} published on {topic[:200]!r}, which is not its own")
    if len(payload) != 1:
        raise ValidationError(f"{worker.worker_id} published {message.count} messages in {len(payload)} frames")
    outbox.publish(topic, payload[0], message.count)
    if is_of_prices:
        if (shown_by := message.task_id or worker.task_id) is None:
            return
        published = jobs.get(shown_by).prices_published
        published[topic] = published.get(topic, 0) + message.count
    else:
        job = jobs.get(backtest_id)
        job.unnumbered = False
        _advance(job, message.progress_percent)


def count(outbox: Outbox, jobs: Jobs, worker: Worker, message: Counted) -> None:
    """Give numbers to the messages of a backtest that its worker has counted, and note at which bars it makes progress.

    Raises `ValidationError` for those of another, and for more progress than there can be, and then changes nothing.
    """
    backtest_id = message.task_id
    if worker.kind != "compute" or not worker.holds(backtest_id):
        raise ValidationError(f"{worker.worker_id} counted messages of {backtest_id[:200]!r}, which it does not hold")
    if foreign := message.counts.keys() - set(topics.of_backtest(backtest_id)):
        raise ValidationError(f"{worker.worker_id} counted messages on {min(foreign)[:200]!r}, which is not its own")
    job = jobs.get(backtest_id)
    if len(job.progress_at) + len(message.progress_at) > MAX_PROGRESS:
        raise ValidationError(f"{worker.worker_id} made progress {MAX_PROGRESS} times, the most there can be")
    job.unnumbered = False
    job.progress_at.extend(message.progress_at)
    for topic, messages in message.counts.items():
        outbox.skip(topic, messages)
    _advance(job, message.progress_percent)


def _advance(job: Job, percent: float | None) -> None:
    if percent is not None:
        job.progress_percent = max(job.progress_percent, percent)


def published_before(outbox: Outbox, job: Job) -> dict[str, int]:
    """Return by topic how many messages of `job` were published that another worker would make again."""
    counts = {topic: outbox.sequencer.last_seq(topic) for topic in topics.of_backtest(job.backtest_id)}
    return job.prices_published | counts
