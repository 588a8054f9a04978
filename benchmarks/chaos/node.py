"""This program kills a broker with `kill -9` under load from Node: nothing is lost, and nothing is done twice.

    make chaos-node             20 kills
    make chaos-node ARGS='--kills 2 --seed 7'

`clients/typescript/chaos/load.mjs` has seven clients that ping, change the shared state and run backtests all the time,
and one that follows the state. A client that changes a key of its own must see the versions 1, 2, 3 … without a gap.
Every backtest must tell the orders of an undisturbed one, each once, and have its result. At the end the follower's
replica must be what the others were told. The exit code is 1 for a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from support.harness import RunningBroker, running_broker
from support.node_programs import BUILT_CLIENT, NODE

# In such small chunks a backtest takes half a second or more, so that most kills hit one.
CONFIG = {
    "broker.toml": "[workers]\ncompute = 1\n[throttle]\nreal_time_per_second = 0\n",
    "engine.toml": "[worker]\nchunk_bars = 20\n",
}
# Seconds between a recovery and the next kill, at random.
CALM = (0.3, 1.5)
# Seconds without an answer after which a client counts as stuck.
PATIENCE = 120.0


class Node:
    """The process of the clients, and what it has printed."""

    def __init__(self, connection_file: Path) -> None:
        self._process = subprocess.Popen(
            [NODE, "chaos/load.mjs", str(connection_file)],
            cwd=BUILT_CLIENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.last_done: dict[str, float] = {}
        self.has_failed = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "fault" in said:
                self.has_failed = True
            elif "done" in said:
                self.last_done[said["name"]] = time.monotonic()
            else:
                self._lines.put(said)
        self._lines.put(None)

    def told(self) -> dict[str, Any]:
        """Return the next line that is not about an answer."""
        said = self._lines.get(timeout=PATIENCE)
        if said is None:
            raise RuntimeError(f"the program in Node has ended with {self._process.wait()}")
        return said

    def stop(self) -> dict[str, Any]:
        """Have the clients stop, and return what they have found."""
        assert self._process.stdin is not None
        self._process.stdin.write("stop\n")
        self._process.stdin.flush()
        return self.told()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="of the broker (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    serving: list[float] = []
    answered: list[float] = []
    faults: list[str] = []
    with running_broker(CONFIG) as broker:
        node = Node(broker.connection_file)
        try:
            node.told()
            for _ in range(arguments.kills):
                time.sleep(generator.uniform(*CALM))
                served, clients = kill_and_start(broker, node)
                serving.append(served)
                answered += clients
                if node.has_failed:
                    break
            found = node.stop()
        finally:
            node.close()
    faults += found["faults"]
    print(
        f"{len(serving)} kills; {found['pings']:,} pings, {found['changes']:,} changes of state, "
        f"{found['backtests']} backtests; serving again after {seconds(serving)}, the clients' next answers after "
        f"{seconds(answered)}; the follower had {found['sessions']} sessions and repaired {found['gapsRepaired']} of "
        f"{found['gapsSeen']} gaps; {len(faults)} faults"
    )
    for fault in faults[:20]:
        print(f"fault: {fault}")
    return 1 if faults else 0


def kill_and_start(broker: RunningBroker, node: Node) -> tuple[float, list[float]]:
    """Return the seconds from a kill until the broker serves again, and until each client has its next answer."""
    broker.process.kill()
    broker.process.wait()
    killed = time.monotonic()
    broker.start()
    served = time.monotonic() - killed
    deadline = killed + PATIENCE
    waiting = set(node.last_done)
    answered = []
    while waiting and not node.has_failed:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{', '.join(sorted(waiting))} had no answer for {PATIENCE:g} s after a kill")
        for name in [one for one in waiting if node.last_done[one] > killed]:
            waiting.remove(name)
            answered.append(node.last_done[name] - killed)
        time.sleep(0.005)
    return served, answered


def seconds(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} s (median, worst {max(values):.2f} s)"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
