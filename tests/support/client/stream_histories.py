"""Scripted histories of a client's subscriptions: events in, effects and counters out, as plain JSON values."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec

from backtestr.core.effects import (
    Ask,
    Deliver,
    DeliveredBatch,
    Delivery,
    End,
    Finished,
    Gap,
    MaybeLost,
    Purpose,
    Restarted,
    StreamMessage,
    Subscribe,
    SubscriptionEffect,
    TopicRepair,
    UnattributedError,
    Unsubscribe,
    Wait,
)
from backtestr.core.subscriptions import Since, Subscriptions
from backtestr_protocol.codec import Signer, decode, encode, encode_stream
from backtestr_protocol.envelopes import Outgoing
from backtestr_protocol.errors import BacktestrError, Busy, NetworkError, NotFound, SystemFault, TimedOut
from backtestr_protocol.messages import BacktestStatus, Missed

from .session_histories import RIGHT, WALL_MS, WRONG, error_json

TOPICS = ("orders.b1", "orders.b1", "orders.b2", "progress.b1", "state.a.k", "prices.S.1m")
_PREFIXES: tuple[tuple[str, Since, str | None], ...] = (
    ("orders.b1", "start", "b1"),
    ("orders.b1", "retained", "b1"),
    ("orders.", "now", None),
    ("orders.", "retained", None),
    ("progress.b1", "retained", None),
    ("state.", "latest", None),
    ("prices.S.1m", "now", None),
)
_SELDOM = (
    ["open"] * 3 + ["end"] * 3 + ["close", "follow", "fail", "fail", "reconnect", "restart", "forged", "rubbish", "old"]
)
_any = msgspec.msgpack.Decoder()


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery with its data decoded."""
    match delivery:
        case StreamMessage(topic, seq, kind, data):
            return {"kind": "message", "topic": topic, "seq": seq, "type": kind, "data": decode(_any, data)}
        case DeliveredBatch(topic, seq, content):
            payloads = [{"type": one.type, "data": decode(_any, one.data)} for one in content.payloads()]
            return {"kind": "batch", "topic": topic, "seq": seq, "payloads": payloads}
        case Gap(topic, from_seq, to_seq):
            return {"kind": "gap", "topic": topic, "fromSeq": from_seq, "toSeq": to_seq}
        case Restarted(instance_id):
            return {"kind": "restarted", "instanceId": instance_id}
        case MaybeLost(prefix):
            return {"kind": "maybeLost", "prefix": prefix}


def _purpose_json(purpose: Purpose) -> dict[str, Any]:
    if isinstance(purpose, TopicRepair):
        return {
            "kind": "repair",
            "number": purpose.number,
            "subscriptionId": purpose.subscription_id,
            "topic": purpose.topic,
            "isLast": purpose.is_last,
        }
    return {"kind": "status", "backtestId": purpose.backtest_id}


class _StreamHistory:
    """One history while it is written. The topics of its broker are as long as `_published` says."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._subscriptions = Subscriptions()
        self._instance = 1
        self._published = dict.fromkeys(TOPICS, 0)
        self._watermarks = 0
        self._last_id = 0
        self._asked: list[Ask] = []
        self._waits: list[TopicRepair] = []
        self._steps: list[dict[str, Any]] = []

    def written(self, steps: int) -> dict[str, Any]:
        self._connect()
        for _ in range(steps):
            self._step()
        return {"steps": self._steps}

    def _connect(self) -> None:
        instance = f"i{self._instance}"
        self._note({"event": "connected", "instanceId": instance}, self._subscriptions.connected(RIGHT, instance))

    def _step(self) -> None:
        often = ["publish"] * 8 + ["lose"] * 2 + ["answer"] * 4 + ["taken"] * 3 + ["watermarks"] * 2 + ["waited"] * 3
        event = self._chance.choice(often if self._chance.random() < 0.85 else _SELDOM)
        if self._last_id == 0 or (self._last_id < 4 and self._chance.random() < 0.4):
            event = "open"
        ids = list(range(1, self._last_id + 1))
        match event:
            case "open":
                self._open()
            case "close":
                number = self._chance.choice(ids)
                self._note({"event": "close", "id": number}, self._subscriptions.close(number))
            case "follow":
                is_new = self._chance.random() < 0.5
                step = {"event": "follow", "backtestId": "b2", "isNew": is_new}
                self._note(step, self._subscriptions.follow("b2", is_new=is_new))
                if is_new and self._chance.random() < 0.5:
                    self._note({"event": "started", "backtestId": "b2"}, self._subscriptions.started("b2"))
            case "taken":
                number, count = self._chance.choice(ids), self._chance.choice([1, 3, 20])
                step = {"event": "taken", "id": number, "count": count}
                self._note(step, self._subscriptions.taken(number, count))
            case "publish" | "lose":
                self._publish(is_lost=event == "lose")
            case "watermarks":
                self._watermark()
            case "end":
                self._status()
            case "waited" if self._waits:
                repair = self._waits.pop(0)
                step = {"event": "waited", "purpose": _purpose_json(repair)}
                self._note(step, self._subscriptions.waited(repair))
            case "answer" | "fail":
                self._reply(is_failure=event == "fail")
            case "reconnect":
                self._connect()
            case "restart":
                self._instance += 1
                self._published = dict.fromkeys(TOPICS, 0)
                self._watermarks = 0
                self._connect()
            case "forged":
                self._message("orders.b1", 1, "Number", {"n": 1}, signer=WRONG)
            case "old":
                self._message("orders.b1", 1, "Number", {"n": 1}, instance="before")
            case "rubbish":
                frames = [b"orders.b1", bytes(32), b"\xc1"]
                step = {"event": "frames", "frames": [one.hex() for one in frames]}
                self._note(step, self._subscriptions.receive(frames))

    def _open(self) -> None:
        self._last_id += 1
        prefix, since, until = self._chance.choice(_PREFIXES)
        space = self._chance.choice([3, 10, 1000])
        first = self._chance.choice([1, 1, 4]) if since == "retained" and until is None else 1
        step = {"event": "open", "id": self._last_id, "prefix": prefix, "since": since, "space": space}
        effects = self._subscriptions.open(self._last_id, prefix, since, space, until, first)
        self._note({**step, "until": until, "firstSeq": first}, effects)

    def _publish(self, *, is_lost: bool) -> None:
        topic = self._chance.choice(TOPICS)
        count = self._chance.choice([1, 1, 1, 2, 5])
        first = self._published[topic] + 1
        self._published[topic] += count
        if is_lost:
            return
        if self._chance.random() < 0.1:
            first = max(1, first - 2)  # some of it comes twice
        if count == 1:
            self._message(topic, first, "Number", {"n": first})
        else:
            self._message(topic, first, "Batch", self._batch(first, count))

    def _batch(self, first: int, count: int) -> dict[str, Any]:
        padding = "x" * self._chance.choice([0, 0, 400])
        messages = [{"type": "Number", "data": {"n": first + one, "p": padding}} for one in range(count)]
        return {"count": count, "compression": "none", "rawBytes": len(encode(messages)), "messages": messages}

    def _watermark(self) -> None:
        self._watermarks += self._chance.choice([1, 1, 1, 2])
        reached = {topic: seq for topic, seq in self._published.items() if seq}
        self._message("system.watermarks", self._watermarks, "Watermarks", {"topics": reached})

    def _status(self) -> None:
        status = self._chance.choice(["running", "completed", "failed", "stopped"])
        seq = self._published.setdefault("system.backtests", 0) + 1
        self._published["system.backtests"] = seq
        self._message("system.backtests", seq, "BacktestStatus", _status("b1", status))

    def _message(
        self, topic: str, seq: int, kind: str, data: Any, signer: Signer = RIGHT, instance: str | None = None
    ) -> None:
        payload = {"type": kind, "data": data}
        envelope = Outgoing(
            id="m",
            timestamp=WALL_MS,
            schema_version=1,
            message_type="Stream",
            payload=payload,
            seq=seq,
            instance_id=instance or f"i{self._instance}",
        )
        effects = self._subscriptions.receive(encode_stream(signer, topic.encode(), envelope))
        step = {"event": "message", "topic": topic, "seq": seq, "instanceId": envelope.instance_id, "payload": payload}
        self._note({**step, "isForged": signer is WRONG}, effects)

    def _reply(self, *, is_failure: bool) -> None:
        if not self._asked:
            return
        ask = self._asked.pop(self._chance.randrange(len(self._asked)))
        step: dict[str, Any] = {"purpose": _purpose_json(ask.purpose)}
        if is_failure:
            kinds: list[type[BacktestrError]] = [TimedOut, NetworkError, Busy, NotFound, SystemFault]
            error = self._chance.choice(kinds)("?")
            step |= {"event": "failed", "error": msgspec.to_builtins(error.to_data(component="t", timestamp=WALL_MS))}
            self._note(step, self._subscriptions.failed(ask.purpose, error))
            return
        data = self._missed(ask) if ask.request_type == "FetchMissed" else _status("b2", self._chance.choice(_STATES))
        contract: type[Missed | BacktestStatus] = Missed if ask.request_type == "FetchMissed" else BacktestStatus
        answer = msgspec.msgpack.decode(encode(data), type=contract)
        self._note({**step, "event": "answered", "data": data}, self._subscriptions.answered(ask.purpose, answer))

    def _missed(self, ask: Ask) -> dict[str, Any]:
        asked: Any = ask.data
        last = self._published.get(asked.topic, 0)
        oldest = self._chance.choice([1, 1, max(1, last - 3)]) if last else 1
        first = max(asked.from_seq, oldest)
        end = min(last, asked.to_seq or last, first + self._chance.choice([2, 50]))
        numbers = list(range(first, end + 1))
        messages: list[dict[str, Any]] = [
            {"seq": one, "payload": {"type": "Number", "data": {"n": one}}} for one in numbers
        ]
        if len(numbers) > 2 and self._chance.random() < 0.3:
            messages = [{"seq": first, "payload": {"type": "Batch", "data": self._batch(first, len(numbers))}}]
        if asked.topic == "system.backtests":
            status = {"type": "BacktestStatus", "data": _status("b1", "running")}
            messages = [{"seq": one, "payload": status} for one in numbers]
        return {
            "topic": asked.topic,
            "fromSeq": asked.from_seq,
            "toSeq": end if numbers else last,
            "oldestSeq": oldest,
            "messages": messages,
        }

    def _note(self, step: dict[str, Any], effects: Iterable[SubscriptionEffect]) -> None:
        self._subscriptions.check_invariants()
        found = [self._effect(one) for one in effects]
        counters = self._subscriptions.counters
        after = {
            "prefixes": sorted(self._subscriptions.prefixes),
            "gapsSeen": counters.gaps_seen,
            "gapsRepaired": counters.gaps_repaired,
            "gapsLost": counters.gaps_lost,
            "gapsLeft": counters.gaps_left,
            "messagesLost": counters.messages_lost,
            "duplicatesDropped": counters.duplicates_dropped,
            "watermarksBehind": counters.watermarks_behind,
        }
        self._steps.append({**step, "effects": found, "after": after})

    def _effect(self, effect: SubscriptionEffect) -> dict[str, Any]:
        match effect:
            case Subscribe(prefix):
                return {"kind": "subscribe", "prefix": prefix}
            case Unsubscribe(prefix):
                return {"kind": "unsubscribe", "prefix": prefix}
            case Ask(kind, data, purpose):
                self._asked.append(effect)
                return {
                    "kind": "ask",
                    "requestType": kind,
                    "data": decode(_any, encode(data)),
                    "purpose": _purpose_json(purpose),
                }
            case Wait(seconds, repair):
                self._waits.append(repair)
                return {"kind": "wait", "seconds": seconds, "repair": _purpose_json(repair)}
            case Deliver(number, deliveries):
                return {"kind": "deliver", "subscriptionId": number, "deliveries": [*map(delivery_json, deliveries)]}
            case End(number, error):
                return {"kind": "end", "subscriptionId": number, "error": None if error is None else error_json(error)}
            case Finished(backtest_id, outcome):
                said = error_json(outcome) if isinstance(outcome, BacktestrError) else outcome.status
                return {"kind": "finished", "backtestId": backtest_id, "outcome": said}
            case UnattributedError(error):
                return {"kind": "unattributed", "error": {**error_json(error), "details": None}}


_STATES = ("running", "completed", "stopped")


def _status(backtest_id: str, status: str) -> dict[str, Any]:
    return {
        "backtestId": backtest_id,
        "status": status,
        "algorithmId": "a",
        "symbol": "S",
        "progressPercent": 12.5,
        "submitTime": WALL_MS,
    }


def stream_histories(count: int = 20, steps: int = 60) -> list[dict[str, Any]]:
    """Return histories of subscriptions, the same ones every time."""
    return [_StreamHistory(seed).written(steps) for seed in range(count)]
