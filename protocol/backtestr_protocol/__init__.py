"""This package is the wire contract of backtestr, the only code that broker, engine and clients share.

`protocol/PROTOCOL.md` is the normative text. The package states that text as types and functions.
"""

from typing import Final

# First of all: modules that are imported from here on may be compiled ones.
from . import compiled_modules as compiled_modules

PROTOCOL_VERSION: Final = 1
SCHEMA_VERSION: Final = 1
__version__ = "0.1.0"
