"""The client's pure parts: results, instants, options, the range of a series, and what is public."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtestr
from backtestr.arguments import as_iso, as_ms, wire_options
from backtestr.core.effects import Gap
from backtestr.io.mailbox import MAX_UNREAD, Mailbox, PendingReply
from backtestr.results import results_from_wire
from backtestr.series import covering
from backtestr_protocol.errors import NotFound, SerializationError, TimedOut
from backtestr_protocol.messages import BacktestResults, SeriesInfo, TableRef
from backtestr_protocol.metrics import Metrics

DAY = 86_400_000


def test_the_front_door_is_small() -> None:
    assert set(backtestr.__all__) == {
        "CircuitOpen",
        "Client",
        "ErrorReport",
        "Gap",
        "GapWarning",
        "IndicatorConfig",
        "Metrics",
        "OfflineQueueFull",
        "PriceUpdate",
        "Recovery",
        "PriceReplay",
        "Replay",
        "Restarted",
        "Results",
        "Run",
        "SharedState",
        "StateChange",
        "Statistics",
        "Subscription",
        "Update",
        "__version__",
        "connect",
        "embedded",
        "errors",
    }
    assert all(hasattr(backtestr, name) for name in backtestr.__all__)


# --- results ---


def results(rows: int, frame: int = 0) -> backtestr.Results:
    buffer = io.BytesIO()
    pl.DataFrame({"equity": [1.0, 2.0]}).write_ipc_stream(buffer)
    ref = TableRef(name="equity", frame=frame, format="arrow-ipc-stream", rows=rows)
    answer = BacktestResults(
        backtest_id="b", status="completed", config={}, metrics=Metrics(total_return=0.5), tables=[ref]
    )
    return results_from_wire(answer, [buffer.getvalue()])


def test_tables_are_frames() -> None:
    found = results(rows=2)
    assert found.equity["equity"].to_list() == [1.0, 2.0]
    assert found.metrics is not None
    assert (found.metrics.total_return, found.metrics.win_rate) == (0.5, None)
    with pytest.raises(LookupError, match="no table 'trades'"):
        _ = found.trades


def test_a_table_that_is_not_what_was_announced_is_an_error() -> None:
    with pytest.raises(SerializationError, match="3 were announced"):
        results(rows=3)
    with pytest.raises(SerializationError, match="attachment 1"):
        results(rows=2, frame=1)


def test_results_of_a_backtest_under_way_have_no_metrics() -> None:
    answer = BacktestResults(backtest_id="b", status="running", config={}, metrics=None, tables=[])
    found = results_from_wire(answer, [])
    assert found.metrics is None
    with pytest.raises(LookupError, match="the backtest is running"):
        _ = found.equity


# --- instants, options, series ---


@pytest.mark.parametrize(
    "instant",
    [
        "2022-01-03",
        "2022-01-03T00:00:00Z",
        "2022-01-03T01:00:00+01:00",
        date(2022, 1, 3),
        datetime(2022, 1, 3),  # noqa: DTZ001 - naive on purpose
        datetime(2022, 1, 3, tzinfo=UTC),
        datetime(2022, 1, 2, 19, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_every_way_to_write_an_instant(instant: str | date | datetime) -> None:
    assert as_ms(instant) == 1_641_168_000_000
    assert as_iso(instant) == "2022-01-03T00:00:00Z"


@given(st.integers(0, 4_000_000_000_000))
def test_instants_survive_being_written(ms: int) -> None:
    assert as_ms(as_iso(ms)) == ms


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        as_ms("yesterday")


def test_options_are_camel_case_on_the_wire() -> None:
    assert wire_options({"fill_at": "close", "stopLoss": 0.1, "streams": {"progress_interval_ms": 5}}) == {
        "fillAt": "close",
        "stopLoss": 0.1,
        "streams": {"progressIntervalMs": 5},
    }


def series(timeframe: str, start: int, end: int, symbol: str = "S") -> SeriesInfo:
    return SeriesInfo(symbol=symbol, timeframe=timeframe, start_time=start, end_time=end, bars=1)  # type: ignore[arg-type]


def test_the_range_covers_all_bars() -> None:
    stored = [series("1m", DAY + 60_000, 2 * DAY), series("1d", 0, 9 * DAY), series("1m", 5, 6, "T")]
    assert covering(stored, "S", "1m") == (DAY + 60_000, 2 * DAY + 60_000)
    assert covering(stored, "S", "1d") == (0, 10 * DAY)
    assert covering(stored[:1], "S", "1h") == (DAY, 2 * DAY + 60_000)
    assert covering(stored[:1], "S", "1w") == (DAY - 7 * DAY, 2 * DAY + 60_000)
    assert covering(stored, "U", "1m")[0] == 0


# --- handing over ---


def test_a_reply_is_read_by_all_who_wait() -> None:
    reply: PendingReply[int] = PendingReply()
    with pytest.raises(TimedOut):
        reply.read(timeout=0)
    reply.succeed(7)
    assert (reply.read(), reply.read(timeout=0)) == (7, 7)
    failed: PendingReply[int] = PendingReply()
    failed.fail(NotFound("gone"))
    for _ in range(2):
        with pytest.raises(NotFound, match="gone"):
            failed.read()


def test_a_mailbox_gives_everything_before_its_end() -> None:
    mailbox = Mailbox(lambda _: None)
    mailbox.put([Gap("t", 1, 2)])
    mailbox.end(NotFound("gone"))
    mailbox.end(None)
    assert mailbox.take() == Gap("t", 1, 2)
    for _ in range(2):
        with pytest.raises(NotFound):
            mailbox.take()


def test_a_mailbox_tells_of_room_before_it_is_full() -> None:
    told: list[int] = []
    mailbox = Mailbox(told.append)
    mailbox.put([Gap("t", 1, 1)] * (MAX_UNREAD // 4))
    assert mailbox.take() == Gap("t", 1, 1)
    assert told == [], "what is not taken takes its room"
    for _ in range(MAX_UNREAD // 4 - 1):
        mailbox.take()
    assert told == [MAX_UNREAD // 4]
    with pytest.raises(TimedOut):
        Mailbox(told.append).take(timeout=0)
