"""A backtest before it runs: every check that can refuse it, and the plan that has passed them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.parameters import Value
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.data.bar_source import BarSource
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.instants import instant, parse_instant
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.timeframes import close_time, parse_timeframe
from backtestr_engine.metrics.annualisation import Annualisation, annualisation
from backtestr_engine.metrics.calendars import ToldCalendar, told_calendar
from backtestr_engine.simulation.conventions import PRESETS, Conventions, Options, resolve_options
from backtestr_protocol.errors import InvalidConfiguration, ValidationError
from backtestr_protocol.messages import MAX_SYMBOLS, BacktestConfig, TickPrice, Timeframe
from backtestr_protocol.metrics import Annualised

from .earlier_bars import WarmUpBars, warm_up_of


class Plan(msgspec.Struct, frozen=True):
    """A backtest that has passed every check, with the bars of every symbol at hand.

    `panel` has the bars that are tested, and `warm_up` those that the algorithm sees: the same if it is None.
    """

    config: BacktestConfig
    algorithm: Algorithm
    parameters: dict[str, Value]
    options: Options
    panel: Panel
    warm_up: WarmUpBars | None = None

    @property
    def bars(self) -> Bars:
        """The bars of the first symbol."""
        return self.panel.series[0]

    @property
    def seen(self) -> Panel:
        """The bars that the algorithm sees: those of the warm-up, and then those of `panel`."""
        return self.panel if self.warm_up is None else self.warm_up.panel

    @property
    def annualisation(self) -> Annualisation:
        return self.annualised()[0]

    def annualised(self) -> tuple[Annualisation, Annualised]:
        """Return the rule of the figures per year, and what a result says of it."""
        conventions, panel = self.options.conventions, self.panel
        if conventions.calendar != "auto":
            told = ToldCalendar(conventions.calendar, self._why_calendar())
        else:
            told = told_calendar(panel.timestamp, panel.timeframe, panel.zone)
        rule = annualisation(panel.timeframe, told.calendar, conventions.risk_free)
        stated = Annualised(
            calendar=told.calendar,
            bars_per_year=rule.bars_per_year,
            risk_free=conventions.risk_free,
            reason=told.reason,
        )
        return rule, stated

    def _why_calendar(self) -> str:
        preset = self.options.preset
        is_presets = preset is not None and PRESETS[preset].get("calendar") == self.options.conventions.calendar
        return f"the preset {preset} has it" if is_presets else "it was given"

    def resolved_config(self) -> BacktestConfig:
        """Return the configuration with every parameter and option spelled out and the algorithm's version in its id.

        It is stored with a result, so that the result can be understood and repeated. Its `warmup` is the number of
        bars that were asked for; where fewer are stored, the result has a warning.
        """
        return msgspec.structs.replace(
            self.config,
            algorithm_id=self.algorithm.algorithm_id,
            parameters=dict(self.parameters),
            options=self.options.to_wire(),
            warmup=self.config.warmup or 0,
        )


def prepare(
    config: BacktestConfig,
    catalog: BarSource,
    conventions: Conventions,
    find: Callable[[str], Algorithm] = find_algorithm,
) -> Plan:
    """Check all of `config`, and load its bars, without running the algorithm.

    `conventions` are the defaults, and `find` finds algorithms by name and id. In the plan's configuration `symbol` is
    the first symbol, `symbols` are all where there are several, and an absent date is that of the range found: a
    backtest that is queued or repeated has the same bars, whatever is imported meanwhile. An absent price is the one
    that all bars were made of, if all were made of ticks.

    Raises `NotFound` (algorithm), `ValidationError` (a value ill-typed or out of range; a name of parameter, option or
    timeframe that does not exist), `InvalidConfiguration` (values that contradict each other, capital ≤ 0),
    `DataError` (symbol, or a range without bars) and whatever `find` raises.
    """
    symbols = _check_symbols(config)
    algorithm = find(config.algorithm_id)
    parameters = algorithm.check(config.parameters)
    options = resolve_options(config.options, conventions)
    check_money(config)
    timeframe = parse_timeframe(config.timeframe)
    start = _instant_or_none(config.start_date, "$.startDate")
    end = _instant_or_none(config.end_date, "$.endDate")
    if start is not None and end is not None and start >= end:
        raise InvalidConfiguration(
            f"startDate {config.start_date} is not before endDate {config.end_date} (the end is exclusive)",
            paths=["$.startDate", "$.endDate"],
        )
    if len(symbols) > 1:
        check_shared_account(options.conventions)
    panel = Panel.of([catalog.load(symbol, timeframe, start, end, price=config.price) for symbol in symbols])
    warm_up = warm_up_of(config, algorithm, parameters, panel, catalog)
    spelled_out = msgspec.structs.replace(
        config,
        symbol=symbols[0],
        symbols=symbols if len(symbols) > 1 else [],
        timeframe=timeframe,
        start_date=config.start_date or instant(int(panel.timestamp[0])),
        end_date=config.end_date or instant(close_time(int(panel.timestamp[-1]), timeframe)),
        price=config.price or _common_price(catalog, symbols, timeframe),
        warmup=warm_up.wanted,
    )
    return Plan(spelled_out, algorithm, parameters, options, warm_up.tested, warm_up)


def _instant_or_none(date: str | None, path: str) -> int | None:
    return None if date is None else parse_instant(date, path=path)


def _common_price(catalog: BarSource, symbols: Sequence[str], timeframe: Timeframe) -> TickPrice | None:
    """Return the price of ticks that the bars of every symbol are made of; None if there is no such price."""
    prices = {catalog.tick_price(symbol, timeframe, None) for symbol in symbols}
    return prices.pop() if len(prices) == 1 else None


def _check_symbols(config: BacktestConfig) -> list[str]:
    """Return all symbols, each once, in the order of the request."""
    if not config.symbols:
        if config.symbol is None:
            raise ValidationError(
                "a backtest needs a symbol: give symbol, or symbols for several that share the account",
                path="$.symbol",
                expected="a symbol",
            )
        return [config.symbol]
    if len(config.symbols) > MAX_SYMBOLS:
        raise ValidationError(
            f"a backtest has up to {MAX_SYMBOLS} symbols, not {len(config.symbols)}",
            path="$.symbols",
            expected=f"up to {MAX_SYMBOLS}",
            got=len(config.symbols),
        )
    twice = [symbol for symbol, count in Counter(config.symbols).items() if count > 1]
    if twice:
        raise ValidationError(
            f"symbols names {', '.join(map(repr, twice[:5]))} more than once", path="$.symbols", expected="each once"
        )
    if config.symbol is not None and config.symbol not in config.symbols:
        raise InvalidConfiguration(
            f"symbol {config.symbol!r} is not among symbols ({', '.join(config.symbols[:20])}); give one of the two",
            paths=["$.symbol", "$.symbols"],
        )
    return config.symbols


def check_shared_account(conventions: Conventions) -> None:
    """Refuse conventions that have a meaning for one symbol only."""
    books_next_bar = conventions.fill_at == "close" and conventions.close_booked == "next_bar"
    for name, alone in (
        ("leverage", conventions.leverage > 1.0),
        ("maintenanceMargin", conventions.maintenance_margin > 0.0),
        ("sizeCosts", conventions.size_costs == "per_unit"),
        ("closeBooked", books_next_bar),
    ):
        if alone:
            raise InvalidConfiguration(
                f"{name} as given is for a backtest of one symbol: several that share an account trade without credit, "
                "and at their own costs",
                paths=["$.symbols", f"$.options.{name}"],
            )


def check_money(config: BacktestConfig) -> None:
    """Refuse a capital or costs that no account can have."""
    for name, value in (
        ("initialCapital", config.initial_capital),
        ("commission", config.commission),
        ("slippage", config.slippage),
    ):
        if not math.isfinite(value):
            raise ValidationError(
                f"{name} must be a finite number, not {value!r}",
                path=f"$.{name}",
                expected="a finite number",
                got=repr(value),
            )
        if name != "initialCapital" and not 0 <= value < 1:
            raise ValidationError(
                f"{name} is a fraction from 0 up to, but not including, 1 (0.001 = 0.1 %), not {value!r}",
                path=f"$.{name}",
                expected="0 <= value < 1",
                got=value,
            )
    if config.initial_capital <= 0:
        raise InvalidConfiguration(
            f"initialCapital must be above 0, not {config.initial_capital!r}",
            path="$.initialCapital",
            expected="above 0",
            got=config.initial_capital,
        )


def check_signals(algorithm: Algorithm, signals: Sequence[Signals], conventions: Conventions) -> None:
    """Refuse signals that the conventions cannot execute, before any bar is simulated."""
    order_type = conventions.order_type
    if order_type == "market":
        return
    needed = {"limit": ["limit_price"], "stop": ["stop_price"], "stop_limit": ["limit_price", "stop_price"]}[order_type]
    missing = [name for name in needed if any(getattr(one, name) is None for one in signals)]
    if any(one.target is not None for one in signals):
        said = "gives targets, which are market orders"
    elif missing:
        said = f"gives its entries no {' and no '.join(missing)}"
    else:
        return
    raise InvalidConfiguration(
        f"orderType {order_type} makes entries wait for a price, and {algorithm.name} {said}; "
        "use orderType market, or another algorithm",
        paths=["$.options.orderType", "$.algorithmId"],
    )
