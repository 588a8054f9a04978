"""No caller of a log writer waits, whatever the reader of its descriptor does, and dropped lines are counted."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from backtestr_protocol.log_writer import LogWriter, open_without_waiting, read_descriptor, text_stream

LINE = "x" * 999 + "\n"


@dataclass
class Pipe:
    """A pipe that nobody reads until the test does."""

    read_end: int
    write_end: int
    size: int = 4096

    def read(self, size: int = 1 << 20) -> bytes:
        return os.read(self.read_end, size)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    made = Pipe(read_end, write_end)
    yield made
    for end in (read_end, write_end):
        try:
            os.close(end)
        except OSError:  # the test has closed it
            continue


def dropped(count: int) -> str:
    return f"{count} dropped\n"


def all_of(pipe: Pipe, writer: LogWriter) -> bytes:
    """Read the pipe until the writer has nothing more to write."""
    found = bytearray()

    def end() -> None:
        writer.close(20.0)
        os.close(pipe.write_end)

    thread = threading.Thread(target=end)
    thread.start()
    while part := pipe.read():
        found += part
    thread.join()
    return bytes(found)


def test_lines_are_written_in_order(pipe: Pipe) -> None:
    writer = LogWriter(pipe.write_end, dropped)
    for number in range(1000):
        writer.write(f"{number}\n")
    assert all_of(pipe, writer) == b"".join(b"%d\n" % number for number in range(1000))


def test_a_full_pipe_stops_no_caller_and_the_dropped_lines_are_counted_when_it_is_read_again(pipe: Pipe) -> None:
    writer = LogWriter(pipe.write_end, dropped, max_waiting_bytes=50_000)
    for _ in range(500):
        writer.write(LINE)
    assert not writer.drain(0.0)
    written = all_of(pipe, writer)
    kept, lost = written.count(b"xxx\n"), [int(line.split()[0]) for line in written.splitlines() if b"dropped" in line]
    assert kept <= 50
    assert kept + sum(lost) == 500
    assert lost


def test_a_text_larger_than_the_queue_is_dropped(pipe: Pipe) -> None:
    writer = LogWriter(pipe.write_end, dropped, max_waiting_bytes=100)
    writer.write("x\n" * 51)
    writer.write("y\n")
    assert all_of(pipe, writer) == b"51 dropped\ny\n"


def test_the_end_of_the_process_does_not_wait_for_a_reader() -> None:
    """A process that has a full pipe as standard error, and does not close its writer, ends all the same."""
    code = (
        "import sys, time\nfrom backtestr_protocol.log_writer import LogWriter, text_stream\n"
        "writer = LogWriter(2, lambda count: '')\nsys.stderr = text_stream(writer.write_bytes, 2)\n"
        "[writer.write('x' * 1000) for _ in range(1000)]\nprint('y', file=sys.stderr, end='')\n"
        "print(writer.drain(0.1))\nwriter.close(0.1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait(30.0) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b"False\n"


def test_a_reader_that_has_ended_stops_nothing(pipe: Pipe) -> None:
    os.close(pipe.read_end)
    writer = LogWriter(pipe.write_end, dropped)
    for _ in range(100):
        writer.write(LINE)
        assert writer.drain(10.0)
    writer.close(10.0)


def test_a_sink_that_works_again_is_told_what_it_missed(pipe: Pipe) -> None:
    """As after a full disk; here a descriptor that is read-only for a while."""
    readable = os.open(os.devnull, os.O_RDONLY)
    kept = os.dup(pipe.write_end)
    os.dup2(readable, pipe.write_end)
    writer = LogWriter(pipe.write_end, dropped)
    for _ in range(3):
        writer.write("lost\n")
        assert writer.drain(10.0)
    os.dup2(kept, pipe.write_end)
    writer.write("found\n")
    assert writer.drain(10.0)
    assert pipe.read() == b"3 dropped\nfound\n"
    writer.close(10.0)
    os.close(kept)
    os.close(readable)


def test_a_pipe_that_is_not_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_end, False)
    writer = LogWriter(pipe.write_end, dropped)
    for _ in range(100):
        writer.write(LINE)
    assert all_of(pipe, writer) == 100 * LINE.encode()


def test_threads_write_whole_lines(pipe: Pipe) -> None:
    writer = LogWriter(pipe.write_end, dropped)

    def write(letter: str) -> None:
        for _ in range(200):
            writer.write(letter * 20 + "\n")

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = all_of(pipe, writer).splitlines()
    assert len(written) == 600
    assert {len(line) for line in written} == {20}
    assert all(len(set(line)) == 1 for line in written)


class Interrupted(BaseException):
    """An exception that is raised in another thread."""


def test_a_caller_that_is_interrupted_anywhere_holds_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit interrupts algorithms that print in an endless loop; one that kept a lock would stop the worker."""
    monkeypatch.setattr(threading, "excepthook", lambda _crash: None)
    sink = os.open(os.devnull, os.O_WRONLY)
    writer = LogWriter(sink, dropped)

    def print_for_ever() -> None:
        while True:
            writer.write("x\n")

    for _ in range(200):
        thread = threading.Thread(target=print_for_ever, daemon=True)
        thread.start()
        for _ in range(1000):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Interrupted))
            thread.join(0.01)
            if not thread.is_alive():
                break
        assert not thread.is_alive()
        other = threading.Thread(target=writer.write, args=("y\n",), daemon=True)
        other.start()
        other.join(10.0)
        assert not other.is_alive()
    writer.close(10.0)
    os.close(sink)


def test_a_stream_in_place_of_standard_error_gives_its_lines() -> None:
    taken: list[bytes] = []
    stream = text_stream(taken.append, 2)
    print("one", 2, file=stream)
    stream.buffer.write(b"raw\n")
    stream.flush()
    print("lone \ud800", file=stream)
    assert b"".join(taken) == b"one 2\nraw\nlone \\ud800\n"
    assert (stream.fileno(), stream.isatty(), stream.encoding) == (2, False, "utf-8")


def test_a_forked_child_writes_its_lines_itself() -> None:
    code = (
        "import os\nfrom backtestr_protocol.log_writer import LogWriter\n"
        "writer = LogWriter(1, str)\nwriter.use_in_forks(1)\nwriter.write('parent\\n')\nwriter.drain(10)\n"
        "child = os.fork()\nif not child:\n    writer.write('child\\n')\n    os._exit(0)\n"
        "os.waitpid(child, 0)\nwriter.write('end\\n')\nwriter.close(10)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "parent\nchild\nend\n"


def test_what_is_written_to_a_descriptor_itself_is_read() -> None:
    taken, is_whole = bytearray(), threading.Event()

    def take(data: bytes) -> None:
        taken.extend(data)
        if taken == b"own\nchild\n":
            is_whole.set()

    descriptor = os.open(os.devnull, os.O_WRONLY)
    read_descriptor(descriptor, take)
    os.write(descriptor, b"own\n")
    subprocess.run(["echo", "child"], stdout=descriptor, check=True)
    os.close(descriptor)
    assert is_whole.wait(10.0)


def test_a_descriptor_that_does_not_wait_leaves_others_as_they_are(pipe: Pipe) -> None:
    own = os.dup(pipe.write_end)
    open_without_waiting(own)
    assert not os.get_blocking(own)
    assert os.get_blocking(pipe.write_end)
    with pytest.raises(BlockingIOError):  # noqa: PT012 - the number of writes is that of the pipe's size
        for _ in range(100):
            os.write(own, LINE.encode())
    assert pipe.read().startswith(LINE.encode())
    os.close(own)
    open_without_waiting(own)  # a closed descriptor stays one
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(own)


def test_closed_standard_descriptors_are_opened() -> None:
    """Otherwise the next file, such as a database, would be descriptor 2, and the log would be written into it."""
    code = (
        "import os\nfrom backtestr_protocol.log_writer import open_standard_descriptors\n"
        "os.close(0); os.close(2)\nopen_standard_descriptors()\n"
        "print([os.readlink(f'/proc/self/fd/{one}') for one in (0, 2)], flush=True)\n"
        "import subprocess\nsubprocess.run(['sh', '-c', 'echo inherited >&2 && echo yes'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "['/dev/null', '/dev/null']\nyes\n"


def test_waiting_lines_are_written_before_the_end(pipe: Pipe) -> None:
    writer = LogWriter(pipe.write_end, dropped)
    writer.write("last words\n")
    writer.close(10.0)
    assert pipe.read() == b"last words\n"
