"""The implementations of frames and MACs as parameters; the compiled ones are skipped where they are not used."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backtestr_protocol.wire import pure_frames
from backtestr_protocol.wire.compiled import Mac, compiled_mac
from backtestr_protocol.wire.pure_mac import PureMac
from backtestr_protocol.zmq_frames import Frames, compiled_frames

COMPILED_FRAMES: Frames | str = compiled_frames()
COMPILED_MAC: Callable[[bytes], Mac] | str = compiled_mac()

needs_compiled_frames = pytest.mark.skipif(
    isinstance(COMPILED_FRAMES, str), reason=f"no compiled frames: {COMPILED_FRAMES}"
)
needs_compiled_mac = pytest.mark.skipif(isinstance(COMPILED_MAC, str), reason=f"no compiled MAC: {COMPILED_MAC}")

EVERY_FRAMES = [
    pytest.param(pure_frames, id="pure"),
    pytest.param(COMPILED_FRAMES, id="compiled", marks=needs_compiled_frames),
]
EVERY_MAC = [
    pytest.param(PureMac, id="pure"),
    pytest.param(COMPILED_MAC, id="compiled", marks=needs_compiled_mac),
]
