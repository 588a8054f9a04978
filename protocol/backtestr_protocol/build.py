"""This module says in one text which parts of backtestr are compiled here, and why others are not."""

from __future__ import annotations

from .compiled_modules import BUILD as HOT_MODULES
from .zmq_frames import IMPLEMENTATION as FRAMES

# For people: in the status and beside the version.
BUILD = f"frames: {FRAMES}; hot modules: {HOT_MODULES}"
