"""The histories that the TypeScript core replays are those of this core, and they show what they are for."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from support.client.make_histories import DIRECTORY, rendered


@pytest.fixture(scope="module")
def histories() -> dict[str, Any]:
    return {name: json.loads(text) for name, text in rendered().items()}


def test_the_files_match_the_core() -> None:
    made = rendered()
    stale = [name for name, text in made.items() if (DIRECTORY / name).read_text("utf-8") != text]
    assert stale == [], "run: PYTHONPATH=tests python -m support.client.make_histories"
    assert {file.name for file in DIRECTORY.iterdir()} == set(made)


def test_histories_of_sessions_show_every_effect(histories: dict[str, Any]) -> None:
    seen = Counter(one["kind"] for history in histories["sessions.json"] for one in effects(history))
    kinds = ("send", "welcomed", "answered", "failed", "refused", "keyRefused", "reconnect", "unattributed")
    assert all(seen[kind] >= 2 for kind in kinds), seen
    assert any(step["after"]["resent"] for history in histories["sessions.json"] for step in history["steps"])


def test_histories_of_subscriptions_show_every_effect_and_delivery(histories: dict[str, Any]) -> None:
    found = [one for history in histories["subscriptions.json"] for one in effects(history)]
    seen = Counter(one["kind"] for one in found)
    kinds = ("subscribe", "unsubscribe", "ask", "wait", "deliver", "end", "finished", "unattributed")
    assert all(seen[kind] >= 5 for kind in kinds), seen
    delivered = Counter(one["kind"] for effect in found for one in effect.get("deliveries", ()))
    assert all(delivered[kind] >= 5 for kind in ("message", "batch", "gap", "restarted", "maybeLost")), delivered
    ends = [history["steps"][-1]["after"] for history in histories["subscriptions.json"]]
    for name in ("gapsSeen", "gapsRepaired", "gapsLost", "gapsLeft", "duplicatesDropped", "watermarksBehind"):
        assert any(one[name] for one in ends), name


def effects(history: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for step in history["steps"] for one in step["effects"]]
