"""Tracebacks of algorithms begin in the file of their author: the engine's own frames before it say nothing to them."""

from __future__ import annotations

import traceback
from pathlib import Path

from backtestr_protocol.texts import frames_after, traceback_of

_ENGINE = Path(__file__).parents[1]
# What calls code of an author. What such code calls itself is not among them: a frame there shows a call of the author.
_CALLERS = (
    str(_ENGINE / "algorithms" / "algorithm.py"),
    *(str(_ENGINE / folder) for folder in ("backtest", "library", "research", "worker")),
    str(Path(traceback.__file__).with_name("threading.py")),
)


def authors_traceback(error: BaseException) -> str:
    """Return the traceback of an error of an algorithm, bounded, from the first frame in the author's file on.

    The errors that the author's code has caught before stay, each from its first frame in that file on.
    """
    return traceback_of(error, _CALLERS)


def authors_stack(stack: traceback.StackSummary) -> str:
    """Return the lines of a stack, as a traceback shows them, from the first frame in the author's file on."""
    return "".join(["Traceback (most recent call last):\n", *traceback.format_list(frames_after(stack, _CALLERS))])
