"""A change that an algorithm makes to its process is put back, or is the reason to replace the worker."""

from __future__ import annotations

import ast
import subprocess
import sys

# Each is run in a process of its own: (what an algorithm does, what is found).
FOUND = {
    "a thread": (
        "import threading; threading.Thread(target=threading.Event().wait, name='mine', daemon=True).start()",
        "1 threads were left running ('mine' of threading)",
    ),
    "a thread without a name": (
        "import _thread, time; _thread.start_new_thread(lambda: time.sleep(60), ()); time.sleep(0.3)",
        "1 threads were left running",
    ),
    "a thread without a frame": (
        "import _thread, time; _thread.start_new_thread(time.sleep, (60,)); time.sleep(0.3)",
        "1 threads were left running",
    ),
    "a process": ("import subprocess; subprocess.Popen(['sleep', '60'])", "1 processes were left running"),
    "a forked process": ("import os, time\nif not os.fork(): time.sleep(60)", "1 processes were left running"),
    "a process that left": (
        "import subprocess; subprocess.run(['sh', '-c', 'setsid sleep 60 >/dev/null 2>&1 &'])",
        "1 processes were left running",
    ),
    "descriptors": ("kept = [open('/dev/null') for _ in range(100)]", "100 descriptors were left open"),
    "a standard stream": ("import os; os.close(0)", "a standard stream of the process was closed or exchanged"),
    "a function of Python": ("import time; time.monotonic = lambda: 0.0", "time.monotonic was replaced"),
    "a built-in function": ("import builtins; builtins.len = lambda _: 1", "builtins.len was replaced"),
    "a function of numpy": ("import numpy; numpy.isnan = numpy.isinf", "numpy.isnan was replaced"),
    "a method of the engine": (
        "from backtestr_engine.data.bars import Bars; Bars.between = None",
        "backtestr_engine.data.bars.Bars.between was replaced",
    ),
    "a function of the engine": (
        "from backtestr_engine.data import bars; del bars.resample",
        "backtestr_engine.data.bars.resample was replaced",
    ),
    "a signal's handler": (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: None)",
        "a handler of a signal was replaced",
    ),
    "a limit that cannot be raised again": (
        "import os, resource; os.setuid(65534) if os.getuid() == 0 else None\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))",
        "the limit RLIMIT_NOFILE could not be put back",
    ),
}
# (what an algorithm does, what must hold after the check)
PUT_BACK = {
    "numpy's errors": ("import numpy; numpy.seterr(all='raise')", "numpy.geterr()['divide'] == 'warn'"),
    "warnings": ("import warnings; warnings.simplefilter('error')", "warnings.warn('x') is None"),
    "the working directory": ("import os; os.chdir('/')", "os.getcwd() != '/'"),
    "the umask": ("import os; os.umask(0)", "os.umask(0o77) == 0o77"),
    "the environment": (
        "import os; os.environ['NEW'] = '1'; del os.environ['HOME']",
        "'NEW' not in os.environ and 'HOME' in os.environ",
    ),
    "the locale": ("import locale; locale.setlocale(locale.LC_ALL, 'C')", "locale.setlocale(locale.LC_ALL) == before"),
    "the garbage collection": ("import gc; gc.disable()", "gc.isenabled()"),
    "the recursion limit": ("import sys; sys.setrecursionlimit(300)", "sys.getrecursionlimit() == 1000"),
    "a timer": ("import signal; signal.alarm(5)", "signal.alarm(0) == 0"),
    "standard output": ("import io, sys; sys.stdout = io.StringIO()", "sys.stdout is sys.__stdout__"),
    "a soft limit": (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(7)[1]))",
        "resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 100",
    ),
    "a process that has ended": ("import subprocess; subprocess.run(['true'])", "True"),
    "a thread that has ended": (
        "import threading; one = threading.Thread(target=print); one.start(); one.join()",
        "True",
    ),
    "a pool that is kept": (
        "from concurrent.futures import ThreadPoolExecutor as Pool; kept = Pool(8); list(kept.map(abs, range(99)))",
        "True",
    ),
    "the collector of pyzmq": (
        "import zmq; context = zmq.Context(); one, two = (context.socket(zmq.PAIR) for _ in range(2))\n"
        "one.bind('inproc://x'); two.connect('inproc://x'); one.send(bytes(1 << 20), copy=False); two.recv()",
        "True",
    ),
    "helpers of multiprocessing": (
        "from multiprocessing import resource_tracker; resource_tracker.ensure_running()",
        "True",
    ),
}

# It prints a line for each case: what was found, and whether what must hold does.
PROGRAM = """
import ast, gc, locale, numpy, os, resource, signal, sys, warnings
import backtestr_engine.worker.threads
from backtestr_engine.worker.process_state import ProcessState
from backtestr_protocol.system.process_ends import adopt_orphans
before = locale.setlocale(locale.LC_ALL, "C.UTF-8")
os.umask(0o77)
for code, holds in ast.literal_eval(sys.stdin.read()):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        continue
    os.setsid()
    adopt_orphans()
    state = ProcessState()
    namespace = {"state": state}
    exec(code, namespace)
    reason = state.changes()
    os.write(1, repr((reason, eval(holds))).encode() + b"\\n")
    os.killpg(0, 9)
"""


def outcomes(cases: list[tuple[str, str]]) -> list[tuple[str | None, object]]:
    """Return what comes of each case, in a process of its own that has the engine loaded."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], input=repr(cases), capture_output=True, text=True, timeout=100
    )
    found = [ast.literal_eval(line) for line in done.stdout.splitlines() if line.startswith("(")]
    assert len(found) == len(cases), done.stderr
    return found


def test_a_change_that_stays_is_a_reason() -> None:
    found = outcomes([(code, "True") for code, _ in FOUND.values()])
    assert dict(zip(FOUND, found, strict=True)) == {what: (reason, True) for what, (_, reason) in FOUND.items()}


def test_a_setting_is_put_back_and_what_libraries_keep_is_tolerated() -> None:
    found = outcomes(list(PUT_BACK.values()))
    assert dict(zip(PUT_BACK, found, strict=True)) == dict.fromkeys(PUT_BACK, (None, True))


def test_the_settings_of_a_source_that_was_loaded_stay() -> None:
    code = "import os; os.environ['NEW'] = '1'; state.accept(); del os.environ['NEW']"
    assert outcomes([(code, "os.environ.get('NEW')")]) == [(None, "1")]
