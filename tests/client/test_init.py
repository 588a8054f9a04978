"""The public names of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


def test_a_name_is_imported_when_it_is_first_used_and_stays() -> None:
    assert backtestr.Replay is backtestr.PriceReplay is backtestr.replay.PriceReplay
    assert backtestr.errors.NotFound.code == "NOT_FOUND"
    assert set(backtestr.__all__) <= set(dir(backtestr))
    with pytest.raises(AttributeError, match="module 'backtestr' has no attribute 'conect'"):
        getattr(backtestr, "conect")  # noqa: B009


def test_every_name_can_be_the_first_that_is_used() -> None:
    program = (
        "import sys, backtestr\n"
        "for name in [*backtestr.__all__, 'resolvers']:\n"
        "    for one in [one for one in sys.modules if one.startswith('backtestr.')]: del sys.modules[one]\n"
        "    for one in [*backtestr._MODULES, *backtestr._RENAMED]: vars(backtestr).pop(one, None)\n"
        "    assert getattr(backtestr, name) is getattr(backtestr, name), name\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_package_alone_imports_nothing_that_takes_time() -> None:
    program = "import backtestr, sys; print(*sorted({'polars', 'zmq', 'numba', 'rich'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"
