"""The table of TCP connections of Linux, whose lines name the user of each socket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtestr.ui.core.connection_table import user_of

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2131 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 0000000000000000 100 0
   1: 0100007F:2131 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12 1 0000000000000000 20 4
   2: 0100007F:C350 0100007F:2131 01 00000000:00000000 00:00000000 00000000  1001        0 13 1 0000000000000000 20 4
   3: 0200007F:C350 0100007F:2131 01 00000000:00000000 00:00000000 00000000     0        0 14 1 0000000000000000 20 4
"""
SERVER = ("127.0.0.1", 0x2131)


def test_each_end_of_a_connection_has_its_user() -> None:
    assert user_of(TABLE, ("127.0.0.1", 50_000), SERVER) == 1001
    assert user_of(TABLE, SERVER, ("127.0.0.1", 50_000)) == 1000
    assert user_of(TABLE, ("127.0.0.2", 50_000), SERVER) == 0


def test_a_connection_that_is_not_there_has_none() -> None:
    assert user_of(TABLE, ("127.0.0.1", 50_001), SERVER) is None
    assert user_of("", ("127.0.0.1", 50_000), SERVER) is None


@given(st.text(max_size=300))
def test_no_table_raises(table: str) -> None:
    assert user_of(table, ("127.0.0.1", 1), SERVER) is None
