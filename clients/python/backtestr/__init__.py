"""The Python client of backtestr.

import backtestr

with backtestr.connect() as client:
    run = client.backtest("sma_cross", "SYNTH", timeframe="1m", parameters={"fast": 10, "slow": 30})
    run.show_progress()
    print(run.result().metrics.total_return)
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import backtestr_protocol as backtestr_protocol  # first: it says which modules are compiled ones
from backtestr.core.counters import Statistics
from backtestr.core.effects import Gap, Restarted
from backtestr.core.recovery import CircuitOpen, OfflineQueueFull, Recovery
from backtestr.core.updates import Update
from backtestr.io.error_log import ErrorReport
from backtestr.io.interrupts import uninterrupted
from backtestr.io.request_windows import PipelinedReply
from backtestr.state.shared_state import SharedState, StateChange
from backtestr_protocol import __version__, errors
from backtestr_protocol.messages import IndicatorConfig
from backtestr_protocol.metrics import Metrics
from backtestr_protocol.stream_messages import PriceUpdate

from .client import Client
from .connecting import connect
from .pipeline import Pipeline
from .replay import PriceReplay
from .results import Results
from .run import Run
from .state import resolvers as resolvers
from .subscription import GapWarning, Subscription
from .sweep import Sweep

Replay = PriceReplay  # its name until version 0.1

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
