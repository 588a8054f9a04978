"""The wire contract of backtestr: what broker, engine and clients share, and nothing else.

`protocol/PROTOCOL.md` is the normative text; this package is that text as types and functions.
"""

from typing import Final

PROTOCOL_VERSION: Final = 1
SCHEMA_VERSION: Final = 1
__version__ = "0.1.0"
