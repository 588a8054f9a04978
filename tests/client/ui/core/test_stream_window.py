"""The window of untaken stream messages is bounded, and counts right whatever comes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backtestr.ui.core.stream_window import MAX_UNTAKEN, MAX_UNTAKEN_BYTES, StreamWindow
from backtestr.ui.core.tunnel_format import MalformedMessage


class Windows(RuleBasedStateMachine):
    """A list of sizes says what a window does."""

    def __init__(self) -> None:
        super().__init__()
        self.window = StreamWindow()
        self.sizes: list[int] = []
        self.dropped = 0

    @rule(size=st.sampled_from([1, 1000, MAX_UNTAKEN_BYTES // 3, MAX_UNTAKEN_BYTES]), times=st.integers(1, 700))
    def sends(self, size: int, times: int) -> None:
        for _ in range(times):
            has_room = len(self.sizes) < MAX_UNTAKEN and sum(self.sizes) + size <= MAX_UNTAKEN_BYTES
            assert self.window.lets_in(size) == has_room
            self.sizes += [size] if has_room else []
            self.dropped += not has_room

    @precondition(lambda self: bool(self.sizes))
    @rule(data=st.data())
    def takes(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, len(self.sizes)))
        self.window.taken(count)
        del self.sizes[:count]

    @rule(more=st.integers(1, 10_000))
    def claims_to_have_taken_what_was_not_sent(self, more: int) -> None:
        with pytest.raises(MalformedMessage, match="were taken"):
            self.window.taken(len(self.sizes) + more)

    @invariant()
    def counts_right(self) -> None:
        assert self.window.untaken == len(self.sizes) <= MAX_UNTAKEN
        assert self.window.untaken_bytes == sum(self.sizes) <= MAX_UNTAKEN_BYTES
        assert self.window.dropped == self.dropped


Windows.TestCase.settings = settings(max_examples=25, stateful_step_count=20)
TestWindows = Windows.TestCase


def test_a_page_that_takes_nothing_gets_the_first_two_thousand() -> None:
    window = StreamWindow()
    assert sum(window.lets_in(100) for _ in range(MAX_UNTAKEN + 300)) == MAX_UNTAKEN
    assert window.dropped == 300
    window.taken(500)
    assert sum(window.lets_in(100) for _ in range(600)) == 500
