"""A command works with closed streams, and says in a sentence that its output is full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backtestr.cli.standard_streams import Descriptor, text_stream


def command(redirections: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with the shell's `redirections`."""
    shell = ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "backtestr", *arguments]
    environment = {**os.environ, "BACKTESTR_RUNTIME_DIR": "/proc/nope", **variables}
    return subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["keys", "list"], ["keys", "list", "--json"]])
def test_a_full_output_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    ended = command(">/dev/full", *arguments, BACKTESTR_DATA_DIR=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (1, "standard output cannot be written: No space left on device\n")


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_cost_no_command_its_exit_code(streams: str, tmp_path: Path) -> None:
    ended = command(streams, "keys", "new", "ann", BACKTESTR_DATA_DIR=str(tmp_path))
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert (tmp_path / "keys" / "allowed" / "ann.pub").exists()
    assert command(streams, "status").returncode == 3, "no broker runs there"


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-"])
def test_a_lost_error_message_leaves_the_exit_code(streams: str) -> None:
    assert command(streams, "status").returncode == 3
    assert command(streams, "nonsense").returncode == 2
    assert command(streams, "--version").stdout.startswith("backtestr ")


def test_characters_that_the_encoding_lacks_are_escaped() -> None:
    ended = command("", "status", BACKTESTR_RUNTIME_DIR="/proc/nöpe", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ended.returncode == 3
    assert "/proc/n\\xf6pe/connection.json" in ended.stderr


@pytest.mark.parametrize("columns", ["0", "1", "nonsense"])
def test_an_odd_terminal_is_no_error(columns: str, tmp_path: Path) -> None:
    ended = command("", "keys", "list", COLUMNS=columns, TERM="dumb", BACKTESTR_DATA_DIR=str(tmp_path))
    assert ended.returncode == 0
    assert "no key is allowed yet" in ended.stdout


def test_a_folder_of_keys_that_cannot_be_made_is_named_with_its_variable() -> None:
    ended = command("", "keys", "new", "ann", BACKTESTR_DATA_DIR="/proc/nope")
    assert ended.returncode == 1
    assert "cannot be used: No such file or directory: /proc/nope; name another in BACKTESTR_DATA_DIR" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("quiet", [False, True])
def test_a_failed_descriptor_fails_once(quiet: bool) -> None:
    with open("/dev/full", "wb") as full:
        descriptor = Descriptor(full.fileno(), quiet=quiet)
        stream = text_stream(descriptor, "utf-8")
        stream.write("lost")
        if quiet:
            stream.flush()
        else:
            with pytest.raises(OSError, match="No space"):
                stream.flush()
        assert descriptor.failure is not None
        assert descriptor.failure.errno == errno.ENOSPC
        stream.write("more")
        stream.flush()
        stream.close()
