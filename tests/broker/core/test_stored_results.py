"""The results on disk are what the surveys have named, and pins are bounded."""

from __future__ import annotations

import pytest

from backtestr_broker.core import stored_results as stored_results_module
from backtestr_broker.core.records import PinRecord
from backtestr_broker.core.retention import StoredItem
from backtestr_broker.core.stored_results import StoredResults
from backtestr_protocol.errors import ValidationError


def test_surveys_name_what_has_changed() -> None:
    stored = StoredResults()
    stored.surveyed({"a": (10, 1), "b": (20, 2)}, [], None)
    stored.surveyed({"b": (25, 3), "c": (1, 2)}, ["a", "never there"], None)
    assert stored.newest() == [("b", 25, 3), ("c", 1, 2)]
    assert (len(stored), stored.total_bytes, stored.size("b"), stored.size("a")) == (2, 26, 25, 0)
    assert "a" not in stored
    stored.check_invariants()


def test_pinned_and_used_results_are_kept() -> None:
    stored = StoredResults()
    stored.restore([PinRecord(backtest_id="a", wall_ms=1)])
    stored.surveyed({one: (1, 1) for one in ("a", "b", "c")}, [], None)
    assert stored.items({"b"}) == [
        StoredItem("a", 1, 1, True),
        StoredItem("b", 1, 1, True),
        StoredItem("c", 1, 1, False),
    ]
    stored.pin("a", False)
    assert not stored.is_pinned("a")


def test_pins_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_results_module, "MAX_PINS", 1)
    stored = StoredResults()
    stored.check_pins("a")
    stored.pin("a", True)
    stored.check_pins("a")
    with pytest.raises(ValidationError, match="unpin some"):
        stored.check_pins("b")
