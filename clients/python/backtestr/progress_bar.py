"""The bar that shows how far a backtest is: a widget in a notebook, a line in a terminal."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

from backtestr_protocol.stream_messages import BacktestProgress


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[BacktestProgress], None]]:
    """A bar from 0 to 100 %, moved by the function that this gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where a notebook lacks ipywidgets, and shows text then
        from tqdm.auto import tqdm

        bar = tqdm(total=100.0, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")

    def show(progress: BacktestProgress) -> None:
        bar.set_postfix_str(
            f"equity {progress.equity_curve_point.equity:,.2f}, {progress.orders_executed} orders", refresh=False
        )
        bar.update(progress.progress_percent - bar.n)

    with bar:
        yield show
