"""This program fills the disk of a broker to the last byte, and checks that nothing is lost and all goes on afterwards.

    make chaos-full_disk
    make chaos-full_disk ARGS='--rounds 20'

The disk is a small file system in memory, mounted in a mount namespace of this program's own, so that no other process
sees it. In each round the disk is filled, then: a change of shared state, an import, a registration and a backtest must
fail with SYSTEM_ERROR and the recovery action `free_space`; one that is running when the disk fills up must end as
failed; what was stored before must be readable, and no half-written file may be left. Then the disk is freed, and all
of it must work, the recorder included. In the end the broker starts again, and has what it acknowledged. The exit code
is 1 where something of that is not so, and 3 where this system does not let the program mount a file system.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import backtestr
from backtestr_protocol.errors import BacktestrError, SystemFault
from support.harness import RunningBroker, wait_until

EXIT_NOT_ALLOWED = 3
INSIDE = "BACKTESTR_INSIDE_A_MOUNT_NAMESPACE"
DISK_MB = 24
BARS = "time,open,high,low,close,volume\n" + "".join(
    f"2024-01-{day:02d},{100 + day},{102 + day},{99 + day},{101 + day},5\n" for day in range(1, 31)
)
ALGORITHM = """
from backtestr_engine.authoring import Bars, Signals, algorithm
@algorithm("never_{number}")
def never(bars: Bars) -> Signals:
    return Signals.of(entries=bars.close < 0)
"""
CONFIG = {
    "broker.toml": "[limits]\nheartbeat_interval_ms = 200\n[workers]\ncompute = 1\n[recorder]\nenabled = true\n",
    "engine.toml": "[worker]\nchunk_bars = 20\n",
}
# Files that are written in place and may grow at any time.
GROWING = ("broker.db", "recordings")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="times that the disk is filled (default 5)")
    arguments = parser.parse_args()
    if INSIDE not in os.environ:
        return run_in_namespace(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="bt-") as name:
        disk = Path(name)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "tmpfs", str(disk)])
        if mounted.returncode:
            return EXIT_NOT_ALLOWED
        try:
            faults = Trial(disk).run(arguments.rounds)
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
    print(f"the disk was filled {arguments.rounds} times; {len(faults)} faults")
    for fault in faults[:20]:
        print(f"fault: {fault}")
    return 1 if faults else 0


def run_in_namespace(arguments: list[str]) -> int:
    """Run this program in a mount namespace of its own, where it may mount, also for a user who is not root."""
    unshare = shutil.which("unshare")
    if unshare is None:
        print("unshare is not installed: nothing can be mounted for this program alone")
        return EXIT_NOT_ALLOWED
    enter = [unshare, "--mount", "--propagation", "private", *([] if os.getuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*enter, "true"], capture_output=True).returncode:
        print("this system does not let its users mount a file system for one program")
        return EXIT_NOT_ALLOWED
    command = [*enter, sys.executable, __file__, *arguments]
    return subprocess.run(command, env={**os.environ, INSIDE: "1"}).returncode


class Trial:
    """A broker whose data directory is on `disk`."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.faults: list[str] = []
        self.home = disk / "home"
        self.home.mkdir(mode=0o700)
        self.versions: dict[str, int] = {}

    def run(self, rounds: int) -> list[str]:
        with RunningBroker(self.home, CONFIG) as broker:
            with backtestr.connect(connection_file=broker.connection_file) as client:
                source = self.disk / "bars.csv"
                source.write_text(BARS)
                for number in range(rounds):
                    self._round(broker, client, source, number)
            recording = next((broker.data_dir / "recordings").iterdir())
            self._check(broker.stop() == 0, "the broker did not end properly")
            self._replayable(broker, recording)
            broker.start()
            with backtestr.connect(connection_file=broker.connection_file) as client:
                found = {one.key: one.version for one in client.snapshot_state("disk.").entries}
                self._check(
                    found == self.versions, f"acknowledged was {self.versions}, after a restart there is {found}"
                )
        return self.faults

    def _round(self, broker: RunningBroker, client: backtestr.Client, source: Path, number: int) -> None:
        works: dict[str, Callable[[], object]] = {
            "a change of state": lambda: self._change(client),
            "an import": lambda: client.import_market_data(source, "BARS"),
            "a registration": lambda: client.register_algorithm(ALGORITHM.format(number=number)),
            "a backtest": lambda: client.backtest("sma_cross", "SYNTH", timeframe="1d").result(60),
        }
        for name in ("a change of state", "an import", "a backtest"):
            self._works(f"{name} before", works[name])
        run = client.backtest("sma_cross", "SYNTH", timeframe="1d", pace=200.0)
        wait_until(lambda: client.backtest_status(run.id).status == "running", 30)
        stored = self._files(broker)
        with self._full():
            wait_until(lambda: client.status().status != "healthy" or self._refuses(works["a change of state"]), 30)
            for name, work in works.items():
                self._is_refused(name, work)
            self._is_refused("a backtest that was running", lambda: run.result(60))
            self._works("reading bars", lambda: client.market_data("BARS", "1d"))
            self._works("a ping", client.ping)
            left = self._files(broker) - stored
            self._check(not left, f"files were left on the full disk: {sorted(left)}")
        for name, work in works.items():
            self._works(f"{name} when there is room", work)
        wait_until(lambda: client.status().status == "healthy", 30)
        self._check(broker.log.count("recorder_stopped") == broker.log.count("recorder_resumed"), "nothing is recorded")

    def _change(self, client: backtestr.Client) -> None:
        key = "disk.value"
        self.versions[key] = client.update_state(key, "x" * 20_000).version

    @contextlib.contextmanager
    def _full(self) -> Iterator[None]:
        """Fill the disk to the last byte for the length of the block."""
        filling = self.disk / "filling"
        with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            filling.unlink()

    @staticmethod
    def _files(broker: RunningBroker) -> set[str]:
        """Return the files in the data directory, without those that are written in place."""
        paths = (path.relative_to(broker.data_dir) for path in broker.data_dir.rglob("*") if path.is_file())
        return {str(path) for path in paths if not str(path).startswith(GROWING)}

    def _refuses(self, work: Callable[[], object]) -> bool:
        try:
            work()
        except BacktestrError:
            return True
        return False

    def _works(self, name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except BacktestrError as error:
            self.faults.append(f"{name}: {error.code}: {error}")

    def _is_refused(self, name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except SystemFault as error:
            actions = [action.action for action in error.recovery_actions]
            self._check("free_space" in actions, f"{name}: its advice is {actions}: {error}")
        except BacktestrError as error:
            self.faults.append(f"{name} on a full disk: {error.code}: {error}")
        else:
            self.faults.append(f"{name} succeeded on a full disk")

    def _replayable(self, broker: RunningBroker, recording: Path) -> None:
        """Read the recording as a user does; it must say what is missing."""
        command = [sys.executable, "-m", "backtestr_broker", "--replay-log", str(recording)]
        read = subprocess.run(command, env=broker.environment, capture_output=True, text=True, timeout=100)
        said = read.stdout + read.stderr
        if "recorder_stopped" in broker.log:
            self._check("events before event" in said, f"the recording does not say what is missing: {said[-400:]}")

    def _check(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)


if __name__ == "__main__":
    sys.exit(main())
