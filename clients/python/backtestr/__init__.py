"""The Python client of backtestr.

import backtestr

with backtestr.connect() as client:
    run = client.backtest("sma_cross", "SYNTH", timeframe="1m", parameters={"fast": 10, "slow": 30})
    run.show_progress()
    print(run.result().metrics.total_return)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtestr_protocol as backtestr_protocol  # first: it says which modules are compiled ones
from backtestr.io.interrupts import uninterrupted
from backtestr_protocol import __version__

if TYPE_CHECKING:
    from backtestr.core.counters import Statistics
    from backtestr.core.effects import Gap, Restarted
    from backtestr.core.recovery import CircuitOpen, OfflineQueueFull, Recovery
    from backtestr.core.updates import Update
    from backtestr.io.error_log import ErrorReport
    from backtestr.io.request_windows import PipelinedReply
    from backtestr.state.shared_state import SharedState, StateChange
    from backtestr_protocol import errors
    from backtestr_protocol.messages import IndicatorConfig
    from backtestr_protocol.metrics import Metrics
    from backtestr_protocol.stream_messages import PriceUpdate

    from .client import Client
    from .connecting import connect
    from .pipeline import Pipeline
    from .replay import PriceReplay
    from .replay import PriceReplay as Replay
    from .results import Results
    from .run import Run
    from .state import resolvers as resolvers
    from .subscription import GapWarning, Subscription
    from .sweep import Sweep

# The module of each name, which is imported when the name is first used: `backtestr ui` uses none of them, and starts
# in half the time. A module itself stands under its own name.
_MODULES = {
    "CircuitOpen": "backtestr.core.recovery",
    "Client": "backtestr.client",
    "ErrorReport": "backtestr.io.error_log",
    "Gap": "backtestr.core.effects",
    "GapWarning": "backtestr.subscription",
    "IndicatorConfig": "backtestr_protocol.messages",
    "Metrics": "backtestr_protocol.metrics",
    "OfflineQueueFull": "backtestr.core.recovery",
    "Pipeline": "backtestr.pipeline",
    "PipelinedReply": "backtestr.io.request_windows",
    "PriceReplay": "backtestr.replay",
    "PriceUpdate": "backtestr_protocol.stream_messages",
    "Recovery": "backtestr.core.recovery",
    "Restarted": "backtestr.core.effects",
    "Results": "backtestr.results",
    "Run": "backtestr.run",
    "SharedState": "backtestr.state.shared_state",
    "StateChange": "backtestr.state.shared_state",
    "Statistics": "backtestr.core.counters",
    "Subscription": "backtestr.subscription",
    "Sweep": "backtestr.sweep",
    "Update": "backtestr.core.updates",
    "connect": "backtestr.connecting",
    "errors": "backtestr_protocol",
    "resolvers": "backtestr.state",
}
# Names until version 0.1.
_RENAMED = {"Replay": "PriceReplay"}

__all__ = [
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
    "PriceReplay",
    "PriceUpdate",
    "Recovery",
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
]


def __getattr__(name: str) -> Any:
    known = _RENAMED.get(name, name)
    if known not in _MODULES:
        raise AttributeError(f"module 'backtestr' has no attribute {name!r}")
    module = import_module(_MODULES[known])
    found = getattr(module, known, None) or import_module(f"{module.__name__}.{known}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_RENAMED})


def embedded(data_dir: str | Path | None = None) -> AbstractContextManager[Client]:
    """Start a broker in threads of this process, and give a client of it; both end with the `with` block.

    `data_dir`: the data directory, if not that of `BACKTESTR_DATA_DIR`. This needs the packages that
    `pip install 'backtestr[broker,engine]'` installs. Raises `InvalidConfiguration`.
    """
    # Ctrl-C in the middle of an import would leave modules that are half there, and the next try would fail.
    return uninterrupted(_embedded_client)(data_dir)


def _embedded_client() -> Callable[[str | Path | None], AbstractContextManager[Client]]:
    from .embedded_broker import embedded_client  # only here: other clients need neither broker nor engine

    return embedded_client
