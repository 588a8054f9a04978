"""A lifeline says once that it was cut, frees its descriptor, and is out of reach of code that uses standard input."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from backtestr_engine.worker.lifeline import Lifeline

TAKES = """
import os, sys
from backtestr_engine.worker.lifeline import Lifeline, standard_input_line, take_standard_input
import threading
line = standard_input_line()
cut = threading.Event()
lifeline = Lifeline(take_standard_input(), cut.set)
print(line.decode().strip(), repr(sys.stdin.readline()), repr(os.read(0, 1)), lifeline.is_cut, flush=True)
cut.wait()
lifeline.join()
print(lifeline.is_cut, flush=True)
"""


def test_it_wakes_once_it_is_cut_and_not_by_what_is_written() -> None:
    read_end, write_end = os.pipe()
    woken = threading.Event()
    lifeline = Lifeline(read_end, woken.set)
    os.write(write_end, b"anything")
    assert not woken.is_set()
    os.close(write_end)
    assert woken.wait(10)
    assert lifeline.is_cut
    lifeline.join()
    assert not any(one.name == "backtestr lifeline" and one.is_alive() for one in threading.enumerate())


def test_what_reads_standard_input_reads_nothing_of_the_lifeline() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TAKES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"settings\n")
        assert process.stdout.readline() == b"settings '' b'' False\n"
        process.stdin.close()
        assert process.stdout.readline() == b"True\n"
        assert process.wait(10) == 0
