"""Each task may print so many bytes; the rest is counted and left out."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.worker.prints import PrintBudget
from support.protocol.strategies import laws


def made(budget: int) -> tuple[PrintBudget, list[bytes]]:
    written: list[bytes] = []
    return PrintBudget(budget, written.append), written


@laws
@given(budget=st.integers(0, 50), prints=st.lists(st.binary(max_size=20), max_size=10))
def test_so_much_is_passed_on_and_the_rest_counted(budget: int, prints: list[bytes]) -> None:
    budgeted, written = made(budget)
    budgeted.at("b1")
    for one in prints:
        budgeted.write(one)
    everything = b"".join(prints)
    passed = b"".join(written)
    assert passed in (everything[:budget], everything[:budget] + b"\n")
    assert budgeted.end("b1") == max(0, len(everything) - budget)
    assert budgeted.end("b1") == 0


def test_tasks_have_budgets_of_their_own() -> None:
    budgeted, written = made(4)
    budgeted.write(b"none")
    budgeted.at("b1")
    budgeted.write(b"one")
    budgeted.at("b2")
    budgeted.write(b"twotwo")
    budgeted.at("b1")  # it was parked
    budgeted.write(b"!!!")
    budgeted.at(None)
    budgeted.write(b"x")
    assert b"".join(written) == b"noneonetwot\n!\n"
    assert [budgeted.end(one) for one in ("b1", "b2", None)] == [2, 2, 1]
    budgeted.write(b"x")
    assert written[-1] == b"x", "an ended budget begins anew"


def test_a_long_print_is_passed_on_in_parts() -> None:
    budgeted, written = made(1 << 20)
    budgeted.write(b"x" * (1 << 20))
    assert max(map(len, written)) == 1 << 16
    assert sum(map(len, written)) == 1 << 20


def test_what_is_printed_while_muted_is_dropped_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    budgeted, written = made(100)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    budgeted.renew_streams()
    budgeted.at("b1")
    print("before", end="")
    with budgeted.muted():
        print("dropped")
        print("d" * 1_000, end="", file=sys.stderr)
        os.write(1, b"dropped")
        budgeted.write_read(b" read late ")
    print("after")
    assert b"".join(written) == b"before read late after\n"
    assert budgeted.end("b1") == 0


def test_a_block_that_drops_prints_gives_standard_output_back(capfd: pytest.CaptureFixture[str]) -> None:
    budgeted, _ = made(100)

    def fail() -> None:
        os.write(1, b"dropped")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), budgeted.muted():
        fail()
    os.write(1, b"heard")
    assert capfd.readouterr().out == "heard"
