"""Every metric has a definition with formula, unit and source, and the page of the docs is that of the program."""

from __future__ import annotations

from pathlib import Path

from backtestr_protocol.metric_definitions import metric_definitions, metrics_page, symbols_text
from backtestr_protocol.metrics import METRICS

ROOT = Path(__file__).parents[2]


def test_every_metric_is_defined() -> None:
    definitions = {one.name: one for one in metric_definitions()}
    assert list(definitions) == [one.name for one in METRICS]
    for metric in METRICS:
        one = definitions[metric.name]
        assert (one.wire_name, one.unit, one.formula) == (metric.wire_name, metric.unit, metric.meaning)
        assert one.source
        assert one.unit_text


def test_annual_return_and_cagr_are_told_apart() -> None:
    definitions = {one.name: one for one in metric_definitions()}
    assert "(1 + totalReturn)^(A / n) − 1" in definitions["annual_return"].formula
    assert "(1 + totalReturn)^(1 / years) − 1, years of 365.25 days" in definitions["cagr"].formula
    assert definitions["annual_return"].daily_geometric.startswith("(1 + g)^A − 1")
    assert not definitions["total_return"].daily_geometric


def test_the_letters_of_the_formulas_are_explained() -> None:
    text = symbols_text()
    assert text.startswith("Returns, rates and drawdowns are fractions")
    for letter in ("e₁", "e₀", "rᵢ", " A ", " f "):
        assert letter in text


def test_the_page_of_the_docs_is_up_to_date() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text("utf-8") == metrics_page(), "run: make schema"
