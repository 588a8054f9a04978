"""The warm-up compiles every kernel that a first backtest would wait for, or loads it from the cache on disk.

It also does what libraries put off until a first use, so that the first task of a worker imports nothing.

Compiling takes about 40 s on a machine that does nothing else. It says so, and how far it has come. The kernels of
sweeps are compiled with the others, and loaded by the first block: a worker that starts does not wait for them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from numba.core import event

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Run
from backtestr_engine.backtest.tables import arrow_stream
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.kernel_cache import KERNEL_CACHE, close_kernel_cache, is_complete
from backtestr_engine.publishing.backtest_streams import BacktestStreams
from backtestr_engine.simulation.conventions import Conventions, Options, resolve_options
from backtestr_protocol.messages import BacktestConfig

_BARS = 64
_TABLES = ("equity", "trades", "orders", "positions")
# The seconds between two lines about the progress.
_PROGRESS_SECONDS = 10.0
_AT_EVERY_START = (
    "about 30 s, at every start: there is no directory to keep them in; name one that this user can write to in "
    "XDG_CACHE_HOME or BACKTESTR_DATA_DIR"
)

Say = Callable[[str], None]


def warm(conventions: Conventions, say: Say | None = None) -> None:
    """Run every built-in algorithm once on a few bars, and one on two symbols; their messages are encoded, not sent.

    `say` takes lines for people while kernels are compiled; it is not called where the cache has all of them. Workers
    start together, so one of them is to give it.
    """
    if is_complete():
        with _uncollected():
            _run_all(conventions)
    else:
        with _told(say) if say is not None else contextlib.nullcontext():
            _run_all(conventions)
            if KERNEL_CACHE is not None and not is_complete():  # no other worker has been quicker
                warm_sweeps(conventions)
    close_kernel_cache()
    warm_answers(conventions)


def warm_answers(conventions: Conventions) -> None:
    """Do what an interactive worker's first answers would wait for: no kernel is part of that.

    pyzmq imports a module when it first sends without a copy, and msgspec resolves the types of options when it first
    reads some.
    """
    importlib.import_module("zmq.utils.garbage")
    resolve_options({"streams": {}}, conventions)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile: what numba loads stays, and looking takes a fifth of the time of loading."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def _told(say: Say) -> Iterator[None]:
    """Say that kernels are compiled, how far that is every ten seconds, and when it is done."""
    began = time.monotonic()
    once = "once: about 40 s" if KERNEL_CACHE is not None else _AT_EVERY_START
    say(f"compiling the kernels, {once}")
    with event.install_listener("numba:compile", _Progress(say, began)):
        yield
    say(f"compiled the kernels in {time.monotonic() - began:.0f} s")


class _Progress(event.Listener):
    def __init__(self, say: Say, began: float) -> None:
        self._say = say
        self._began = began
        self._due = began + _PROGRESS_SECONDS
        self._compiled = 0

    def on_start(self, event: Any) -> None:
        """Do nothing: a function counts when it is compiled."""

    def on_end(self, event: Any) -> None:
        """Count a function, and say how many there are if that is due."""
        self._compiled += 1
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _PROGRESS_SECONDS
            self._say(f"still compiling the kernels: {self._compiled} functions in {now - self._began:.0f} s")


def _run_all(conventions: Conventions) -> None:
    options = resolve_options({"streams": {"prices": True}}, conventions)
    bars, more = synthetic_bars("1m", _BARS), synthetic_bars("1m", _BARS, symbol="MORE")
    for algorithm in BUILT_IN.values():
        _run(algorithm, Panel.of([bars]), options)
    _run(BUILT_IN["buy_and_hold"], Panel.of([bars, more]), options)


def warm_sweeps(conventions: Conventions) -> None:
    """Run sweeps that use every kernel of theirs."""
    from backtestr_engine.research.sweeps import sweep  # most starts do not need it

    for name in ("sma_cross", "donchian_breakout"):
        parameter = next(iter(BUILT_IN[name].parameters))
        sweep(synthetic_bars("1m", _BARS), BUILT_IN[name], {parameter: [12, 14]}, conventions=conventions)


def _run(algorithm: Algorithm, panel: Panel, options: Options) -> None:
    config = BacktestConfig(
        algorithm_id=algorithm.algorithm_id,
        symbol=panel.symbols[0],
        initial_capital=10_000.0,
        timeframe=panel.timeframe,
        commission=0.001,
        slippage=0.001,
        parameters={},
    )
    run = Run(Plan(config, algorithm, algorithm.check({}), options, panel), "warm")
    streams = BacktestStreams("warm", panel, options.streams, {})
    streams.chunk(run.advance(_BARS), 0, _BARS)
    streams.progress(run.progress(), run.marks())
    result = run.finish()
    for name in _TABLES:
        arrow_stream(result.frame(name))
