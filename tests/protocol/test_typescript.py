"""The generated TypeScript is up to date, and its types say what the schema says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from backtestr_protocol import __version__, schema, topics, typescript
from backtestr_protocol.message_types import REQUESTS, STREAMED, TOPIC_TYPES
from backtestr_protocol.metric_definitions import metric_definitions

DIRECTORY = Path(__file__).parents[2] / "clients" / "typescript" / "src" / "generated"


def test_the_files_match_the_contracts() -> None:
    assert schema.drifted(DIRECTORY, typescript.rendered()) == [], "run: make schema"
    assert {file.name for file in DIRECTORY.iterdir()} == set(typescript.rendered())


def test_check_finds_files_that_are_out_of_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typescript.main(["--directory", str(tmp_path), "--check"]) == 1
    assert typescript.main(["--directory", str(tmp_path)]) == 0
    assert typescript.main(["--directory", str(tmp_path), "--check"]) == 0
    capsys.readouterr()
    (tmp_path / "protocol.ts").write_text("", "utf-8")
    assert typescript.main(["--directory", str(tmp_path), "--check"]) == 1
    assert capsys.readouterr().out.startswith("protocol.ts is out of date")


def test_every_contract_request_topic_and_error_is_there() -> None:
    files = typescript.rendered()
    for name in schema.contracts()["$defs"]:
        assert re.search(rf"\nexport (interface {name} {{|type {name} =)", files["contracts.ts"])
    for request in REQUESTS:
        assert f"\n  readonly {request}: {{ readonly data: " in files["contracts.ts"]
    for topic, types in TOPIC_TYPES.items():
        types_there = " | ".join(f'"{one}"' for one in types)
        assert f'\n  readonly "{topic}": {types_there};' in files["contracts.ts"]
    for code in schema.index()["errors"]:
        assert f"\n  {code}: {{" in files["protocol.ts"]
    assert f'VERSION = "{__version__}"' in files["protocol.ts"]
    for metric in metric_definitions():
        assert f'    name: "{metric.wire_name}",\n    label: "{metric.label}",' in files["metrics.ts"]
        assert metric.wire_name in schema.contracts()["$defs"]["Metrics"]["properties"]


def test_every_topic_class_has_a_type_that_can_be_streamed() -> None:
    assert set(TOPIC_TYPES) == {one.prefix for one in topics.CLASSES}
    assert {name for names in TOPIC_TYPES.values() for name in names} == set(STREAMED) - {"Batch"}


@pytest.mark.parametrize(
    ("of_schema", "expected"),
    [
        ({"type": "integer", "minimum": 1}, "number"),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]}, "number | null"),
        ({"enum": ["buy", "sell"]}, '"buy" | "sell"'),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, 'readonly ("a" | "b")[]'),
        ({"type": "array", "items": {"$ref": "#/$defs/TableRef"}}, "readonly TableRef[]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "{ readonly [name: string]: number }"),
        ({"type": "object"}, "{ readonly [name: string]: unknown }"),
        ({"type": "string", "contentEncoding": "base64"}, "Uint8Array"),
        ({}, "unknown"),
    ],
)
def test_types(of_schema: dict[str, Any], expected: str) -> None:
    assert typescript.type_of(of_schema) == expected


def test_a_field_that_is_left_out_without_a_value_is_never_null() -> None:
    text = typescript.rendered()["contracts.ts"]
    status = text.partition("export interface BacktestStatus {")[2].partition("\n}")[0]
    assert "readonly endTime?: number | undefined;" in status
    assert "readonly lends?: boolean | undefined;" in status
    assert "readonly status: " in status
    metrics = text.partition("export interface Metrics {")[2].partition("\n}")[0]
    assert "readonly winRate?: number | null | undefined;" in metrics  # absent when not computed, null when undefined


def test_names_in_comments_are_those_of_the_wire() -> None:
    text = typescript.rendered()["contracts.ts"]
    assert "`asFastAsRead`" in text
    assert "`as_fast_as_read`" not in text


def test_every_field_of_a_request_has_a_kind() -> None:
    text = typescript.rendered()["protocol.ts"]
    fields = text.partition("export const FIELDS = {")[2].partition("\n} as const;")[0]
    market_data = fields.partition("  GetMarketData: {")[2].partition("\n  }")[0].split("\n")[1:]
    assert market_data[:3] == ['    symbol: "text",', '    timeframe: "text",', '    startTime: "number?",']
    assert '    indicators: "list of IndicatorConfig?",' in market_data
    assert "  IndicatorConfig: {" in fields
    assert '    value: "any",' in fields.partition("  UpdateState: {")[2].partition("\n  }")[0]
    assert "  BacktestStatus: {" not in fields  # which only the broker sends
