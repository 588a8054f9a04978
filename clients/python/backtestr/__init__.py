"""backtestr's Python client.

import backtestr

with backtestr.connect() as client:
    run = client.backtest("sma_cross", "SYNTH", timeframe="1m", parameters={"fast": 10, "slow": 30})
    run.show_progress()
    print(run.result().metrics.total_return)
"""

from backtestr_protocol import __version__, errors
from backtestr_protocol.messages import IndicatorConfig

from .client import Client, connect
from .effects import Gap, Restarted
from .metrics import Metrics
from .results import Results
from .run import GapWarning, Run
from .subscription import Subscription, Update

__all__ = [
    "Client",
    "Gap",
    "GapWarning",
    "IndicatorConfig",
    "Metrics",
    "Restarted",
    "Results",
    "Run",
    "Subscription",
    "Update",
    "__version__",
    "connect",
    "errors",
]
