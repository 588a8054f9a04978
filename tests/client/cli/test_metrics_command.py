"""`backtestr metrics` prints definitions without a broker."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from backtestr.cli.app import app
from backtestr.client import Client
from backtestr_protocol.metrics import METRICS


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["metrics", *arguments], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return done.output


def test_all_metrics_are_printed() -> None:
    text = printed()
    assert all(one.name in text for one in METRICS)
    assert "Sharpe 1994" in text


@pytest.mark.parametrize("name", ["sharpe_ratio", "sharpeRatio"])
def test_one_metric_is_printed_by_either_name(name: str) -> None:
    text = printed(name)
    assert "mean(r − f) / σ(r − f) · √A" in text
    assert "max_drawdown" not in text


def test_json_has_what_the_client_returns() -> None:
    definitions = Client.metric_definitions()
    assert [one["name"] for one in json.loads(printed("--json"))] == [one.name for one in definitions]
    (one,) = json.loads(printed("cagr", "--json"))
    assert one["formula"] == next(one.formula for one in definitions if one.name == "cagr")


def test_an_unknown_metric_names_the_near_miss() -> None:
    done = CliRunner().invoke(app, ["metrics", "sharpe_ration"])
    assert done.exit_code == 2
    assert "did you mean 'sharpe_ratio'?" in done.output
