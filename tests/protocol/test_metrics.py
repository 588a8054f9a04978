"""The metrics on the wire: names, reasons, absent figures, and what is stated of each."""

from __future__ import annotations

import re
from itertools import groupby
from typing import get_args

import msgspec
import pytest

from backtestr_protocol import schema
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import MessageError
from backtestr_protocol.messages import PerformanceMetrics
from backtestr_protocol.metrics import METRICS, WIRE_NAMES, Annualised, Group, Metrics

WIRE = {"sharpeRatio": 1.5, "winRate": None, "maxDrawdownDurationMs": 60_000, "valueAtRisk95": 0.1}
UNDEFINED = {"winRate": "there is no closed trade"}


def decoded(wire: object) -> Metrics:
    answer = decode(msgspec.msgpack.Decoder(PerformanceMetrics), encode({"backtestId": "b", "metrics": wire}))
    assert answer.metrics is not None
    return answer.metrics


def test_metrics_have_names_and_reasons() -> None:
    metrics = decoded({**WIRE, "undefined": UNDEFINED})
    assert (metrics.sharpe_ratio, metrics.max_drawdown_duration_ms, metrics.value_at_risk_95) == (1.5, 60_000, 0.1)
    assert metrics.win_rate is None
    assert metrics.undefined == {"win_rate": "there is no closed trade"}
    assert metrics.defined() == {"sharpe_ratio": 1.5, "max_drawdown_duration_ms": 60_000, "value_at_risk_95": 0.1}
    assert metrics.to_wire() == {**WIRE, "undefined": UNDEFINED}


def test_a_decoded_metric_is_encoded_again_as_it_came() -> None:
    """A figure that is absent stays absent, one that is nil stays nil, and the order is that of the fields."""
    warned = {"kelly": 0.5, "undefined": {}, "warnings": ["the warm-up had 3 of 9 bars"]}
    nil = {"winRate": None, "kelly": 0.5, "undefined": UNDEFINED}
    for wire in ({"undefined": {"finalEquity": "no bar"}}, nil, warned):
        again = msgspec.msgpack.decode(encode(decoded(wire)))
        assert list(again.items()) == list(wire.items())


def test_a_metric_that_was_not_sent_is_none_to_a_reader() -> None:
    metrics = decoded({"kelly": 0.5, "karma": 7, "undefined": {}}).with_absent_as_none()
    assert (metrics.kelly, metrics.sharpe_ratio) == (0.5, None)
    assert metrics.defined() == {"kelly": 0.5}
    assert metrics.to_wire() == {"kelly": 0.5, "undefined": {}}


def test_rejected_orders_are_counted_by_reason() -> None:
    wire = {"kelly": 0.5, "undefined": {}, "rejectedOrders": {"not enough cash": 7}}

    assert decoded(wire).rejected_orders == {"not enough cash": 7}
    assert decoded(wire).to_wire() == msgspec.msgpack.decode(encode(decoded(wire))) == wire
    assert decoded({"kelly": 0.5}).rejected_orders == {}


def test_the_calendar_and_its_reason_come_with_the_metrics() -> None:
    rule = {"calendar": "252d", "barsPerYear": 252.0, "riskFree": 0.0, "reason": "it was given"}
    metrics = decoded({"kelly": 0.5, "undefined": {}, "annualisation": rule})
    assert metrics.annualisation == Annualised(
        calendar="252d", bars_per_year=252.0, risk_free=0.0, reason="it was given"
    )
    assert metrics.to_wire() == {"kelly": 0.5, "undefined": {}, "annualisation": rule}
    assert decoded({"kelly": 0.5}).with_absent_as_none().annualisation is None


def test_a_figure_of_another_type_is_refused() -> None:
    with pytest.raises(MessageError, match=r"\$\.metrics\.sharpeRatio"):
        decoded({"sharpeRatio": "high"})


def test_the_metrics_of_a_group_follow_each_other() -> None:
    assert tuple(group for group, _ in groupby(METRICS, key=lambda one: one.group)) == get_args(Group)


def test_every_metric_has_a_meaning_that_the_schema_documents() -> None:
    properties = schema.contracts()["$defs"]["Metrics"]["properties"]
    assert list(properties) == [*WIRE_NAMES.values(), "undefined", "warnings", "rejectedOrders", "annualisation"]
    for one in METRICS:
        assert re.fullmatch(r"[^\n]+\.", one.meaning), one.name
        assert properties[one.wire_name]["description"] == f"{one.meaning} Unit: {one.unit}."


def test_labels_are_read_as_words() -> None:
    labels = {one.name: one.label for one in METRICS}
    assert labels["cagr"] == "CAGR"
    assert labels["max_drawdown_duration_ms"] == "Max drawdown duration"
    assert labels["conditional_value_at_risk_95"] == "Conditional value at risk 95 %"
