"""The core never raises, is always consistent, answers each request once, and depends on its events alone.

The machine below does what clients, workers and time can do, valid and invalid, and then lets everything end.
"""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from backtestr_broker.core.durability import SAVE_RETRY
from backtestr_broker.core.events import RequestReceived, WorkerSent
from backtestr_broker.core.scheduling import scheduler, workers
from backtestr_broker.core.settings import CoreSettings
from backtestr_broker.recording.playback import Playback
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import REQUEST, TO_BROKER, encode
from backtestr_protocol.errors import DataError
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import FINAL_STATES
from support.broker.anatomy import anatomy
from support.broker.clients import Client
from support.broker.link import LIMITS, Link, Worker, config
from support.protocol.independent import Fields, pack
from support.protocol.strategies import VALUES, WILD_BYTES, instances

PACED = ["b3", "b4", "b5"]
BACKTESTS = [f"b{number}" for number in range(6)]
PARKED = 2
LENDING = 2
# Two compute workers are configured, so one of three is a spare.
WORKERS = ["compute-1", "compute-2", "interactive-1", "compute-3"]
# Errors of the message and not of the request: the same id may be sent again, and then it is answered.
ABOUT_THE_MESSAGE = ("SESSION_UNKNOWN", "REPLAY_DETECTED")

small = CoreSettings(
    heartbeat_interval_ms=1000,
    watermark_interval_ms=250,
    session_timeout_ms=5000,
    max_message_bytes=1 << 16,
    max_queued_backtests=4,
    max_queued_questions=3,
    verify_interval_ms=500,
    worker_hung_ms=15_000,
    worker_silence_ms=600_000,
    rates={},
)
backtest_ids = st.sampled_from(BACKTESTS)
REPLAYS = [f"r{number}" for number in range(3)]
replay_ids = st.sampled_from(REPLAYS)
tasks = st.sampled_from([*BACKTESTS, *REPLAYS, "question-1", "question-2", "nothing"])
rates = st.sampled_from([{"asFastAsRead": True}, {"asFastAsRead": True}, {"barsPerSecond": 5.0}, {"speed": 60.0}, {}])
topics = st.sampled_from(
    ["orders.b0", "state.a", "progress.b1", "orders.b2", "system.status", "prices.X.1m", "weather"]
)
requests = st.one_of(
    st.tuples(st.sampled_from(["Ping", "GetSystemStatus", "ListBacktests", "ListAlgorithms", "Goodbye"]), st.just({})),
    st.tuples(st.sampled_from(["ListMarketData"]), st.just({})),
    st.tuples(
        st.sampled_from(
            ["PauseBacktest", "ResumeBacktest", "StopBacktest", "PauseBacktest", "ResumeBacktest", "GetBacktestStatus"]
        ),
        st.builds(lambda backtest_id: {"backtestId": backtest_id}, backtest_ids),
    ),
    st.tuples(
        st.sampled_from(["GetBacktestResults", "GetPerformanceMetrics"]),
        st.builds(lambda backtest_id: {"backtestId": backtest_id}, backtest_ids),
    ),
    st.tuples(
        st.just("GetBacktestResults"),
        st.fixed_dictionaries({"backtestId": backtest_ids, "waitMs": st.sampled_from([1, 60_000])}),
    ),
    st.tuples(st.just("StartBacktest"), st.builds(lambda one: asked(one), backtest_ids | st.none())),
    st.tuples(
        st.just("FetchMissed"),
        st.fixed_dictionaries({"topic": topics, "fromSeq": st.integers(-1, 9)}, optional={"toSeq": st.integers(0, 9)}),
    ),
    st.tuples(
        st.sampled_from(["UpdateState", "UpdateState", "DeleteState", "GetState"]),
        st.fixed_dictionaries(
            {"key": st.sampled_from(["a", "b.c"]), "value": VALUES}, optional={"expectedVersion": st.integers(0, 3)}
        ),
    ),
    st.tuples(st.just("SnapshotState"), st.builds(lambda prefix: {"prefix": prefix}, st.sampled_from(["", "b"]))),
    st.tuples(
        st.just("StartPriceReplay"),
        st.builds(lambda one, rate: {"replayId": one, "symbol": "SYNTH", "timeframe": "1m", **rate}, replay_ids, rates),
    ),
    st.tuples(
        st.sampled_from(["PausePriceReplay", "ResumePriceReplay", "StopPriceReplay", "GetPriceReplayStatus"]),
        st.builds(lambda one: {"replayId": one}, replay_ids),
    ),
    st.tuples(
        st.just("AcknowledgePrices"),
        st.builds(lambda one, seq: {"replayId": one, "seq": seq}, replay_ids, st.integers(1, 20_000)),
    ),
    st.tuples(st.just("ListPriceReplays"), st.just({})),
    st.tuples(st.sampled_from([*REQUESTS, "Nonsense"]), VALUES),
)
notes = st.one_of(
    st.builds(lambda task: worker_channel.Paused(task_id=task), tasks),
    st.builds(lambda task: worker_channel.Resumed(task_id=task), tasks),
    st.builds(lambda task: worker_channel.Lent(task_id=task), tasks),
    st.builds(
        lambda task, outcome: worker_channel.Finished(task_id=task, outcome=outcome),
        tasks,
        st.sampled_from(["completed", "failed", "stopped"]),
    ),
    st.builds(
        lambda topic, count, percent, task: worker_channel.Published(
            topic=topic, count=count, progress_percent=percent, task_id=task
        ),
        topics,
        st.sampled_from([-1, 0, 1, 2**40]),
        st.none() | st.floats(0, 100),
        st.none() | tasks,
    ),
    st.builds(
        lambda one, count: worker_channel.Published(
            topic="prices.SYNTH.1m", count=count, replay=worker_channel.ReplayMark(replay_id=one, current_time=0)
        ),
        replay_ids,
        st.sampled_from([0, 1, 2**40]),
    ),
    st.builds(lambda task: worker_channel.Beat(task_id=task), tasks),
    instances(worker_channel.Ready),
)


def asked(backtest_id: str | None) -> Fields:
    """Return the config of a backtest, with a pace for some."""
    return config(backtestId=backtest_id, options={"pace": 5.0} if backtest_id in PACED else {})


class Broker(RuleBasedStateMachine):
    clients = Bundle("clients")
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(workers, "MAX_PARKED", PARKED)
        self.patches.setattr(workers, "MAX_LENDING", LENDING)
        self.patches.setattr(scheduler, "MAX_WAITING", 3)
        self.link = Link(limits=small, compute=2)
        self.everyone: list[Client] = []
        self.expected: dict[str, int] = {}  # request id -> how many answers it must have had in the end

    # --- clients ---

    @initialize(target=clients)
    def first_client(self) -> Client:
        return self.client("ann")

    @rule(target=clients, client_id=st.sampled_from(["ann", "bob"]))
    def connect(self, client_id: str) -> Client:
        return self.client(client_id)

    def client(self, client_id: str) -> Client:
        client = self.link.client(client_id)
        self.everyone.append(client)
        return client

    @rule(client=clients)
    def hello(self, client: Client) -> None:
        client.hello()

    @rule(target=sent, client=clients, request=requests)
    def ask(self, client: Client, request: tuple[str, Any]) -> tuple[str, str, str, Any]:
        return self.request(client, request)

    def request(self, client: Client, request: tuple[str, Any]) -> tuple[str, str, str, Any]:
        self.link.named += 1
        message_id = f"request-{self.link.named}"
        self.transmit(client, message_id, *request)
        return (client.client_id, message_id, *request)

    @rule(target=sent, client=clients, backtest_id=backtest_ids)
    def start(self, client: Client, backtest_id: str) -> tuple[str, str, str, Any]:
        self.be_known(client)
        return self.request(client, ("StartBacktest", asked(backtest_id)))

    @rule(
        target=sent,
        client=clients,
        verbs=st.lists(st.sampled_from(["Pause", "Resume", "Stop"]), min_size=1, max_size=4),
        data=st.data(),
    )
    def steer(self, client: Client, verbs: list[str], data: st.DataObject) -> tuple[str, str, str, Any]:
        """Change a backtest that has not ended, with up to four changes on their way at once."""
        active = [job.backtest_id for job in self.link.core.scheduler.jobs if not job.ended]
        assume(active)
        chosen = {"backtestId": data.draw(st.sampled_from(active))}
        self.be_known(client)
        for verb in verbs:
            last = self.request(client, (f"{verb}Backtest", chosen))
        return last

    def be_known(self, client: Client) -> None:
        if self.link.core.sessions.on(client.peer) is None:
            client.hello()

    @rule(client=clients, earlier=sent)
    def ask_again(self, client: Client, earlier: tuple[str, str, str, Any]) -> None:
        """Send the same id with a fresh counter, perhaps on another connection."""
        client_id, message_id, type_name, data = earlier
        if client.client_id == client_id:
            self.transmit(client, message_id, type_name, data)

    @rule(client=clients, request=requests)
    def replay(self, client: Client, request: tuple[str, Any]) -> None:
        """Send the same bytes twice. Hello is left out: it has no counter, and a second one opens a second session."""
        assume(request[0] != "Hello")
        frames = client.requests.make(*request, message_id="replayed")
        client.send_frames(frames)
        (answer,) = client.send_frames(frames)
        assert is_about_message(answer["payload"])

    @rule(client=clients, frames=st.lists(WILD_BYTES, max_size=4), signed=st.booleans())
    def send_junk(self, client: Client, frames: list[bytes], signed: bool) -> None:
        self.link.request(client.peer, self.link.signer.seal(REQUEST, frames) if signed and frames else frames)

    def transmit(self, client: Client, message_id: str, type_name: str, data: Any) -> None:
        is_running = self.expected.get(message_id, 0) > self.received(message_id)
        answers = client.send(type_name, data, message_id=message_id)
        own = [answer["payload"] for answer in answers if answer.get("correlationId") == message_id]
        if any(is_about_message(payload) for payload in own) or is_running:
            return
        self.expected[message_id] = self.expected.get(message_id, 0) + 1

    def received(self, message_id: str) -> int:
        answers = [payload for client in self.everyone for payload in client.answers(message_id)]
        return sum(not is_about_message(payload) for payload in answers)

    # --- workers ---

    @rule(worker_id=st.sampled_from(WORKERS))
    def start_worker(self, worker_id: str) -> None:
        if not self.runs(worker_id):
            self.link.start_worker(worker_id, "interactive" if worker_id == WORKERS[2] else "compute")

    @rule(worker_id=st.sampled_from(WORKERS))
    def say_ready(self, worker_id: str) -> None:
        if worker_id in self.link.workers:
            self.link.worker(worker_id).ready()

    @rule(worker_id=st.sampled_from(WORKERS))
    def lose_worker(self, worker_id: str) -> None:
        if self.runs(worker_id):
            self.link.lose_worker(self.link.worker(worker_id), again=False)

    @rule(worker_id=st.sampled_from(WORKERS), answers=st.booleans())
    def toggle(self, worker_id: str, answers: bool) -> None:
        if worker_id == WORKERS[2] and worker_id in self.link.workers:
            self.link.worker(worker_id).answers = answers

    @rule(
        worker_id=st.sampled_from(WORKERS), note=notes, payload=st.lists(st.just(encode({})) | WILD_BYTES, max_size=3)
    )
    def say_anything(self, worker_id: str, note: worker_channel.ToBroker, payload: list[bytes]) -> None:
        """Send any worker message. What is published is well-formed, since the broker forwards it unread."""
        if worker_id in self.link.workers:
            published = encode({"type": "Anything", "data": {}})
            forwarded = [published if isinstance(note, worker_channel.Published) else one for one in payload]
            self.link.worker(worker_id).say(note, [one for one in forwarded if is_messagepack(one)])

    @rule(
        doings=st.lists(
            st.sampled_from(["publish", "lend", "lend", "pause", "resume", "finish", "fail"]), min_size=1, max_size=4
        ),
        data=st.data(),
    )
    def work(self, doings: list[str], data: st.DataObject) -> None:
        """Let workers do their tasks."""
        for does in doings:
            at_work = [(worker_id, task_id) for worker_id in WORKERS for task_id in self.tasks_of(worker_id)]
            if at_work:
                worker_id, task_id = data.draw(st.sampled_from(at_work))
                self.do(does, self.link.worker(worker_id), task_id)

    def do(self, does: str, worker: Worker, task_id: str) -> None:
        match does:
            case "lend":
                worker.lent(task_id)
            case "publish":
                worker.publish(f"orders.{task_id}", 1, 2, progress=10.0)
                worker.publish(f"progress.{task_id}", 1, progress=20.0)
            case "pause":
                worker.paused(task_id)
            case "resume":
                worker.resumed(task_id)
            case "finish":
                self.finish(worker, task_id)
            case "fail":
                worker.fail(DataError("no such bars"), task_id)

    def finish(self, worker: Worker, task_id: str) -> None:
        note, payload = next(
            (note, payload)
            for note, payload in reversed(worker.received)
            if isinstance(note, worker_channel.Assign) and note.task_id == task_id
        )
        worker.finish(task_id, data=self.link.answer_to(note.work, payload[0]))

    def runs(self, worker_id: str) -> bool:
        return worker_id in self.link.workers and not self.link.core.scheduler.workers.get(worker_id).has_ended

    def tasks_of(self, worker_id: str) -> list[str]:
        return sorted(self.link.core.scheduler.workers.get(worker_id).running) if self.runs(worker_id) else []

    @rule(replay_id=replay_ids, count=st.sampled_from([1, 100, 6_000, 30_000]), ends=st.booleans())
    def play(self, replay_id: str, count: int, ends: bool) -> None:
        """Publish bars of any price replay; the broker refuses those of a replay that the worker does not host."""
        if self.runs(WORKERS[2]):
            self.link.worker(WORKERS[2]).play(replay_id, count)
            if ends:
                self.link.worker(WORKERS[2]).finish(replay_id)

    # --- the disk ---

    @rule(held=st.booleans(), full=st.booleans())
    def disturb_disk(self, held: bool, full: bool) -> None:
        """Make the disk slow or full, or neither."""
        self.link.disk.held, self.link.disk.full = held, full
        if not held:
            self.link.write_disk()

    @rule(count=st.sampled_from([1, 2, 100]))
    def write_disk(self, count: int) -> None:
        self.link.write_disk(count)

    @rule()
    def kill_broker(self) -> None:
        """Kill the broker and start it again: unanswered requests are lost, and acknowledged changes are not."""
        self.every_stream_is_dense()
        self.play_back_recording()
        self.link.restart_broker()
        for client in self.everyone:
            client.reconnect()
        self.expected = {message_id: self.received(message_id) for message_id in self.expected}
        self.remembers_what_was_acknowledged()

    def remembers_what_was_acknowledged(self) -> None:
        """Check that every acknowledged backtest exists and that no key has an earlier version than was answered."""
        state = {record.key: record.version for record in self.link.disk.state.values()}
        assert {record.key for record in self.link.core.state.snapshot("")} <= state.keys()
        known = {job.backtest_id for job in self.link.core.scheduler.jobs}
        for client in self.everyone:
            for envelope, _ in client.inbox:
                data = envelope["payload"]["data"]
                if envelope["payload"]["type"] == "Success" and isinstance(data, dict) and "backtestId" in data:
                    assert data["backtestId"] in known, f"{data} was acknowledged and is lost"
                if envelope["payload"]["type"] == "Success" and isinstance(data, dict) and "key" in data:
                    assert state[data["key"]] >= data["version"], f"{data} was acknowledged and is lost"

    # --- subscribers ---

    @rule(client=clients, data=st.data())
    def miss_and_repair(self, client: Client, data: st.DataObject) -> None:
        """Fetch missed messages: they are those that were published, from the oldest retained one on."""
        assume(self.link.streams)
        topic = data.draw(st.sampled_from(sorted(self.link.streams)))
        published = self.link.streams[topic]
        from_seq = data.draw(st.sampled_from([seq for seq, _ in published]))
        self.be_known(client)
        asked = {"topic": topic, "fromSeq": from_seq, "toSeq": published[-1][0]}
        missed = client.send("FetchMissed", asked)[0]["payload"]
        if missed["type"] == "Failure":
            assert missed["data"]["code"] == "NOT_FOUND", "its backtest has been forgotten"
            return
        repaired = [(one["seq"], one["payload"]) for one in missed["data"]["messages"]]
        oldest = max(from_seq, missed["data"]["oldestSeq"])
        assert repaired == [(seq, payload) for seq, payload in published if seq >= oldest]

    # --- time ---

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.25, 1.0, 4.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.link.advance(seconds)

    @rule(seconds=st.sampled_from([0.0, 0.3, 7.0, 400.0]))
    def be_away(self, seconds: float) -> None:
        """Let the event loop be away: what was due is handled late, or another event comes first."""
        self.link.now += seconds

    @rule()
    def tick(self) -> None:
        self.link.tick()
        assert self.link.core.next_deadline() > self.link.now

    # --- laws ---

    @invariant()
    def is_consistent(self) -> None:
        self.link.core.check_invariants()

    @invariant()
    def no_job_is_held_twice(self) -> None:
        core = self.link.core.scheduler
        held = [task_id for worker in core.workers for task_id in (*worker.running, *worker.parked)]
        queued = [job.backtest_id for job in core.jobs if job.status == "queued"]
        ended = [job.backtest_id for job in core.jobs if job.ended]
        places = [*held, *queued, *ended]
        assert len(places) == len(set(places)), f"{held=} {queued=} {ended=}"

    @invariant()
    def no_bound_is_passed(self) -> None:
        """Count tasks: those of a lost worker or broker come back to the queue, which refuses new ones only."""
        core = self.link.core.scheduler
        held_at_most = len(WORKERS) * (1 + LENDING + PARKED)
        assert sum(not job.ended for job in core.jobs) <= small.max_queued_backtests + held_at_most
        assert core.queued <= small.max_queued_backtests + small.max_queued_questions + held_at_most

    @invariant()
    def nothing_ends_twice(self) -> None:
        changes = [payload["data"] for _, payload in self.link.streams.get("system.backtests", [])]
        final = [one["backtestId"] for one in changes if one["status"] in FINAL_STATES]
        assert len(final) == len(set(final))

    def every_stream_is_dense(self) -> None:
        for topic, messages in self.link.streams.items():
            is_dense(topic, messages)

    def teardown(self) -> None:
        try:
            self.link.disk.full = False
            self.disturb_disk(held=False, full=False)
            self.let_all_end()
            self.remembers_what_was_acknowledged()
            self.link.advance(SAVE_RETRY)
            on_disk = {key: record.value for key, record in self.link.disk.state.items() if record.value is not None}
            assert {record.key: record.value for record in self.link.core.state.snapshot("")} == on_disk
            stored = {name: record.status for name, record in self.link.disk.jobs.items()}
            assert stored == {job.backtest_id: job.status for job in self.link.core.scheduler.jobs}
            for message_id, count in self.expected.items():
                assert self.received(message_id) == count, message_id
            self.every_stream_is_dense()
            self.play_back_recording()
        finally:
            self.patches.undo()

    def play_back_recording(self) -> None:
        """Play back the recorded events: they have the same effects and lead to the same state."""
        playback = Playback([("recording", self.link.records())])
        assert [step.effects for step in playback] == self.link.effects
        assert anatomy(playback.core) == anatomy(self.link.core)
        assert not playback.problems

    def let_all_end(self) -> None:
        if self.runs(WORKERS[2]):  # it may have tasks that it did not do
            self.link.lose_worker(self.link.worker(WORKERS[2]), again=False)
        for worker_id in WORKERS:
            self.start_worker(worker_id)
            self.say_ready(worker_id)
        self.link.worker(WORKERS[2]).answers = True
        stopper = self.client("carl")
        for _ in range(100):
            for worker_id in WORKERS:
                worker = self.link.worker(worker_id)
                for task_id in self.tasks_of(worker_id):
                    if any(
                        job.backtest_id == task_id and job.status == "paused" for job in self.link.core.scheduler.jobs
                    ):
                        worker.resumed(task_id)
                    self.finish(worker, task_id)
                for parked in list(self.link.core.scheduler.workers.get(worker_id).parked):
                    stopper.send("StopBacktest", {"backtestId": parked})
                    worker.finish(parked, "stopped")
            if all(job.ended for job in self.link.core.scheduler.jobs) and not self.link.core.scheduler.queued:
                break
        self.link.core.check_invariants()
        assert all(job.ended for job in self.link.core.scheduler.jobs)


def is_about_message(payload: Fields) -> bool:
    return payload["type"] == "Failure" and payload["data"]["code"] in ABOUT_THE_MESSAGE


def is_messagepack(data: bytes) -> bool:
    try:
        msgpack.unpackb(data, strict_map_key=False)
    except Exception:  # msgpack documents no common base of what it raises
        return False
    return True


def is_dense(topic: str, messages: list[tuple[int, Fields]]) -> None:
    following = 1
    for seq, payload in messages:
        assert seq == following, f"{topic} jumps from {following} to {seq}"
        following += payload["data"]["count"] if payload["type"] == "Batch" else 1


TestBroker = Broker.TestCase
TestBroker.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


# --- hostile bytes ---

fields = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=70) | VALUES,
        "timestamp": st.just(1) | VALUES,
        "schemaVersion": st.just(1) | VALUES,
        "messageType": st.just("Request") | VALUES,
        "payload": st.fixed_dictionaries(
            {}, optional={"type": st.sampled_from([*REQUESTS]) | VALUES, "data": st.just({}) | VALUES}
        )
        | VALUES,
        "sessionId": VALUES,
        "counter": st.integers(0, 2**64 - 1) | VALUES,
    },
)


@settings(max_examples=150, deadline=None)
@given(frames=st.lists(WILD_BYTES, max_size=4), made=fields, wall_ms=st.integers(0, 7_258_118_400_000))
def test_no_frames_raise_or_stop_the_next_request(frames: list[bytes], made: Fields, wall_ms: int) -> None:
    link = Link()
    ann = link.client()
    mine = ann.requests.session_id
    for peer in (ann.peer, b"another"):
        link.feed(RequestReceived(peer, frames, wall_ms))
        link.feed(WorkerSent(peer, frames, wall_ms))
        for label, event in ((REQUEST, RequestReceived), (TO_BROKER, WorkerSent)):
            if frames:
                link.feed(event(peer, link.signer.seal(label, frames), wall_ms))
        link.request(peer, pack(link.key, REQUEST, made))
        link.request(peer, pack(link.key, REQUEST, {**made, "sessionId": mine}))
    ann.hello()
    assert ann.ask("Ping") == {"timestamp": link.wall_ms}
    link.core.check_invariants()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_request_with_data_of_its_type_is_answered(data: st.DataObject) -> None:
    """Every request that the protocol allows is answered, at once or by a worker, and breaks no invariant."""
    link = Link(limits=LIMITS)
    ann = link.client()
    type_name = data.draw(st.sampled_from(sorted(REQUESTS)))
    value = data.draw(instances(REQUESTS[type_name].data))
    frames = ann.requests.make(type_name, msgpack.unpackb(encode(value), strict_map_key=False))
    answers = ann.send_frames(frames)
    assert len(answers) == 1
    link.advance(2.0)
    link.core.check_invariants()
