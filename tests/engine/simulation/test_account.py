"""The account: rules from conventions, and the sums over its symbols."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from backtestr_engine.algorithms.signals import ENTRY, REPEATED_ENTRY
from backtestr_engine.simulation.account import kernel_rules, new_account, totals
from backtestr_engine.simulation.conventions import Conventions


@pytest.mark.parametrize(
    ("changes", "entries", "short_entries"),
    [
        ({"direction": "long", "cross_ties": "keep"}, ENTRY, 0),
        ({"direction": "long", "cross_ties": "fire"}, ENTRY | REPEATED_ENTRY, 0),
        ({"direction": "short", "cross_ties": "keep"}, 0, None),
    ],
)
def test_direction_and_ties_decide_which_flags_enter(
    changes: dict[str, str], entries: int, short_entries: int | None, conventions: Conventions
) -> None:
    rules = kernel_rules(msgspec.structs.replace(conventions, **changes), commission=0.0, slippage=0.0)[0]
    assert rules["entry_flags"] == entries
    assert bool(rules["short_entry_flags"]) == (short_entries is None)


def test_all_in_is_a_size_of_the_whole(conventions: Conventions) -> None:
    changed = msgspec.structs.replace(conventions, size="all_in", size_value=7.0)
    assert kernel_rules(changed, commission=0.0, slippage=0.0)["size_value"][0] == 1.0


def test_totals_add_up_the_symbols_at_their_marks() -> None:
    account = new_account(1_000.0, 3)
    account["quantity"], account["average_price"], account["mark"] = (2.0, 0.0, -1.0), (10.0, np.nan, 5.0), (11, 7, 8)
    account["fees"] = 1.0, 2.0, 3.0
    summed = totals(account)
    assert (summed.open_positions, summed.unrealized, summed.fees) == (2, 2.0 - 3.0, 6.0)
    assert account["symbol"].tolist() == [0, 1, 2]
    assert set(account["cash"]) == {1_000.0}
