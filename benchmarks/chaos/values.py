"""This program sends hostile values to a broker, in requests and in a worker's notes: all answers have a type.

    make chaos-values            200,000 requests, then 200,000 notes
    make chaos-values ARGS='--requests 5000 --notes 5000 --seed 7'

Requests are valid but for the value of one field or several (`tests/support/protocol/hostile_values.py`). For the notes
the program takes the place of a worker: it kills the process, and says that it is ready before the next one does. It
prints the memory of broker and workers before and after, and the answers by code. The exit code is 1 if an answer has
no type or is SYSTEM_ERROR, a process has ended by itself, or memory has grown.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import Any, get_args

import psutil
import zmq
from brokers import Running, running_broker

from backtestr_protocol.codec import Signer
from backtestr_protocol.errors import ErrorCode
from backtestr_protocol.worker_channel import Assign, Ready, decode_to_worker, encode_proof
from integration.test_end_to_end import SYNTH
from support.harness import RawClient
from support.protocol import hostile_values
from support.protocol.independent import Fields

# No limit of the rate: a refused request would not be looked at.
CONFIG = "[limits]\nsession_timeout_ms = 600_000\n[throttle]\n" + "".join(
    f"{name}_per_second = 0\n" for name in ("real_time", "interactive", "background", "bulk")
)
CODES = set(get_args(ErrorCode)) - {"SYSTEM_ERROR"}
# They end the session, and are attacked without a socket (tests/properties/test_hostile_values.py).
OF_THE_SESSION = ("Hello", "Goodbye", "StopBroker")
IN_FLIGHT = 32
# The first part of each flood fills caches, remembered answers and the list of backtests; growth is measured after it.
WARM_UP_SHARE = 4
MAX_GROWTH_MB = 96.0
ANSWER_SECONDS = 60.0
PLACE = "compute-1"
# The place among the workers is looked at after so many notes: a note may have given it up.
CHECKED_EVERY = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=200_000, help="default 200,000")
    parser.add_argument("--notes", type=int, default=200_000, help="default 200,000")
    parser.add_argument("--seed", type=int, default=1, help="of the generator (default 1)")
    arguments = parser.parse_args()
    faults: list[str] = []
    with running_broker(config=CONFIG) as broker, RawClient(broker.connection_file, "hostile") as raw_client:
        raw_client.hello()
        workers = pids(raw_client)
        began, answers = time.monotonic(), Counter[str]()
        warm = arguments.requests // WARM_UP_SHARE
        faults += flood_with_requests(raw_client, arguments.seed, warm, answers)
        before = memory_mb(broker)
        faults += flood_with_requests(raw_client, arguments.seed + 1, arguments.requests - warm, answers)
        after = memory_mb(broker)
        print(f"{arguments.requests:,} requests in {time.monotonic() - began:.0f} s: {described(answers)}")
        faults += compared("requests", before, after)
        if pids(raw_client) != workers:
            faults.append(f"workers were {workers} and are {pids(raw_client)}")

        began, warm = time.monotonic(), arguments.notes // WARM_UP_SHARE
        with Impostor(broker, raw_client) as impostor:
            impostor.send(arguments.seed, warm)
            before = memory_mb(broker)
            impostor.send(arguments.seed + 1, arguments.notes - warm)
            after = memory_mb(broker)
            print(
                f"{arguments.notes:,} notes in {time.monotonic() - began:.0f} s, in a place that was taken "
                f"{impostor.taken} times; {impostor.given} tasks were given to it"
            )
            faults += compared("notes", before[:1], after[:1])  # workers were replaced
        faults += served(raw_client)
        log = broker.log.read_text("utf-8")
        faults += [f"the log has {word!r}" for word in ("Traceback", "starts_again") if word in log]
        print(f"log {len(log) / 1e6:.2f} MB")
    for fault in faults[:20]:
        print(fault)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


# --- requests ---


def flood_with_requests(raw_client: RawClient, seed: int, count: int, answers: Counter[str]) -> list[str]:
    """Send requests, some at a time, and return what is wrong with their answers."""
    waiting: dict[str, str] = {}
    faults: list[str] = []
    for number, (name, field, data) in enumerate(hostile_values.random_requests(seed, count)):
        if name in OF_THE_SESSION:
            continue
        message_id = f"{seed}-{number}"
        envelope = hostile_values.envelope(name, data, message_id, time.time_ns() // 1_000_000)
        raw_client.requests.counter += 1
        envelope |= {"sessionId": raw_client.requests.session_id, "counter": raw_client.requests.counter}
        raw_client.dealer.send_multipart(hostile_values.request_frames(raw_client.key, envelope))
        waiting[message_id] = f"{name} {field} {str(data)[:200]}"
        while len(waiting) >= IN_FLIGHT:
            faults += take(raw_client, waiting, answers)
    while waiting:
        faults += take(raw_client, waiting, answers)
    return faults


def take(raw_client: RawClient, waiting: dict[str, str], answers: Counter[str]) -> list[str]:
    if not raw_client.dealer.poll(round(ANSWER_SECONDS * 1000)):
        silent = [f"no answer to {about}" for about in waiting.values()]
        waiting.clear()
        return silent
    envelope, _ = raw_client.receive()
    payload = envelope["payload"]
    code = payload["type"] if payload["type"] == "Success" else payload["data"]["code"]
    answers[code] += 1
    about = waiting.pop(envelope.get("correlationId") or "", None)
    if about is None:
        return [f"an answer to no request: {str(envelope)[:300]}"]
    return [] if code in CODES or code == "Success" else [f"{code} to {about}: {payload['data']['message'][:300]}"]


# --- notes ---


class Impostor:
    """A peer in the place of a worker. The signing key is that of the connection file."""

    def __init__(self, broker: Running, raw_client: RawClient) -> None:
        self.taken = self.given = 0
        self._broker = broker
        self._raw_client = raw_client
        self._signer = Signer(raw_client.key)
        self._task_id = "no task yet"
        self._socket: zmq.Socket[bytes] | None = None

    def __enter__(self) -> Impostor:
        self._take_place()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the place to a real worker."""
        psutil.Process(self._worker()["pid"]).kill()

    def send(self, seed: int, count: int) -> None:
        hints: Fields = {"workerId": PLACE, "kind": "compute", "outcome": "completed"}
        for number, (name, field, note) in enumerate(hostile_values.random_notes(seed, count, hints)):
            if number % CHECKED_EVERY == 0:
                self._keep_place(f"hostile-{seed}-{number}")
            if "taskId" in note and "taskId" not in field:
                note = {**note, "taskId": self._task_id}
            if note.get("isLast") is True:  # it would give up the place, which takes seconds to take again
                note = {**note, "isLast": False}
            if "topic" in note and "topic" not in field:
                note = {**note, "topic": f"orders.{self._task_id}"}
            payload = [hostile_values.ANYTHING] * (1 if name in ("Published", "Finished") else 0)
            assert self._socket is not None
            self._socket.send_multipart(hostile_values.note_frames(note, payload))
        self._keep_place(f"hostile-{seed}-end")

    def _keep_place(self, backtest_id: str) -> None:
        """Take the place again where a note gave it up, have a task if there is none, and read what came."""
        if self._worker()["state"] == "lost":
            self._take_place()
        if self._worker()["state"] == "idle":
            self._raw_client.send_and_receive(
                self._raw_client.requests.make("StartBacktest", {**SYNTH, "backtestId": backtest_id})
            )
        assert self._socket is not None
        while self._socket.poll(0):
            message, _ = decode_to_worker(self._socket.recv_multipart())
            if isinstance(message, Assign):
                self._task_id = message.task_id
                self.given += 1

    def _take_place(self) -> None:
        self.taken += 1
        if self._socket is not None:
            self._socket.close()
        self._socket = self._raw_client.open(zmq.DEALER)
        self._socket.connect(f"ipc://{self._broker.runtime_dir}/engine")
        killed = self._worker()["pid"]
        psutil.Process(killed).kill()
        ready = Ready(worker_id=PLACE, pid=1, kind="compute", algorithms=[], series=[], beat_interval_ms=3_600_000)
        deadline = time.monotonic() + ANSWER_SECONDS
        while (worker := self._worker())["pid"] == killed or worker["state"] not in ("idle", "busy"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the place of {PLACE} could not be taken")
            if worker["pid"] != killed:  # the next process has started, and takes a second to be ready
                self._socket.send_multipart(encode_proof(self._signer, ready))
            time.sleep(0.01)

    def _worker(self) -> Fields:
        (worker,) = [one for one in status(self._raw_client)["workers"] if one["workerId"] == PLACE]
        found: Fields = worker
        return found


def served(raw_client: RawClient) -> list[str]:
    """Wait until a real worker has the place again, and run a backtest."""
    deadline = time.monotonic() + ANSWER_SECONDS
    last: Any = None
    while time.monotonic() < deadline:
        backtest_id = f"after-{time.monotonic_ns()}"
        raw_client.send_and_receive(raw_client.requests.make("StartBacktest", {**SYNTH, "backtestId": backtest_id}))
        for _ in range(100):
            time.sleep(0.05)
            answer, _ = raw_client.send_and_receive(
                raw_client.requests.make("GetBacktestStatus", {"backtestId": backtest_id})
            )
            last = answer["payload"]["data"]
            if last.get("status") == "completed":
                return []
            if last.get("status") == "failed":
                break
    return [f"no backtest was completed afterwards: {last}"]


# --- processes ---


def status(raw_client: RawClient) -> Fields:
    return raw_client.ask("GetSystemStatus", {})


def pids(raw_client: RawClient) -> dict[str, int]:
    return {one["workerId"]: one["pid"] for one in status(raw_client)["workers"]}


def memory_mb(broker: Running) -> list[float]:
    """Return the memory of the broker, then of its workers in order of their ids."""
    process = psutil.Process(broker.pid)
    processes = [process, *sorted(process.children(), key=lambda one: one.pid)]
    return [one.memory_info().rss / 1e6 for one in processes]


def compared(what: str, before: list[float], after: list[float]) -> list[str]:
    shown = ", ".join(f"{one:.1f} to {two:.1f}" for one, two in zip(before, after, strict=False))
    print(f"memory over the {what}, after a quarter of them (MB, the broker first): {shown}", flush=True)
    grown = max(two - one for one, two in zip(before, after, strict=False))
    return [f"memory grew by {grown:.1f} MB over the {what}"] if grown > MAX_GROWTH_MB else []


def described(answers: Counter[str]) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in answers.most_common())


if __name__ == "__main__":
    sys.exit(main())
