"""`backtestr trials`, against a scripted broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.client.command_line import asked, read_json, type_in
from support.client.peer import Peer

GROUP = "0123456789abcdef" * 2


def group(**changes: Any) -> dict[str, Any]:
    return {
        **{"group": GROUP, "algorithm": "sma_cross", "symbols": ["SYNTH"], "timeframe": "1h", "dataVersion": "a" * 32},
        **{"startTime": 1_704_067_200_000, "endTime": 1_706_749_260_000, "bars": 744, "trials": 1_515, "runs": 3_030},
        **{"firstTime": 1_790_000_000_000, "lastTime": 1_790_000_060_000},
        **changes,
    }


def script(*groups: dict[str, Any]) -> dict[str, Any]:
    return {"GetTrials": lambda _: {"groups": list(groups), "count": len(groups)}}


def test_groups_are_printed_with_their_range_and_their_numbers(home: Path) -> None:
    many = group(symbols=[f"S{number}" for number in range(5)], algorithm="momentum")
    with Peer(home, script(group(), many)) as peer:
        result = type_in(peer, "trials")
        assert asked(peer, "GetTrials") == [{}]
    assert result.exit_code == 0, result.output
    for shown in ("sma_cross", "2024-01-01", "2024-02-01 01:01", "1,515", "3,030", "2026-09-21", "and 2 more"):
        assert shown in result.stdout


def test_filters_are_sent_and_json_is_all_that_is_printed(home: Path) -> None:
    with Peer(home, script(group())) as peer:
        result = type_in(
            peer, "trials", "sma_cross", "SYNTH", "--timeframe", "1h", "--group", GROUP, "--limit", "3", "--json"
        )
        [request] = asked(peer, "GetTrials")
    assert request == {
        **{"algorithmId": "sma_cross", "symbol": "SYNTH", "timeframe": "1h", "group": GROUP},
        "limit": 3,
    }
    assert read_json(result) == [group()]
