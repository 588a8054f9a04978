"""Rendering draws the tables, bars and errors of the command line with rich. It sends no request."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby

import polars as pl
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from backtestr.results import Results
from backtestr_protocol.errors import BacktestrError, NetworkError
from backtestr_protocol.import_messages import Imported
from backtestr_protocol.inspection import CheckedFile, IndicatorInfo, ReplayedLog
from backtestr_protocol.messages import (
    TICK,
    AlgorithmInfo,
    AlgorithmProblem,
    BacktestStatus,
    LookAhead,
    SeriesFacts,
    SeriesInfo,
    StoredSeries,
)
from backtestr_protocol.metrics import METRICS, Annualised, Unit
from backtestr_protocol.price_messages import PriceReplayStatus
from backtestr_protocol.result_messages import DiskUsage, PrunedResults, ResultList
from backtestr_protocol.stream_messages import PriceUpdate
from backtestr_protocol.system_status import ClientLoad, CompressionStatus, SystemStatus, WorkerStatus

# Symbols of one backtest that are named; it may have a thousand.
_SHOWN_SYMBOLS = 6

_PRIORITIES = {"R": "real-time", "I": "interactive", "B": "background", "K": "bulk"}


def status_table(status: SystemStatus) -> RenderableType:
    facts = _plain("status", status.status)
    for reason in status.reasons:
        facts.add_row("", f"[yellow]{escape(reason)}")
    memory = status.memory_usage
    facts.add_row("up", _duration(status.uptime_ms))
    facts.add_row(
        "memory", f"{memory.used / 2**20:,.0f} MiB of {memory.total / 2**20:,.0f} ({memory.percentage:.1f} %)"
    )
    facts.add_row("cpu", f"{status.cpu_usage:.1f} %")
    facts.add_row("backtests under way", str(status.active_backtests))
    facts.add_row("waiting for a worker", str(status.queued_requests))
    facts.add_row("loop lag", f"{status.loop_lag_ms:.1f} ms")
    if status.build is not None:
        facts.add_row("build", escape(status.build))
    if status.disk is not None:
        facts.add_row("disk", _disk(status.disk))
    if status.connections is None:  # a broker of an earlier version
        facts.add_row("clients", str(status.connected_clients))
        return Group(facts, _workers_table(status.workers), *_batching_table(status.workers))
    facts.add_row("clients", f"{status.connected_clients} of {status.connections.limit}")
    for priority, rate in status.throttle.items():
        limit = f"{rate.per_second:,} a second, {rate.burst:,} at once" if rate.per_second else "no limit"
        facts.add_row(f"{_PRIORITIES.get(priority, priority)} requests", f"{limit}; refused {rate.hits:,}")
    for one in status.workers:
        if one.compression is not None:
            facts.add_row(f"compressed by {one.worker_id}", _compressed(one.compression))
    workers = (_workers_table(status.workers), *_batching_table(status.workers))
    return Group(facts, *workers, _clients_table(status.connections.per_client))


def _disk(disk: DiskUsage) -> str:
    parts = {
        results_text(disk.results): disk.results_bytes,
        f"{disk.sweeps:,} sweep{'s' * (disk.sweeps != 1)}": disk.sweeps_bytes,
        "trials": disk.trials_bytes,
        "bars": disk.catalogue_bytes,
        "database": disk.database_bytes,
        "damaged databases": disk.damaged_bytes,
        "table files": disk.tables_bytes,
        "recordings": disk.recordings_bytes,
    }
    used = ", ".join(f"{name} {size_text(size)}" for name, size in parts.items() if size)
    return f"{used or 'nothing'}; {size_text(disk.free_bytes)} free"


def _workers_table(workers: Iterable[WorkerStatus]) -> Table:
    table = Table("worker", "process", "state", "heard of")
    table.add_column("restarts", justify="right")
    for one in workers:
        waits = "" if one.next_start_ms is None else f", next start in {one.next_start_ms / 1000:.1f} s"
        heard = f"{one.last_seen_ms / 1000:.1f} s ago"
        table.add_row(one.worker_id, str(one.pid), one.state + waits, heard, str(one.restarts))
    return table


def _batching_table(workers: Iterable[WorkerStatus]) -> list[Table]:
    """Return a table of the batching of the workers that have published; no table where none has."""
    table = Table("worker", "topics")
    for name in ("messages", "batches", "most in one", "wait", "latency"):
        table.add_column(name, justify="right")
    for worker in workers:
        for topics, one in worker.batching.items():
            counts = (f"{count:,}" for count in (one.messages, one.batches, one.size))
            table.add_row(worker.worker_id, topics, *counts, f"{one.wait_ms:.1f} ms", f"{one.latency_ms:.1f} ms")
    return [table] if table.row_count else []


def _compressed(one: CompressionStatus) -> str:
    before, after = one.bytes_in / 2**20, one.bytes_out / 2**20
    return f"{one.batches:,} batches, {before:,.1f} MiB to {after:,.1f} MiB in {one.time_ms:,.0f} ms"


def _clients_table(clients: Iterable[ClientLoad]) -> Table:
    """Return a table of the clients, the busiest first."""
    table = Table("client")
    for name in ("connections", "requests", "pending", "queued", "throttled", "busy"):
        table.add_column(name, justify="right")
    for one in clients:
        counts = (one.sessions, one.requests, one.pending, one.queued, one.throttled, one.busy)
        table.add_row(escape(one.client_id), *(f"{count:,}" for count in counts))
    return table


def series_table(series: Iterable[SeriesInfo]) -> Table:
    table = Table("symbol", "timeframe", "first", "last")
    table.add_column("bars or ticks", justify="right")
    for one in series:
        table.add_row(one.symbol, one.timeframe, _time(one.start_time), _time(one.end_time), f"{one.bars:,}")
    return table


def facts_table(facts: SeriesFacts) -> RenderableType:
    made = "" if facts.made_from == facts.timeframe else f", made of {_source(facts.made_from)}"
    shown = _plain("series", f"{facts.symbol} {facts.timeframe}{made}")
    unit = _unit(facts.timeframe)
    shown.add_row(unit, f"{facts.bars:,}")
    shown.add_row(f"first {unit[:-1]}", _time(facts.start_time))
    shown.add_row(f"last {unit[:-1]}", _time(facts.end_time))
    if facts.columns:
        shown.add_row("columns", ", ".join(facts.columns))
    shown.add_row("days of", facts.time_zone or "UTC")
    shown.add_row("prices", f"{facts.low:,.10g} to {facts.high:,.10g}")
    shown.add_row("volume", f"{facts.volume:,.10g}")
    missing = "minutes without a tick" if facts.timeframe == TICK else "bars missing"
    shown.add_row("gaps", f"{facts.gaps:,}, {facts.missing_bars:,} {missing}" if facts.gaps else "none")
    if not facts.gaps:
        return shown
    gaps = Table("from", "to", title="longest gaps", title_justify="left")
    gaps.add_column(missing, justify="right")
    for gap in facts.longest_gaps:
        gaps.add_row(_time(gap.start_time), _time(gap.end_time), f"{gap.missing_bars:,}")
    return Group(shown, gaps)


def _unit(timeframe: str) -> str:
    return "ticks" if timeframe == TICK else "bars"


def _source(timeframe: str) -> str:
    return "ticks" if timeframe == TICK else timeframe


def bars_table(bars: pl.DataFrame) -> Table:
    """Return a table with a row for each bar or tick; an indicator is empty during its warm-up."""
    table = Table("timestamp")
    minutes = bars.is_empty() or not (bars[bars.columns[0]].dt.second() != 0).any()
    of_bars = "%Y-%m-%d %H:%M" if minutes else "%Y-%m-%d %H:%M:%S"
    time_format = "%Y-%m-%d %H:%M:%S.%f" if "bid" in bars.columns else of_bars
    for name in bars.columns[1:]:
        table.add_column(name, justify="right")
    for time, *values in bars.iter_rows():
        figures = ["" if value is None or value != value else f"{value:,.10g}" for value in values]
        table.add_row(time.strftime(time_format), *figures)
    return table


def stored_table(stored: StoredSeries) -> RenderableType:
    facts = _plain("stored", f"{stored.symbol} {stored.timeframe}")
    facts.add_row("bars", f"{stored.bars:,}")
    facts.add_row("from", _time(stored.start_time))
    facts.add_row("to", _time(stored.end_time))
    for warning in stored.warnings:
        facts.add_row("[yellow]warning", warning)
    return facts


def algorithms_table(algorithms: Iterable[AlgorithmInfo]) -> Table:
    table = Table("algorithm", "parameters", "what it does", "from", "look-ahead")
    for one in algorithms:
        parameters = "\n".join(
            f"{parameter.name}={parameter.default}" + _range(parameter.low, parameter.high)
            for parameter in one.parameters
        )
        # `Text` for what users write: a description may hold what rich takes for markup.
        origin = one.origin or ""
        verdict = "" if origin == "built-in" else _look_ahead(one.look_ahead)
        table.add_row(Text(one.name), Text(parameters), Text(one.description), origin, verdict)
    return table


def problems_table(problems: Iterable[AlgorithmProblem]) -> Table:
    table = Table("not loaded", "reason")
    for one in problems:
        # The reason names the file again, as a line of a compiler does.
        table.add_row(Text(one.file), Text(one.message.removeprefix(one.file).removeprefix(":").strip()))
    return table


def registered_table(info: AlgorithmInfo) -> RenderableType:
    facts = _plain("registered", escape(info.algorithm_id))
    facts.add_row("look-ahead", _look_ahead(info.look_ahead))
    problem = info.look_ahead.problem if info.look_ahead else None
    return facts if problem is None else Group(facts, Text(problem, style="red"))


def _look_ahead(verdict: LookAhead | None) -> str:
    if verdict is None:
        return "[dim]not checked"
    if verdict.problem is not None:
        return "[red]it fails on the sample"
    if verdict.finding is not None:
        return f"[red]{escape(verdict.finding.explanation)}"
    return f"[green]none found[/] ({verdict.cuts} cuts of {verdict.bars:,} bars)"


def checked_file(checked: CheckedFile) -> RenderableType:
    table = Table("algorithm", "look-ahead")
    for verdict in checked.verdicts:
        shown = LookAhead(passed=verdict.passed, bars=verdict.bars, cuts=len(verdict.cuts), finding=verdict.finding)
        table.add_row(escape(verdict.algorithm_id), _look_ahead(shown))
    problems = [Text(problem, style="red") for problem in checked.problems]
    return Group(*([table] if checked.verdicts else []), *problems)


def indicators_table(indicators: Iterable[IndicatorInfo]) -> Table:
    table = Table("indicator", "what it is", "parameters", "outputs")
    group = ""
    for one in indicators:
        if one.group != group:
            group = one.group
            table.add_section()
            table.add_row("", f"[bold]{group}", "", "")
        parameters = ", ".join(f"{name}={value:g}" for name, value in one.parameters.items())
        table.add_row(one.name, one.description, parameters, ", ".join(one.outputs))
    return table


def replayed_log(log: ReplayedLog) -> RenderableType:
    """Return what was played back, the problems, and the timeline; without one, the subjects that it can be about."""
    facts = _plain("recording", f"{log.files[0]}" + (f" and {len(log.files) - 1} more" if len(log.files) > 1 else ""))
    facts.add_row("broker", f"version {log.version}, instance {log.instance_id}")
    if log.start_time is not None and log.end_time is not None:
        facts.add_row("events", f"{log.events:,}, from {_time(log.start_time)} to {_time(log.end_time)}")
    if log.replayed_events == log.events:
        facts.add_row("replayed", "all of them")
    else:
        facts.add_row("replayed", f"the first {log.replayed_events:,}; of the others only what was sent is known")
    facts.add_row("state", "consistent" if log.contradiction is None else f"[red]{escape(log.contradiction)}")
    facts.add_row("effects", f"SHA-256 {log.effects_digest}")
    for problem in log.problems:
        facts.add_row("[yellow]problem", escape(problem))
    if log.timeline:
        timeline = Table("event", "after s", "time", "kind", "fact", box=None, pad_edge=False)
        for fact in log.timeline:
            at = datetime.fromtimestamp(fact.timestamp / 1000, UTC)
            after = f"{fact.offset_ms / 1000:.3f}"
            timeline.add_row(str(fact.event), after, f"{at:%H:%M:%S.%f}"[:-3], fact.kind, escape(fact.text))
        return Group(facts, "", timeline)
    jobs = Table("backtest (--job)", "status", "client (--client)")
    for job in log.jobs:
        jobs.add_row(job.backtest_id, job.status, escape(job.client_id))
    sessions = Table("session (--session)", "client (--client)")
    for session in log.sessions:
        sessions.add_row(session.session_id, escape(session.client_id))
    streams = Table("topic (--topic)", "messages")
    for topic, last_seq in log.topics.items():
        streams.add_row(escape(topic), f"{last_seq:,}")
    return Group(facts, jobs, sessions, streams)


def backtests_table(backtests: Iterable[BacktestStatus]) -> Table:
    table = Table("backtest", "status", "algorithm", "symbol", "submitted")
    table.add_column("done", justify="right")
    for one in backtests:
        symbols, done = _symbols(one.symbols or [one.symbol]), f"{one.progress_percent:.0f} %"
        table.add_row(one.backtest_id, one.status, one.algorithm_id, symbols, _time(one.submit_time), done)
    return table


def stored_results_table(listed: ResultList) -> RenderableType:
    table = Table("backtest", "stored", "status")
    table.add_column("size", justify="right")
    table.add_column("pinned")
    for one in listed.results:
        pinned = "yes" if one.pinned else ""
        table.add_row(one.backtest_id, _time(one.stored_time), one.status or "", size_text(one.bytes), pinned)
    return Group(table, f"{results_text(listed.count)}, {size_text(listed.bytes)}")


def pruned_table(pruned: PrunedResults) -> RenderableType:
    table = Table("backtest", "reason")
    table.add_column("size", justify="right")
    for one in pruned.results:
        table.add_row(one.backtest_id, one.reason, size_text(one.bytes))
    would = "would be deleted" if pruned.dry_run else "deleted"
    text = f"{results_text(len(pruned.results))}, {size_text(pruned.freed_bytes)}, {would}"
    more = f"; {pruned.remaining:,} more are due" if pruned.remaining else ""
    return Group(*([table] if pruned.results else []), text + more)


def results_text(count: int) -> str:
    """Return a number of results as people read it: `1 result`, `1,000 results`."""
    return "1 result" if count == 1 else f"{count:,} results"


def size_text(size: float) -> str:
    """Return bytes as people read them: `1.5 MiB`."""
    if size < 1024:
        return f"{size:,.0f} bytes"
    power = min(4, int(math.log(size, 1024)))
    return f"{size / 1024**power:,.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def replays_table(replays: Iterable[PriceReplayStatus]) -> Table:
    table = Table()
    table.add_column("replay", no_wrap=True, min_width=36)  # to be copied: a price replay is stopped by its id
    for name in ("symbol", "status", "rate"):
        table.add_column(name)
    table.add_column("bars or ticks", justify="right")
    for one in replays:
        rate = "as fast as read" if one.as_fast_as_read else f"{one.speed:g} × real time" if one.speed else ""
        rate = rate or f"{one.bars_per_second:g} {_unit(one.timeframe)}/s"
        why = one.reason or (one.error.message if one.error else "")
        status = f"{one.status}: {why}" if why else one.status
        position = f"{one.position:,} of {one.bars:,}"
        table.add_row(one.replay_id, f"{one.symbol} {one.timeframe}", escape(status), rate, position)
    return table


def price_line(price: PriceUpdate) -> str:
    """Return time, last price and volume; of a tick, bid and ask before them, and the time to the millisecond."""
    if price.timeframe == TICK:
        at = datetime.fromtimestamp(price.timestamp / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")[:-6]
        quote = f"{price.bid:>14,.10g}  {price.ask:>14,.10g}"
        return f"{at}  {quote}  {price.last:>14,.10g}  {price.volume:>14,.10g}"
    return f"{_time(price.timestamp)}  {price.last:>14,.10g}  {price.volume:>14,.10g}"


def imported_table(imported: Imported) -> RenderableType:
    if imported.series:
        facts = _plain("imported", f"{len(imported.series):,} series")
        for one in imported.series:
            bars = f"{one.bars:,} {_unit(one.timeframe)} from {_time(one.start_time)} to {_time(one.end_time)}"
            facts.add_row(escape(f"{one.symbol} {one.timeframe}"), bars)
    else:
        facts = _plain("imported", f"{imported.symbol} {imported.timeframe}")
        facts.add_row(_unit(imported.timeframe), f"{imported.bars:,}")
        facts.add_row("from", _time(imported.start_time))
        facts.add_row("to", _time(imported.end_time))
    for warning in imported.warnings:
        facts.add_row("[yellow]warning", escape(warning))
    return facts


def results_table(results: Results) -> RenderableType:
    """Return a table of the metrics, with the reason where one is undefined."""
    config = results.config
    symbols = _symbols(config.get("symbols") or [config.get("symbol", "")])
    title = " ".join((str(config.get("algorithmId", "")), symbols, str(config.get("timeframe", ""))))
    facts = _plain("backtest", results.backtest_id)
    facts.add_row("status", results.status)
    if results.warmup_bars:
        facts.add_row("warm-up", f"{results.warmup_bars:,} bars before the first")
    if results.metrics is None:
        return facts
    rule = results.metrics.annualisation
    if isinstance(rule, Annualised):
        facts.add_row("calendar", escape(f"{rule.calendar}, {rule.bars_per_year:,.6g} bars a year: {rule.reason}"))
    for warning in results.metrics.warnings:
        facts.add_row("[yellow]warning", escape(warning))
    table = Table(title=title.strip(), title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    values, reasons = results.metrics.defined(), results.metrics.undefined
    shown = [one for one in METRICS if one.name in values or one.name in reasons]
    for group, metrics in groupby(shown, key=lambda one: one.group):
        table.add_section()
        table.add_row(f"[bold]{group.capitalize()}", "")
        for one in metrics:
            known = one.name in values
            figure = _figure(one.unit, values[one.name]) if known else f"[dim]undefined: {reasons[one.name]}"
            table.add_row(one.label, figure)
    return Group(facts, table)


class LiveBar:
    """The progress bar of one backtest, on standard error."""

    def __init__(self, console: Console, title: str) -> None:
        columns: Sequence[ProgressColumn] = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=console, transient=False)
        self._task = self._progress.add_task(title, total=100.0, note="")

    def __enter__(self) -> LiveBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, percent: float, equity: float, orders: int) -> None:
        self._progress.update(self._task, completed=percent, note=f"equity {equity:,.2f}, {orders:,} orders")


def error_lines(error: BacktestrError) -> list[str]:
    """Return the message of an error, and what a person can do about it."""
    if isinstance(error, NetworkError):
        return [str(error)]  # whose message says what to do
    return [str(error), *(action.description for action in error.recovery_actions if action.user_required)]


def _symbols(symbols: Sequence[str]) -> str:
    shown = ", ".join(map(str, symbols[:_SHOWN_SYMBOLS]))
    return shown + (f" and {len(symbols) - _SHOWN_SYMBOLS} more" if len(symbols) > _SHOWN_SYMBOLS else "")


def _plain(name: str, value: str) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row(name, value)
    return table


def _figure(unit: Unit, value: float) -> str:
    if unit == "ms":
        return _duration(value)
    if unit == "fraction":
        return f"{value * 100:,.2f} %"
    if unit == "money":
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def _range(low: float | None, high: float | None) -> str:
    ends = ["" if end is None else f"{end:g}" for end in (low, high)]
    return f" ({ends[0]}..{ends[1]})" if any(ends) else ""


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _duration(ms: float) -> str:
    minutes, seconds = divmod(int(ms) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
