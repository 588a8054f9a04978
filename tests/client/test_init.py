"""The public names of the package."""

from __future__ import annotations

import backtestr


def test_the_public_names_are_few() -> None:
    assert set(backtestr.__all__) == {
        "CircuitOpen",
        "Client",
        "ErrorReport",
        "Gap",
        "GapWarning",
        "IndicatorConfig",
        "Metrics",
        "OfflineQueueFull",
        "Pipeline",
        "PipelinedReply",
        "PriceUpdate",
        "Recovery",
        "PriceReplay",
        "Replay",
        "Restarted",
        "Results",
        "Run",
        "SharedState",
        "StateChange",
        "Statistics",
        "Subscription",
        "Sweep",
        "Update",
        "__version__",
        "connect",
        "embedded",
        "errors",
    }
    assert all(hasattr(backtestr, name) for name in backtestr.__all__)


def test_resolvers_are_reachable_by_the_name_that_the_manual_gives() -> None:
    assert backtestr.resolvers.merge_fields({"a": 1}, {"b": 2}, None) == {"a": 1, "b": 2}
