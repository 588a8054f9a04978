"""Every name is a file's on every system, and comes back from it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol.file_names import file_name, is_device, name_of

CHARACTERS = string.ascii_letters + string.digits + "-_"
DEVICES = ("con", "CON", "nul", "Prn", "AUX", "com1", "LPT9", "com0", "conin$", "nul.txt", "con .txt", "COM\u00b9")


@given(st.text(CHARACTERS, min_size=1, max_size=64) | st.sampled_from(["con", "CON", "Nul", "com1", "LPT3", "con_"]))
def test_a_name_is_no_device_and_comes_back(name: str) -> None:
    named = file_name(name)
    assert not is_device(named)
    assert name_of(named) == name
    assert named == name or is_device(name)


@pytest.mark.parametrize("name", DEVICES)
def test_windows_takes_devices_whatever_their_case_and_what_follows_a_dot(name: str) -> None:
    assert is_device(name)


@pytest.mark.parametrize("name", ["console", "con-1", "com", "com10", "_nul", "nul_"])
def test_what_only_begins_like_a_device_is_a_name(name: str) -> None:
    assert file_name(name) == name
