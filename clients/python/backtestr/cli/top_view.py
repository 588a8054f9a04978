"""The view of `backtestr top` shows the status of a broker, and the rates of its counters, as functions of two samples.

view(earlier, later, "ready")      # for a terminal
document(earlier, later, "ready")  # for a program, with `rates` a second
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backtestr.core.connection_state import ConnectionState
from backtestr_protocol.messages import BacktestStatus
from backtestr_protocol.system_status import ClassLoad, ClientLoad, SystemStatus, TopicLoad, WorkerStatus

# Rows of a table that fit a screen beside the other tables. The status has at most 20.
MOST_ROWS = 12
# Milliseconds by which the start of one broker may differ between two samples: a clock that is being set moves by less,
# and no two brokers start so soon one after the other.
_SAME_START_MS = 1_000
_HEALTH = {"healthy": "green", "warning": "yellow", "error": "red"}


class Sample(msgspec.Struct, frozen=True):
    """The status of the broker at one moment; `backtests` are those that run or are paused."""

    status: SystemStatus
    backtests: Sequence[BacktestStatus] = ()


class Rates(msgspec.Struct, frozen=True, rename="camel"):
    """Rates a second, by name; a counter that is new, or has begun again at 0, has none."""

    topics: Mapping[str, float]
    classes: Mapping[str, float]
    class_bytes: Mapping[str, float]
    clients: Mapping[str, float]
    refused: float | None  # for lack of a token, all clients together


def rates(earlier: Sample | None, later: Sample) -> Rates:
    """Return how fast the counters of both samples have grown; samples of two starts of the broker have no rates."""
    if earlier is None or not _is_later(earlier.status, later.status):
        return Rates({}, {}, {}, {}, None)
    seconds = (later.status.uptime_ms - earlier.status.uptime_ms) / 1000

    def grown(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, float]:
        return {
            name: (count - before[name]) / seconds
            for name, count in now.items()
            if name in before and count >= before[name]
        }

    return Rates(
        topics=grown(_topics(earlier), _topics(later)),
        classes=grown(
            {name: one.messages for name, one in _classes(earlier).items()},
            {name: one.messages for name, one in _classes(later).items()},
        ),
        class_bytes=grown(
            {name: one.bytes for name, one in _classes(earlier).items()},
            {name: one.bytes for name, one in _classes(later).items()},
        ),
        clients=grown(
            {one.client_id: one.requests for one in _clients(earlier)},
            {one.client_id: one.requests for one in _clients(later)},
        ),
        refused=grown({"": _hits(earlier)}, {"": _hits(later)}).get(""),
    )


def _is_later(earlier: SystemStatus, later: SystemStatus) -> bool:
    """Return True if both are of the same start of the broker, in this order.

    A restarted broker may be up for longer than the one before it was.
    """
    moved = (later.last_heartbeat - later.uptime_ms) - (earlier.last_heartbeat - earlier.uptime_ms)
    return later.uptime_ms > earlier.uptime_ms and abs(moved) <= _SAME_START_MS


def document(earlier: Sample | None, later: Sample | None, state: ConnectionState) -> dict[str, Any]:
    """Return one sample for a program; without a sample only the `state` of the connection."""
    if later is None:
        return {"state": state}
    return {"state": state, "status": later.status, "backtests": later.backtests, "rates": rates(earlier, later)}


def view(earlier: Sample | None, later: Sample | None, state: ConnectionState, note: str = "") -> RenderableType:
    """Draw one sample for people. `note`: the reason why nothing newer is shown, if so."""
    connection = Text(note or ("" if state == "ready" else f"{state}: what is shown is from before"), style="yellow")
    if later is None:
        return connection
    rate = rates(earlier, later)
    shown: list[RenderableType] = [connection] if connection else []
    shown += [_facts(later, rate), _workers(later.status.workers)]
    if later.backtests:
        shown.append(_backtests(later.backtests))
    if later.status.streams is not None:
        shown += [_of_topics(later.status.streams.per_topic, rate), _of_classes(_classes(later), rate)]
    if clients := _clients(later):
        shown.append(_of_clients(clients, rate))
    return Group(*shown)


def _facts(sample: Sample, rate: Rates) -> Table:
    status = sample.status
    facts = Table.grid(padding=(0, 2))
    minutes, seconds = divmod(status.uptime_ms // 1000, 60)
    facts.add_row("status", f"[{_HEALTH.get(status.status, 'red')}]{status.status}", "up", f"{minutes} min {seconds} s")
    for reason in status.reasons:
        facts.add_row("", f"[yellow]{escape(reason)}")
    memory = f"{status.memory_usage.used / 2**20:,.0f} MiB ({status.memory_usage.percentage:.1f} %)"
    facts.add_row("cpu", f"{status.cpu_usage:.1f} %", "memory", memory)
    waiting = f"{status.active_backtests} under way, {status.queued_requests} waiting"
    facts.add_row("loop lag", f"{status.loop_lag_ms:.1f} ms", "work", waiting)
    refused = f"{_hits(sample):,}" + ("" if rate.refused is None else f" ({rate.refused:,.1f}/s)")
    facts.add_row("clients", str(status.connected_clients), "throttled", refused)
    return facts


def _workers(workers: Iterable[WorkerStatus]) -> Table:
    table = _table("worker", "state", heard="heard of", restarts="restarts")
    for one in workers:
        table.add_row(one.worker_id, one.state, f"{one.last_seen_ms / 1000:.1f} s ago", str(one.restarts))
    return table


def _backtests(backtests: Sequence[BacktestStatus]) -> Table:
    table = _table("backtest", "status", "algorithm", "progress", done="")
    for one in backtests[:MOST_ROWS]:
        bar = ProgressBar(total=100.0, completed=one.progress_percent, width=20)
        done = f"{one.progress_percent:.0f} %"
        table.add_row(one.backtest_id, one.status, escape(one.algorithm_id), bar, done)
    _add_rest(table, len(backtests))
    return table


def _of_topics(topics: Sequence[TopicLoad], rate: Rates) -> Table:
    table = _table("topic", rate="messages/s", messages="messages", subscribers="subscribers")
    for one in topics[:MOST_ROWS]:
        table.add_row(escape(one.topic), _rate(rate.topics, one.topic), f"{one.messages:,}", f"{one.subscribers:,}")
    _add_rest(table, len(topics))
    return table


def _of_classes(classes: Mapping[str, ClassLoad], rate: Rates) -> Table:
    table = _table("class", rate="messages/s", size="kB/s", messages="messages", unheard="unheard", fetched="repaired")
    for name, one in classes.items():
        size = rate.class_bytes.get(name)
        table.add_row(
            name,
            _rate(rate.classes, name),
            "" if size is None else f"{size / 1000:,.1f}",
            *(f"{count:,}" for count in (one.messages, one.unheard, one.fetched)),
        )
    return table


def _of_clients(clients: Sequence[ClientLoad], rate: Rates) -> Table:
    table = _table(
        "client", rate="requests/s", requests="requests", pending="pending", queued="queued", throttled="throttled"
    )
    for one in clients[:MOST_ROWS]:
        counts = (one.requests, one.pending, one.queued, one.throttled)
        table.add_row(escape(one.client_id), _rate(rate.clients, one.client_id), *(f"{count:,}" for count in counts))
    _add_rest(table, len(clients))
    return table


def _table(*words: str, **figures: str) -> Table:
    """Return a table with columns of words, then of figures."""
    table = Table(*words)
    for name in figures.values():
        table.add_column(name, justify="right")
    return table


def _add_rest(table: Table, count: int) -> None:
    if count > MOST_ROWS:
        table.add_row(f"[dim]and {count - MOST_ROWS} more")


def _rate(known: Mapping[str, float], name: str) -> str:
    return f"{known[name]:,.1f}" if name in known else ""


def _topics(sample: Sample) -> dict[str, int]:
    streams = sample.status.streams
    return {} if streams is None else {one.topic: one.messages for one in streams.per_topic}


def _classes(sample: Sample) -> Mapping[str, ClassLoad]:
    return {} if sample.status.streams is None else sample.status.streams.by_class


def _clients(sample: Sample) -> Sequence[ClientLoad]:
    return () if sample.status.connections is None else sample.status.connections.per_client


def _hits(sample: Sample) -> int:
    return sum(one.hits for one in sample.status.throttle.values())
