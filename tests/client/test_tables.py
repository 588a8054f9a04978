"""Tables are asked for as files where those can be mapped, and received where they cannot."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from backtestr.tables import read_table
from backtestr_protocol.column_types import column_type
from backtestr_protocol.errors import NotFound, SerializationError
from backtestr_protocol.messages import TableColumn, TableFile, TableRef
from support.client.answers import connect
from support.client.command_line import asked
from support.client.peer import Peer, Script

FRAME = pl.DataFrame({"timestamp": [1, 2, 3], "equity": [1.0, 2.0, float("nan")]})
NAME = "42-0a.arrow"


def stream() -> bytes:
    FRAME.write_ipc_stream(buffer := io.BytesIO())
    return buffer.getvalue()


def write(directory: Path) -> dict[str, Any]:
    """Write the table file, and return the reference to it."""
    path = directory / NAME
    FRAME.write_ipc(path, compression="uncompressed")
    path.chmod(0o600)
    columns = [{"name": name, "type": column_type(kind)} for name, kind in FRAME.schema.items()]
    file = {"name": NAME, "size": path.stat().st_size, "columns": columns}
    return {"name": "equity", "format": "arrow-ipc-file", "rows": 3, "file": file}


def answers(mapped: Callable[[], dict[str, Any]], received: Any = None) -> Script:
    """Answer requests for mapped tables with that reference, and others with an attachment, or with `received`."""
    attached = {"name": "equity", "frame": 0, "format": "arrow-ipc-stream", "rows": 3}

    def answer(fields: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
        def of(data: dict[str, Any]) -> Any:
            if data.get("mapped"):
                return {**fields, "tables": [mapped()]}, []
            return received or ({**fields, "tables": [attached]}, [stream()])

        return of

    results: dict[str, Any] = {"backtestId": "b", "status": "completed", "config": {}, "metrics": None}
    return {
        "GetBacktestResults": answer(results),
        "GetMarketData": answer({"symbol": "S", "timeframe": "1m"}),
        "EvaluateAlgorithm": answer({"algorithmId": "a@1", "timeframe": "1m", "parameters": {}}),
    }


def local(home: Path, script: Script) -> Peer:
    """Make a peer that names a directory of table files."""
    (home / "tables").mkdir(0o700)
    peer = Peer(home, script)
    peer.connection = msgspec.structs.replace(peer.connection, tables_directory=str(home / "tables"))
    return peer


def test_large_tables_of_every_kind_are_mapped(home: Path) -> None:
    with local(home, answers(lambda: write(home / "tables"))) as peer, connect(peer) as client:
        tables = [
            client.results("b", ["equity"]).equity,
            client.market_data("S", "1m"),
            client.evaluate("a", "S", timeframe="1m"),
        ]
        requests = [kind for kind, _, data in peer.asked if isinstance(data, dict) and data.get("mapped")]
    assert all(one.equals(FRAME) for one in tables)
    assert requests == ["GetBacktestResults", "GetMarketData", "EvaluateAlgorithm"]


def test_a_broker_that_names_no_directory_is_not_asked_for_files(home: Path) -> None:
    with Peer(home, answers(lambda: write(home))) as peer, connect(peer) as client:
        assert client.results("b", ["equity"]).equity.equals(FRAME)
        assert asked(peer, "GetBacktestResults") == [{"backtestId": "b", "tables": ["equity"]}]


def test_a_file_that_has_vanished_is_asked_for_once_more_as_an_attachment(home: Path) -> None:
    def gone() -> dict[str, Any]:
        reference = write(home / "tables")
        (home / "tables" / NAME).unlink()
        return reference

    with local(home, answers(gone)) as peer, connect(peer) as client:
        assert client.results("b", ["equity"]).equity.equals(FRAME)
        plain = {"backtestId": "b", "tables": ["equity"]}
        assert asked(peer, "GetBacktestResults") == [{**plain, "mapped": True}, plain]


def test_a_result_that_was_deleted_in_between_is_not_found(home: Path) -> None:
    def gone() -> dict[str, Any]:
        reference = write(home / "tables")
        (home / "tables" / NAME).unlink()
        return reference

    deleted = NotFound("backtest 'b' was deleted", kind="result", name="b")
    with (
        local(home, answers(gone, deleted)) as peer,
        connect(peer) as client,
        pytest.raises(NotFound, match="was deleted"),
    ):
        client.results("b", ["equity"])


def test_a_file_that_is_not_as_announced_is_an_error(home: Path) -> None:
    def larger() -> dict[str, Any]:
        reference = write(home / "tables")
        with open(home / "tables" / NAME, "ab") as file:
            file.write(b"more")
        return reference

    with (
        local(home, answers(larger)) as peer,
        connect(peer) as client,
        pytest.raises(SerializationError, match="were announced"),
    ):
        client.results("b", ["equity"])


def test_a_file_that_was_not_asked_for_and_a_reference_to_nothing_are_errors() -> None:
    file = TableFile(name=NAME, size=1, columns=[TableColumn(name="a", type="int64")])
    ref = TableRef(name="equity", format="arrow-ipc-file", rows=3, file=file)
    with pytest.raises(SerializationError, match="which was not asked for"):
        read_table(ref, [stream()])
    with pytest.raises(SerializationError, match="is in attachment None"):
        read_table(msgspec.structs.replace(ref, file=None), [stream()])


def test_the_rows_of_a_mapped_table_are_compared_with_the_answer(tmp_path: Path) -> None:
    ref = msgspec.convert({**write(tmp_path), "rows": 4}, TableRef)
    with pytest.raises(SerializationError, match="has 3 rows; 4 were announced"):
        read_table(ref, [], tmp_path)
