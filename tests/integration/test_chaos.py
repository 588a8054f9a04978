"""The programs of `benchmarks/chaos` find no fault in a small run; `make chaos` runs them in full."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.harness import ROOT, RawClient, RunningBroker
from support.node_programs import BUILT_CLIENT

CHAOS = ROOT / "benchmarks" / "chaos"


def run(name: str, *arguments: str, not_allowed: int | None = None) -> str:
    """Run a program that must find no fault and return the line that it prints.

    The test is skipped if the program exits with the code `not_allowed`: the system does not let it do what it does.
    """
    search = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(CHAOS / f"{name}.py"), *arguments],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        timeout=110,
    )
    if not_allowed is not None and done.returncode == not_allowed:
        pytest.skip(done.stdout.strip() or done.stderr.strip())
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "0 faults" in done.stdout
    return done.stdout


def test_killed_workers_cost_no_backtest_and_no_message() -> None:
    said = run("workers", "--kills", "2", "--workers", "2")
    assert said.startswith("2 kills")


def test_a_killed_broker_loses_nothing_and_does_nothing_twice() -> None:
    said = run("broker", "--kills", "1")
    assert said.startswith("1 kills")
    assert " 0 pings" not in said


def test_a_killed_broker_costs_clients_in_node_nothing() -> None:
    assert (BUILT_CLIENT / "dist" / "index.mjs").is_file(), "run: make build-ts"
    said = run("node", "--kills", "1")
    assert said.startswith("1 kills")
    assert " 0 pings" not in said


def test_a_stopped_subscriber_delays_no_other_and_knows_what_it_lost() -> None:
    said = run("subscriber", "--seconds", "2")
    assert "one stopped for 2 s" in said


def test_increments_of_many_add_up_and_snapshots_are_true() -> None:
    said = run("state", "--clients", "3", "--keys", "3", "--times", "30")
    assert said.startswith("270 increments by 3 clients on 3 keys")
    assert "270 changes followed" in said


def test_hostile_values_have_typed_answers_and_cost_nothing() -> None:
    said = run("values", "--requests", "400", "--notes", "1200")
    assert said.startswith("400 requests")
    assert "1,200 notes" in said


def test_a_full_disk_loses_nothing_and_all_goes_on_when_there_is_room() -> None:
    said = run("full_disk", "--rounds", "1", not_allowed=3)
    assert said.startswith("the disk was filled 1 times")


@pytest.mark.parametrize("arguments", [["--kills", "many"], ["--unheard-of"]])
def test_a_wrong_argument_is_refused(arguments: list[str]) -> None:
    with pytest.raises(AssertionError, match="usage"):
        run("workers", *arguments)


# --- names that two connections share ---


def test_two_clients_of_one_name_are_both_served(broker: RunningBroker) -> None:
    with RawClient(broker.connection_file, "twin") as first, RawClient(broker.connection_file, "twin") as second:
        assert first.hello()["sessionId"] != second.hello()["sessionId"]
        for number in range(20):
            for which, raw_client in enumerate((first, second)):
                key = f"twins.{which}"
                assert raw_client.ask("UpdateState", {"key": key, "value": number})["version"] == number + 1
