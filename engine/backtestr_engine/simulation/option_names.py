"""Names and choices of options: near misses, names that people bring from other libraries, and lists of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from backtestr_protocol.errors import ValidationError, did_you_mean, quoted

_ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    # vectorbt, backtesting.py, zipline, backtrader, pandas and everyday speech
    "parameters": ("params", "param", "args", "kwargs", "strategyparams", "strategyparameters"),
    "initialCapital": (
        "cash",
        "initcash",
        "initialcash",
        "startcash",
        "capital",
        "startcapital",
        "capitalbase",
    ),
    "commission": (
        "fees",
        "fee",
        "commissions",
        "commissionrate",
        "feerate",
        "cost",
        "costs",
        "commissionpct",
        "feespct",
    ),
    "commissionFixed": ("fixedfees", "fixedfee", "fixedcommission"),
    "slippage": ("spread", "slip", "slippagepct"),
    "stopLoss": ("slstop", "sl", "stop", "stoploss", "stoplosspct", "slpct"),
    "takeProfit": ("tpstop", "tp", "takeprofitpct", "target", "profittarget", "tppct"),
    "trailingStop": ("tslstop", "tsl", "sltrail", "trail", "trailing", "trailingstoploss", "stoptrail", "trailpct"),
    "startDate": ("start", "from", "fromdate", "startdate", "begin", "since", "starttime"),
    "endDate": ("end", "to", "todate", "enddate", "until", "endtime"),
    "timeframe": ("freq", "frequency", "interval", "resolution", "barsize", "timeframes", "tf"),
    "algorithmId": ("strategy", "strategyid", "algo", "algorithm", "strategyname"),
    "symbol": ("ticker", "tickers", "instrument", "asset", "pair", "symbols", "coin"),
    "warmup": ("warmup", "warmupbars", "warmupperiod", "startupcandlecount", "lookback"),
    "fillAt": ("tradeonclose", "executeon", "fillon", "cheatonclose", "coc"),
    "size": ("sizetype", "sizing", "positionsize", "positionsizing", "sizer", "stakeamount", "stake"),
    "leverage": ("margin", "marginratio"),
    "maintenanceMargin": ("maintmargin", "mmr"),
    "direction": ("side", "longonly", "shortonly", "allowshort"),
    "onOpposite": ("exclusiveorders", "upononpositeentry", "uponoppositeentry", "onoppositesignal"),
    "closeAtEnd": ("finalizetrades", "closeopentrades", "closeonend"),
    "riskFree": ("riskfreerate", "rf", "riskfreereturn"),
    "calendar": ("yearfreq", "tradingdays", "periodsperyear", "annfactor", "annualisation", "annualization"),
    "pace": ("speed", "barspersecond"),
    "preset": ("mode", "profile", "compat"),
}
"""The names of other libraries for each name, folded: without capitals, underscores and hyphens."""

_BY_FOLDED = {other: ours for ours, others in _ELSEWHERE.items() for other in (*others, ours.casefold())}


def check_name(name: str, known: Sequence[str]) -> None:
    """Raise a `ValidationError` for an option that does not exist, with the name that was meant if it can be told."""
    if name in known:
        return
    ours = _BY_FOLDED.get(name.casefold().replace("_", "").replace("-", ""))
    if ours is None:
        said = f"{did_you_mean(name, known)} ({', '.join(sorted(known))})"
    else:
        said = f"; did you mean {ours!r}" + ("?" if ours in known else ", which stands beside the options?")
    raise ValidationError(
        f"unknown option {name!r}{said}", path=f"$.options.{name}", expected=sorted(known), got=name, meant=ours
    )


def check_choice(wire_name: str, value: Any, kind: Any) -> None:
    """Raise a `ValidationError`, listing the values, for one that a `Literal` does not have; take all other kinds."""
    if get_origin(kind) is not Literal or value in get_args(kind):
        return
    choices = [str(choice) for choice in get_args(kind)]
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    raise ValidationError(
        f"option {wire_name!r} must be one of {', '.join(choices)}, not {quoted(value)}{near}",
        path=f"$.options.{wire_name}",
        expected=choices,
        got=quoted(value),
    )
