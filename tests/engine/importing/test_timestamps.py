"""Times as text: the format of one, and the instants of all."""

from __future__ import annotations

import polars as pl
import pytest

from backtestr_engine.data.instants import instant
from backtestr_engine.importing.timestamps import TimeFormat, parse_times, time_format


@pytest.mark.parametrize(
    ("text", "pattern", "zoned"),
    [
        ("2022-01-03", "%Y-%m-%d", False),
        ("20220103 093000", "%Y%m%d %H%M%S%.f", False),
        ("2022.01.03 09:30", "%Y.%m.%d %H:%M", False),
        ("2022-01-03T09:30:00.250Z", "%Y-%m-%dT%H:%M:%S%.fZ", True),
        ("2022/01/03 09:30:00+0200", "%Y/%m/%d %H:%M:%S%.f%z", True),
        ("03.01.2022 09:30:00.000", "%d.%m.%Y %H:%M:%S%.f", False),
        ("03.01.2022 09:30:00 GMT+0100", "%d.%m.%Y %H:%M:%S%.f GMT%z", True),
        ("1641202200", "epoch:s", True),
        ("1641202200000000000", "epoch:ns", True),
    ],
)
def test_a_known_form_is_recognised(text: str, pattern: str, zoned: bool) -> None:
    assert time_format(text) == TimeFormat(pattern, zoned)


@pytest.mark.parametrize("text", ["", "03/01/2022", "2022-01.03", "2022-01-03 9:30", "164120220", "3 January"])
def test_other_text_is_no_time(text: str) -> None:
    assert time_format(text) is None


@pytest.mark.parametrize("text", ["2022-07-04 09:30:00", "1656927000", "2022-07-04T09:30:00Z"])
def test_only_a_time_without_an_offset_is_read_in_the_zone(text: str) -> None:
    written = time_format(text)
    assert written is not None
    time = parse_times(pl.Series([text, "x"]), written, "America/New_York").to_physical().to_list()

    assert [instant(time[0]), time[1]] == [f"2022-07-04T{'09' if written.zoned else '13'}:30:00Z", None]
