"""Count the trials of a sweep once it has ended and its last block has come back: the number of its final status.

A worker counts, as a task that no request waits for. Where that fails, the next request for the status has it counted
again, so that a broker that was killed meanwhile costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from backtestr_broker.core.outbox import Outbox
from backtestr_protocol import topics
from backtestr_protocol.codec import decode, encode, encoded_payload
from backtestr_protocol.errors import BacktestrError, Busy, MessageError, SystemFault
from backtestr_protocol.trial_messages import GetTrials, TrialList

from .interactive_tasks import NO_REQUEST, InteractiveTasks, Result
from .sweeps import Sweep, Sweeps
from .workers import Worker

_list_decoder = msgspec.msgpack.Decoder(TrialList)


class TrialCounts:
    """The sweeps whose trials are being counted."""

    def __init__(
        self, outbox: Outbox, interactive: InteractiveTasks, sweeps: Sweeps, publish: Callable[[Sweep], None]
    ) -> None:
        """Take what publishes the status of a sweep that has changed."""
        self._outbox = outbox
        self._interactive = interactive
        self._sweeps = sweeps
        self._publish = publish
        self._counting: set[str] = set()

    def settle(self, sweep: Sweep) -> None:
        """Have the trials of a sweep counted, if it has ended and they are not."""
        group = sweep.checked.trial_group
        is_open = not sweep.ended or sweep.blocks.in_flight or sweep.figures.trials_after is not None
        if is_open or group is None or sweep.sweep_id in self._counting:
            return

        def done(_worker: Worker | None, result: Result) -> None:
            self._counting.discard(sweep.sweep_id)
            if isinstance(result, list):
                self._counted(sweep, result)
            else:
                error = self._outbox.error_data(result) if isinstance(result, BacktestrError) else result
                self._outbox.publish(topics.ERRORS, encoded_payload("Error", error))

        try:
            self._interactive.ask("GetTrials", encode(GetTrials(group=group, limit=1)), NO_REQUEST, "B", done=done)
        except Busy:  # the next request for its status has it counted
            return
        self._counting.add(sweep.sweep_id)

    def _counted(self, sweep: Sweep, frames: list[bytes]) -> None:
        if sweep.sweep_id not in self._sweeps or not sweep.ended or sweep.blocks.in_flight:
            return
        try:
            groups = decode(_list_decoder, frames[0] if frames else b"").groups
        except MessageError as error:
            self._outbox.report(SystemFault(f"the answer to GetTrials is no TrialList: {error}"))
            return
        self._sweeps.counted(sweep, groups[0].trials if groups else 0)
        self._publish(sweep)
