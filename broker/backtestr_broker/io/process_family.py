"""The processes that a broker has started, and all that they start: none of them outlives it, or its worker.

A worker leads a process group. When it has ended, its group is killed, and so is what left the group: on Linux such
processes become children of the broker, which knows its own. Where there are no groups, what a worker has started is
looked up before it is killed; a worker that ends by itself ends what it has started.

A broker that is killed cannot do that. So a guardian, a shell that reads from a pipe, knows the groups of the workers,
and kills them when the other end of the pipe is closed. Without it the workers still end, by their lifelines or by the
parent-death signal that they have asked for.
"""

from __future__ import annotations

import contextlib
import subprocess

import psutil

from backtestr_protocol.system import process_ends, programs

# It reads lines of `+ <pid>` and `- <pid>`. Signals to a terminal's processes must not end it before the broker.
GUARDIAN = """
trap '' INT TERM HUP
groups=
while read -r sign pid; do
    left=
    for one in $groups; do
        if [ "$one" != "$pid" ]; then left="$left $one"; fi
    done
    groups=$left
    if [ "$sign" = + ]; then groups="$groups $pid"; fi
done
for one in $groups; do kill -s KILL -- "-$one" 2>/dev/null; done
exit 0
"""

# Seconds that the guardian gets to end when there is nothing left to do.
_PATIENCE = 1.0


class ProcessFamily:
    """The workers of one broker, by process id."""

    def __init__(self) -> None:
        self._workers: set[int] = set()
        self._killed: set[int] = set()
        self._descendants: dict[int, list[psutil.Process]] = {}  # of the workers that are being killed, by worker
        self._adopts = process_ends.adopt_orphans()
        self._guardian: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):  # a machine without a shell, or without room for one
            self._guardian = subprocess.Popen(
                ["/bin/sh", "-c", GUARDIAN],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **programs.own_group(),
            )

    def started(self, pid: int) -> None:
        """Take a worker that leads the process group of its own number."""
        self._workers.add(pid)
        self._tell("+", pid)

    def killing(self, pid: int) -> None:
        """Note what a worker has started, before it is killed."""
        self._descendants[pid] = process_ends.descendants(pid)

    def ended(self, pid: int) -> None:
        """Kill what is left of a worker that has ended, before its exit code is taken and its number is free again."""
        if pid not in self._workers:
            return
        self._workers.discard(pid)
        left = self._descendants.pop(pid, [])
        if not process_ends.kill_group(pid):
            process_ends.kill_all(left)
        self._tell("-", pid)

    def kill_orphans(self) -> None:
        """Kill the children of this process that are neither workers nor the guardian, once a worker has ended."""
        if not self._adopts:
            return
        known = self._workers | ({self._guardian.pid} if self._guardian is not None else set())
        for pid in set(process_ends.child_ids()) - known:
            self._killed.add(pid)
            process_ends.kill_child(pid)
        self._killed = {pid for pid in self._killed if not process_ends.reap(pid)}

    def close(self) -> None:
        """End the guardian."""
        guardian, self._guardian = self._guardian, None
        if guardian is None or guardian.stdin is None:
            return
        with contextlib.suppress(OSError):
            guardian.stdin.close()
        try:
            guardian.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            guardian.kill()
            guardian.wait()

    def _tell(self, sign: str, pid: int) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):  # it was killed
                self._guardian.stdin.write(f"{sign} {pid}\n".encode())
                self._guardian.stdin.flush()
