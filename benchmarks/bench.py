"""This program runs every part of the benchmarks, and prints each figure beside its floor or peer of the same run.

    make bench
    make bench ARGS='--json today.json'

Each part is a process of its own, and is ended after a time limit. The end of the table lists what could not be
measured. The exit code is 1 if a part failed, and 0 if a peer is not installed or a target is missed. README.md
explains the table.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, Measured, Missing, options, print_figures, read, write
from machine import Machine, facts

# Files beside this one, and the seconds within which each ends, also on a busy machine.
PARTS = {
    "round_trips": 240,
    "pipelined": 90,
    "publishing": 150,
    "under_load": 120,
    "whole_backtests": 150,
    "growth": 300,
    "node_client": 240,
}
# The seconds that an interrupted part may take to end its own processes.
GRACE_SECONDS = 10


def measured_by(name: str, effort: float, file: Path) -> Measured | Missing:
    """Run one part as a process with a session of its own, so that none of its processes is left."""
    command = [
        sys.executable,
        str(Path(__file__).with_name(f"{name}.py")),
        "--effort",
        str(effort),
        "--json",
        str(file),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=PARTS[name])
    except subprocess.TimeoutExpired:
        _end(process)
        return Missing(name, f"it took longer than {PARTS[name]} s")
    except KeyboardInterrupt:
        _end(process)
        raise
    if process.returncode != 0:
        return Missing(name, errors.strip().rpartition("\n")[2] or f"exit code {process.returncode}")
    return read(file)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it has started as Ctrl-C would, or by force if that does not help."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def print_facts(machine: Machine) -> None:
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory_mb:,} MB; load {machine.load:.2f} at the start")
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    print(f"revision {machine.revision}; Python {machine.python}, libzmq {machine.libzmq}, {versions}")
    if machine.load > machine.cores / 2:
        print("This machine is busy: ratios can be trusted, absolute figures and p99 cannot.")
    print()


def main() -> int:
    arguments = options(__doc__).parse_args()
    machine = facts()
    figures: list[Figure] = []
    missing: list[Missing] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:
        for number, name in enumerate(PARTS, 1):
            began = time.monotonic()
            print(f"{number}/{len(PARTS)} {name} …", end="", file=sys.stderr, flush=True)
            found = measured_by(name, arguments.effort, Path(folder) / f"{name}.json")
            print(f" {time.monotonic() - began:.0f} s", file=sys.stderr)
            if isinstance(found, Measured):
                figures += found.figures
                missing += found.missing
            else:
                missing.append(found)
                failed = True
    measured = Measured(machine, figures, missing)
    print_facts(machine)
    print_figures(measured)
    if arguments.json:
        write(measured, arguments.json)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
