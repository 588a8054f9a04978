"""The files of the JSON Schema are up to date, and the schema accepts and refuses what the codec does."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol import schema
from backtestr_protocol.connection import Connection, decode_connection
from backtestr_protocol.envelopes import Envelope
from backtestr_protocol.message_types import REQUESTS, STREAMED
from backtestr_protocol.secret import encode_secret
from protocol.test_messages import CONTRACTS
from support.protocol import make_vectors, rejected_vectors
from support.protocol.strategies import instances, laws

DIRECTORY = Path(__file__).parents[2] / "protocol" / "schema"


@cache
def validator(name: str) -> Any:
    contracts = schema.contracts()
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": contracts["$defs"]})


def test_the_files_match_the_contracts() -> None:
    assert schema.drifted(DIRECTORY, schema.rendered()) == [], "run: python -m backtestr_protocol.schema"
    assert {file.name for file in DIRECTORY.glob("*.json")} == set(schema.rendered())


def test_check_finds_files_that_are_out_of_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main(["--directory", str(tmp_path), "--check"]) == 1
    assert schema.main(["--directory", str(tmp_path)]) == 0
    assert schema.main(["--directory", str(tmp_path), "--check"]) == 0
    capsys.readouterr()
    (tmp_path / "index.json").write_text("{}", "utf-8")
    assert schema.main(["--directory", str(tmp_path), "--check"]) == 1
    assert capsys.readouterr().out.startswith("index.json is out of date")


@pytest.mark.parametrize("struct", CONTRACTS, ids=lambda struct: struct.__name__)
@laws
@given(data=st.data())
def test_the_schema_admits_every_instance(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    # JSON has no binary data; the tests of the codec cover a Batch that holds them.
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(data.draw(instances(struct)), enc_hook=encode_secret))
    if not has_binary(fields):
        validator(struct.__name__).validate(fields)


def has_binary(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(has_binary, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bytes)


def test_the_schema_admits_the_envelopes_of_the_vectors() -> None:
    envelopes = [
        case["expected"]["envelope"]
        for case in [*make_vectors.requests(), *make_vectors.responses(), *make_vectors.streams()]
    ]
    for envelope in envelopes:
        validator(Envelope.__name__).validate(envelope)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Hello", {"clientId": "x" * 129, "protocolVersions": [1]}),
        ("Hello", {"protocolVersions": [1]}),
        ("FetchMissed", {"topic": "orders.x", "fromSeq": 0}),
        ("GetBacktestResults", {"backtestId": "x", "tables": ["trade"]}),
        ("GetMarketData", {"symbol": "A", "timeframe": "1d", "startTime": 0.5}),
        ("Envelope", {**rejected_vectors.ENVELOPE, "schemaVersion": 2}),
    ],
)
def test_the_schema_refuses_what_the_codec_refuses(name: str, value: Any) -> None:
    assert not validator(name).is_valid(value)


def test_the_schema_describes_the_connection_file(connection_text: bytes) -> None:
    value = json.loads(connection_text)
    validator(Connection.__name__).validate(value)
    assert decode_connection(connection_text).instance_id == value["instanceId"]


def test_the_index_refers_to_contracts_that_exist() -> None:
    index, contracts = schema.index(), schema.contracts()
    rows = [side for row in index["requests"].values() for side in (row["data"], row["success"])]
    for reference in [*rows, *index["streams"].values()]:
        assert reference["$ref"].removeprefix("contracts.json#/$defs/") in contracts["$defs"]
    assert set(index["requests"]) == set(REQUESTS)
    assert set(index["streams"]) == set(STREAMED)
