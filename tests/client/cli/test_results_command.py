"""`backtestr results` lists, pins, deletes and prunes stored results, against a scripted broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backtestr.cli.console import EXIT_ERROR, EXIT_USAGE
from support.client.command_line import asked, read_json, type_in
from support.client.peer import Peer

STORED = {"backtestId": "b1", "bytes": 3 << 20, "storedTime": 1_641_168_000_000, "pinned": True, "status": "completed"}
DUE = {"backtestId": "b0", "bytes": 2048, "reason": "older than 365 days"}


def pruned(data: Any) -> dict[str, Any]:
    return {"results": [DUE], "freedBytes": 2048, "dryRun": data.get("dryRun", False), "remaining": 2}


SCRIPT: dict[str, Any] = {
    "ListResults": lambda data: {"results": [STORED][: data.get("limit")], "count": 7, "bytes": 1 << 30},
    "PinBacktest": lambda data: data,
    "DeleteBacktest": lambda data: {**data, "freedBytes": 512},
    "PruneResults": pruned,
}


def test_results_are_listed_with_their_sizes(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        shown = type_in(peer, "results").stdout
        assert "b1" in shown
        assert "3.0 MiB" in shown
        assert "7 results, 1.0 GiB" in shown
        assert read_json(type_in(peer, "results", "--limit", "5", "--json"))["results"] == [STORED]
        assert asked(peer, "ListResults") == [{"limit": 20}, {"limit": 5}]


@pytest.mark.parametrize(("option", "pinned"), [("--pin", True), ("--unpin", False)])
def test_a_result_is_pinned_and_unpinned(home: Path, option: str, pinned: bool) -> None:
    with Peer(home, SCRIPT) as peer:
        assert read_json(type_in(peer, "results", "b1", option, "--json")) == {"backtestId": "b1", "pinned": pinned}
        assert asked(peer, "PinBacktest") == [{"backtestId": "b1", "pinned": pinned}]


def test_a_backtest_is_deleted_when_that_is_confirmed(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        assert type_in(peer, "results", "b1", "--delete", keys="n\n").exit_code == EXIT_ERROR
        assert asked(peer, "DeleteBacktest") == []
        assert "deleted b1, 512 bytes" in type_in(peer, "results", "b1", "--delete", keys="y\n").stdout
        assert read_json(type_in(peer, "results", "b2", "--delete", "--yes", "--json"))["freedBytes"] == 512
        assert [one["backtestId"] for one in asked(peer, "DeleteBacktest")] == ["b1", "b2"]


def test_a_dry_run_deletes_nothing(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        shown = type_in(peer, "results", "--prune", "--dry-run", "--max-age", "30", "--max-size", "1.5G").stdout
        assert "older than 365 days" in shown
        assert "1 result, 2.0 KiB, would be deleted; 2 more are due" in shown
        assert asked(peer, "PruneResults") == [
            {"dryRun": True, "maxAgeMs": 30 * 86_400_000, "maxBytes": 3 << 29},
        ]


def test_what_would_go_is_shown_before_it_is_asked(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        refused = type_in(peer, "results", "--prune", "--max-count", "3", "--keep-newest", "1", keys="n\n")
        assert refused.exit_code == EXIT_ERROR
        assert "delete 3 results?" in refused.output
        bounds = {"maxCount": 3, "keepNewest": 1}
        assert asked(peer, "PruneResults") == [{"dryRun": True, **bounds}]
        assert read_json(type_in(peer, "results", "--prune", "--yes", "--json"))["dryRun"] is False
        assert asked(peer, "PruneResults")[1:] == [{"dryRun": True}, {}]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--dry-run",), "belong to --prune"),
        (("--max-count", "3"), "belong to --prune"),
        (("--prune", "b1"), "takes no backtest"),
        (("--delete",), "name the backtest"),
        (("--pin",), "name the backtest"),
        (("b1", "--pin", "--delete"), "either pin or delete"),
        (("--prune", "--max-size", "many"), "is no size"),
        (("--prune", "--max-size", "0"), "is not above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(home: Path, words: tuple[str, ...], problem: str) -> None:
    with Peer(home, SCRIPT) as peer:
        result = type_in(peer, "results", *words)
        assert result.exit_code == EXIT_USAGE
        assert problem in result.output
        assert not [kind for kind, _, _ in peer.asked if kind in SCRIPT]
