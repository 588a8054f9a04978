"""The resources of the machine that one broker uses, as one value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from backtestr_broker.recording.recorder import Recorder

from .allow_list import AllowList
from .database import Database
from .freed_memory import FreedMemory
from .sockets import Sockets
from .stored_files import StoredFiles
from .supervisor import Supervisor
from .wake import Wake

if TYPE_CHECKING:
    from .prometheus import MetricsServer


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the event loop drives on the machine.

    `allow_list` has the keys that may connect, with CURVE. `freed_memory` is there where the process is the broker's.
    """

    sockets: Sockets
    database: Database
    files: StoredFiles
    supervisor: Supervisor
    wake: Wake
    allow_list: AllowList | None = None
    recorder: Recorder | None = None
    metrics: MetricsServer | None = None
    freed_memory: FreedMemory | None = None
