"""The metrics of a backtest: name, group, unit and formula of each figure, stated once.

The engine computes them, the JSON Schema documents them, and the command line takes their groups, units and labels from
here. A further metric needs a field of `Metrics` and its computation in the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

Group = Literal["equity", "return", "risk", "drawdown", "activity", "trades"]
Unit = Literal["money", "fraction", "ms", "ratio", "count"]

if TYPE_CHECKING:
    Figure = float | None
    Whole = int | None
    Texts = list[str]
    Counts = dict[str, int]
    ABSENT: Any
    Annualisation: TypeAlias = "Annualised | None"
else:
    Figure = float | None | UnsetType
    Whole = int | None | UnsetType
    Texts = list[str] | UnsetType
    Counts = dict[str, int] | UnsetType
    ABSENT = UNSET


def _figure(group: Group, unit: Unit, meaning: str, *, label: str = "") -> msgspec.Meta:
    """Return the metadata of a figure for schema and command line; `label` where the name does not give it."""
    return msgspec.Meta(
        description=f"{meaning} Unit: {unit}.", extra={"group": group, "unit": unit, "label": label, "meaning": meaning}
    )


class Annualised(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The rule by which figures per bar became figures per year.

    `bars_per_year` is A. `risk_free` is a yearly rate, as a fraction. `reason` says why it is that calendar: it was
    given, or told from the bars.
    """

    calendar: str
    bars_per_year: float
    risk_free: float
    reason: str


if not TYPE_CHECKING:
    Annualisation = Annualised | None | UnsetType


class Metrics(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The figures of one backtest.

    Returns, rates and drawdowns are fractions (0.25 = 25 %), drawdowns positive, money in the account's currency.
    e₁ … eₙ is the equity at the close of every bar and e₀ the initial capital; rᵢ = eᵢ / eᵢ₋₁ − 1 are the returns per
    bar, A the bars per year and f the risk-free rate per bar. Drawdowns count from e₀, under `drawdownFrom:
    first_close` from e₁, here and in `peakEquity`. `statistics: daily_geometric` has other formulas for some figures
    (docs/conventions.md). A metric that is undefined is nil, and `undefined` has the reason. A metric that was not
    computed is absent. Sources: empyrical is empyrical-reloaded 0.7 (Quantopian's), whose formulas are named where
    several are in use.
    """

    start_equity: Annotated[Figure, _figure("equity", "money", "The initial capital.")] = ABSENT
    final_equity: Annotated[Figure, _figure("equity", "money", "eₙ; an open position is marked at the last close.")] = (
        ABSENT
    )
    peak_equity: Annotated[Figure, _figure("equity", "money", "max(e₀, e₁ … eₙ).")] = ABSENT

    total_return: Annotated[Figure, _figure("return", "fraction", "eₙ / e₀ − 1.")] = ABSENT
    annual_return: Annotated[
        Figure,
        _figure(
            "return",
            "fraction",
            "(1 + totalReturn)^(A / n) − 1: the yearly rate to which the return of n bars compounds (vectorbt, "
            "empyrical).",
        ),
    ] = ABSENT
    cagr: Annotated[
        Figure,
        _figure(
            "return",
            "fraction",
            "(1 + totalReturn)^(1 / years) − 1, years of 365.25 days from the first open to the last close.",
            label="CAGR",
        ),
    ] = ABSENT
    buy_and_hold_return: Annotated[
        Figure,
        _figure(
            "return",
            "fraction",
            "Last close / first close − 1, without costs; of several symbols, with equal parts in each.",
        ),
    ] = ABSENT
    alpha: Annotated[
        Figure,
        _figure(
            "return",
            "fraction",
            "(1 + mean((r − f) − beta · (m − f)))^A − 1, the return per year that the market does not explain (Jensen "
            "1968; compounded as empyrical does).",
        ),
    ] = ABSENT
    beta: Annotated[
        Figure,
        _figure(
            "return",
            "ratio",
            "cov(r, m) / var(m); mᵢ = closeᵢ / closeᵢ₋₁ − 1 is the return of buying and holding from the first close "
            "on, and m₁ = 0.",
        ),
    ] = ABSENT

    volatility: Annotated[Figure, _figure("risk", "fraction", "σ(r) · √A, σ with n − 1 degrees of freedom.")] = ABSENT
    sharpe_ratio: Annotated[Figure, _figure("risk", "ratio", "mean(r − f) / σ(r − f) · √A (Sharpe 1994).")] = ABSENT
    sortino_ratio: Annotated[
        Figure,
        _figure(
            "risk",
            "ratio",
            "mean(r − f) · A / (√mean(min(r − f, 0)²) · √A), the mean over all bars (Sortino & Price 1994).",
        ),
    ] = ABSENT
    calmar_ratio: Annotated[
        Figure, _figure("risk", "ratio", "annualReturn / maxDrawdown (Young 1991, over the whole backtest).")
    ] = ABSENT
    omega_ratio: Annotated[
        Figure,
        _figure("risk", "ratio", "Σ max(r − f, 0) / Σ max(f − r, 0) (Keating & Shadwick 2002, threshold f)."),
    ] = ABSENT
    skew: Annotated[
        Figure,
        _figure("risk", "ratio", "m₃ / m₂^1.5, mₖ = mean((r − mean r)ᵏ) (Fisher & Pearson; scipy.stats.skew)."),
    ] = ABSENT
    kurtosis: Annotated[
        Figure,
        _figure("risk", "ratio", "m₄ / m₂² − 3: 0 for a normal distribution (Fisher's excess; scipy.stats.kurtosis)."),
    ] = ABSENT
    value_at_risk_95: Annotated[
        Figure,
        _figure(
            "risk",
            "fraction",
            "The 5 % quantile of r, interpolated linearly: a return per bar, negative where it is a loss (empyrical).",
        ),
    ] = ABSENT
    conditional_value_at_risk_95: Annotated[
        Figure,
        _figure(
            "risk",
            "fraction",
            "The mean of the ⌊0.05 · (n − 1)⌋ + 1 lowest r: a return per bar, negative where it is a loss (empyrical).",
        ),
    ] = ABSENT
    tail_ratio: Annotated[
        Figure, _figure("risk", "ratio", "|95 % quantile of r| / |5 % quantile of r| (empyrical).")
    ] = ABSENT

    max_drawdown: Annotated[Figure, _figure("drawdown", "fraction", "max (1 − eᵢ / pᵢ), pᵢ = max(e₀, e₁ … eᵢ).")] = (
        ABSENT
    )
    average_drawdown: Annotated[
        Figure,
        _figure(
            "drawdown",
            "fraction",
            "The mean, over all drawdowns from a peak to its recovery or the end, of the deepest point of each.",
        ),
    ] = ABSENT
    max_drawdown_duration_ms: Annotated[
        Whole,
        _figure("drawdown", "ms", "The longest time from a peak to the bar that regains it, or to the last bar."),
    ] = ABSENT
    average_drawdown_duration_ms: Annotated[
        Whole, _figure("drawdown", "ms", "The mean of these times over all drawdowns.")
    ] = ABSENT
    recovery_factor: Annotated[
        Figure,
        _figure("drawdown", "ratio", "totalReturn / maxDrawdown: the total return in units of the deepest drawdown."),
    ] = ABSENT
    ulcer_index: Annotated[
        Figure,
        _figure(
            "drawdown", "fraction", "√mean((1 − eᵢ / pᵢ)²), a fraction (Martin & McCann 1989, who give it in percent)."
        ),
    ] = ABSENT

    exposure: Annotated[
        Figure,
        _figure("activity", "fraction", "Bars that ended with a position (of several symbols: with any position) / n."),
    ] = ABSENT
    turnover: Annotated[
        Figure,
        _figure("activity", "ratio", "Σ |fill price · fill quantity| / mean(e): traded value in units of the account."),
    ] = ABSENT
    total_fees: Annotated[Figure, _figure("activity", "money", "Σ fees of all fills.")] = ABSENT
    total_slippage: Annotated[
        Figure, _figure("activity", "money", "Σ |fill price − market price| · fill quantity.")
    ] = ABSENT

    total_trades: Annotated[
        Whole, _figure("trades", "count", "Closed trades and those that are open at the end, as vectorbt counts.")
    ] = ABSENT
    open_trades: Annotated[Whole, _figure("trades", "count", "The positions that are open at the end.")] = ABSENT
    win_rate: Annotated[Figure, _figure("trades", "fraction", "Closed trades with pnl > 0 / closed trades.")] = ABSENT
    best_trade: Annotated[
        Figure,
        _figure("trades", "fraction", "The highest return of a closed trade: pnl / (entry price · quantity)."),
    ] = ABSENT
    worst_trade: Annotated[Figure, _figure("trades", "fraction", "The lowest return of a closed trade.")] = ABSENT
    average_trade: Annotated[Figure, _figure("trades", "fraction", "The mean return of the closed trades.")] = ABSENT
    profit_factor: Annotated[
        Figure, _figure("trades", "ratio", "Σ pnl of winning closed trades / −Σ pnl of losing ones.")
    ] = ABSENT
    payoff_ratio: Annotated[
        Figure, _figure("trades", "ratio", "Mean pnl of winning closed trades / −mean pnl of losing ones.")
    ] = ABSENT
    expectancy: Annotated[Figure, _figure("trades", "money", "The mean pnl of the closed trades.")] = ABSENT
    sqn: Annotated[
        Figure,
        _figure(
            "trades",
            "ratio",
            "√N · mean(pnl) / σ(pnl) of N closed trades, σ with N − 1 degrees of freedom (Tharp's system quality "
            "number).",
            label="SQN",
        ),
    ] = ABSENT
    kelly: Annotated[
        Figure,
        _figure(
            "trades",
            "ratio",
            "winRate − (1 − winRate) / payoffRatio: the share of capital whose use makes it grow fastest (Kelly 1956).",
        ),
    ] = ABSENT
    average_trade_duration_ms: Annotated[
        Whole, _figure("trades", "ms", "The mean time from entry to exit of the closed trades.")
    ] = ABSENT
    max_trade_duration_ms: Annotated[Whole, _figure("trades", "ms", "The longest of these times.")] = ABSENT
    average_mae: Annotated[
        Figure,
        _figure(
            "trades",
            "fraction",
            "The mean, over the closed trades, of the largest move against the holder, a fraction of the entry price "
            "from 0 up (maximum adverse excursion, Sweeney 1996).",
            label="Average MAE",
        ),
    ] = ABSENT
    average_mfe: Annotated[
        Figure,
        _figure(
            "trades",
            "fraction",
            "The mean, over the closed trades, of the largest move for the holder (maximum favourable excursion).",
            label="Average MFE",
        ),
    ] = ABSENT

    reasons: Annotated[
        dict[str, str], msgspec.Meta(description="The reason why a metric is nil, by the name of the metric.")
    ] = msgspec.field(name="undefined", default_factory=dict)
    sentences: Annotated[
        Texts,
        msgspec.Meta(description="The sentences that a reader of the figures must know; absent where there are none."),
    ] = msgspec.field(name="warnings", default=ABSENT)
    rejections: Annotated[
        Counts, msgspec.Meta(description="The number of rejected orders, by the reason of their rejection.")
    ] = msgspec.field(name="rejectedOrders", default=ABSENT)
    annualisation: Annotated[
        Annualisation, msgspec.Meta(description="The calendar of the figures per year, and why it is that one.")
    ] = ABSENT

    @property
    def warnings(self) -> list[str]:
        """The sentences that a reader of the figures must know, such as that the warm-up was too short."""
        return list(self.sentences or ())

    def with_warnings(self, further: Sequence[str]) -> Metrics:
        """Return the metrics with further warnings."""
        return msgspec.structs.replace(self, sentences=[*self.warnings, *further]) if further else self

    @property
    def rejected_orders(self) -> dict[str, int]:
        """The number of rejected orders, by the reason of their rejection; empty without any."""
        return dict(self.rejections or {})

    @property
    def undefined(self) -> dict[str, str]:
        """The reason why a metric is None, by its name in Python."""
        return {_PYTHON_NAMES.get(name, name): reason for name, reason in self.reasons.items()}

    def defined(self) -> dict[str, float | int]:
        """Return the metrics that have a value, by name, in the order above."""
        values = {one.name: getattr(self, one.name) for one in METRICS}
        return {name: value for name, value in values.items() if value is not None and value is not UNSET}

    def to_wire(self) -> dict[str, Any]:
        """Return the metrics by their names on the wire: those with a value, then nil for the undefined ones."""
        values = {WIRE_NAMES[name]: value for name, value in self.defined().items()}
        rejected = {"rejectedOrders": self.rejected_orders} if self.rejected_orders else {}
        warnings = {"warnings": self.warnings} if self.warnings else {}
        rule = self.annualisation
        annualised = {"annualisation": msgspec.to_builtins(rule)} if isinstance(rule, Annualised) else {}
        texts = {"undefined": self.reasons, **warnings, **rejected, **annualised}
        return {**values, **dict.fromkeys(self.reasons), **texts}

    def with_absent_as_none(self) -> Metrics:
        """Return the metrics with None in place of each that the broker did not send."""
        absent = [name for name in (*WIRE_NAMES, "annualisation") if getattr(self, name) is UNSET]
        return msgspec.structs.replace(self, **dict.fromkeys(absent))


class Metric(msgspec.Struct, frozen=True):
    """A metric: its names in Python and on the wire, its group, unit and label, and its formula."""

    name: str
    wire_name: str
    group: Group
    unit: Unit
    label: str
    meaning: str


def _metric(field: msgspec.structs.FieldInfo) -> Metric:
    (meta,) = field.type.__metadata__
    label = meta.extra["label"] or field.name.removesuffix("_ms").replace("_", " ").capitalize().replace(" 95", " 95 %")
    return Metric(
        name=field.name,
        wire_name=field.encode_name,
        group=meta.extra["group"],
        unit=meta.extra["unit"],
        label=label,
        meaning=meta.extra["meaning"],
    )


_TEXTS = ("reasons", "sentences", "rejections", "annualisation")

METRICS = tuple(_metric(field) for field in msgspec.structs.fields(Metrics) if field.name not in _TEXTS)
"""All metrics in their order; those of a group follow each other."""
WIRE_NAMES = {one.name: one.wire_name for one in METRICS}
_PYTHON_NAMES = {one.wire_name: one.name for one in METRICS}
