"""Histories and tables of the client's small machines: waits, circuits, handshakes, the replica and its resolvers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec

from backtestr.core import batches, session, subscriptions, topic_stream
from backtestr.core.backoff import backoff
from backtestr.core.circuit_breaker import CIRCUIT, CircuitBreaker
from backtestr.core.connection_state import CONNECTION
from backtestr.core.effects import Delivery, Gap, MaybeLost, Restarted, StreamMessage
from backtestr.core.handshakes import MAX_FAILURES, Handshakes, Outcome
from backtestr.core.position_order import PositionOrder
from backtestr.core.recovery import Recovery
from backtestr.core.update_filter import update_filter
from backtestr.io.error_log import MAX_ERRORS
from backtestr.io.io_thread import MAX_WAITING
from backtestr.io.mailboxes import MAX_UNREAD
from backtestr.state.replica import Committed, Replica, VersionedValue
from backtestr.state.resolvers import DEFAULTS, merge_fields, resolver_for
from backtestr_protocol import topics
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import BacktestrError, Busy, NetworkError, NotFound, StateConflict, SystemFault, TimedOut
from backtestr_protocol.messages import StateEntry
from backtestr_protocol.state_values import value_bytes
from backtestr_protocol.stream_messages import OrderUpdate, PositionUpdate, StateUpdate

from .session_histories import WALL_MS, error_json, policy_json, policy_of

_any = msgspec.msgpack.Decoder()


def camel(name: str) -> str:
    """Return a name of Python's tables as the TypeScript client spells it."""
    first, *rest = name.split("_")
    return first + "".join(one.capitalize() for one in rest)


def backoffs() -> list[dict[str, Any]]:
    """Return waits: policy, attempt and chance, with the seconds."""
    chance = random.Random(1)
    rows = []
    for _ in range(40):
        policy, attempt, share = policy_of(chance), chance.choice([1, 2, 3, 7, 2000]), chance.choice([0.0, 0.5, 1.0])
        seconds = backoff(policy, attempt, share)
        rows.append({"policy": policy_json(policy), "attempt": attempt, "chance": share, "seconds": seconds})
    return rows


def tables() -> dict[str, Any]:
    """Return the tables of transitions, and the sockets of prefixes."""
    prefixes = [
        "",
        "p",
        "pr",
        "prices.",
        "prices.S.1m",
        "prices",
        "orders.",
        "system.",
        "system.status",
        "state.",
        "x.",
    ]
    return {
        "circuit": [[camel(state), camel(event), camel(to)] for (state, event), to in CIRCUIT.items()],
        "connection": [[camel(state), camel(event), camel(to)] for (state, event), to in CONNECTION.items()],
        "sockets": [[prefix, list(topics.sockets_for(prefix))] for prefix in prefixes],
        "classes": [[one, None if (found := topics.class_of(one)) is None else found.prefix] for one in prefixes],
    }


def constants() -> dict[str, Any]:
    """Return the bounds and times that both clients have."""
    return {
        "MAX_RESENDS": session.MAX_RESENDS,
        "REPLAY_WINDOW": session.REPLAY_WINDOW,
        "HELLO_TIMEOUT": session.HELLO_TIMEOUT,
        "MAX_AHEAD": topic_stream.MAX_AHEAD,
        "MAX_INCONCLUSIVE": topic_stream.MAX_INCONCLUSIVE,
        "QUIET": subscriptions.QUIET,
        "MAX_BATCH_BYTES": batches.MAX_BATCH_BYTES,
        "MAX_BATCH_MESSAGES": batches.MAX_BATCH_MESSAGES,
        "MAX_FAILURES": MAX_FAILURES,
        "MAX_UNREAD": MAX_UNREAD,
        "MAX_WAITING": MAX_WAITING,
        "MAX_ERRORS": MAX_ERRORS,
        "recovery": policy_json(Recovery()),
    }


def breakers(count: int = 8, steps: int = 30) -> list[dict[str, Any]]:
    """Return histories of circuit breakers."""
    histories = []
    for seed in range(count):
        chance = random.Random(seed)
        policy = policy_of(chance)
        breaker, now, noted = CircuitBreaker(policy), 0.0, []
        for number in range(steps):
            now += chance.choice([0.0, 0.5, 1.0, 8.0])
            event = chance.choice(["sent", "ended", "ended", "ended", "welcomed", "look"])
            step: dict[str, Any] = {"event": event, "now": now, "requestId": f"n-{number % 5}"}
            if event == "sent":
                breaker.sent(step["requestId"], now)
            elif event == "ended":
                error = chance.choice(
                    [None, TimedOut("?"), NetworkError("?"), SystemFault("?"), Busy("?"), NotFound("?")]
                )
                breaker.ended(step["requestId"], error, now)
                step["error"] = None if error is None else _wire(error)
            elif event == "welcomed" and chance.random() < 0.3:
                breaker.welcomed()
            else:
                step["event"] = "look"
            refusal = breaker.refusal(now)
            after = {"state": camel(breaker.state(now)), "refusal": None if refusal is None else refusal.details}
            noted.append({**step, "after": after})
        histories.append({"policy": policy_json(policy), "steps": noted})
    return histories


def handshakes(count: int = 6, steps: int = 12) -> list[list[Any]]:
    """Return histories of handshakes: outcome, whether it is of requests, and the verdict."""
    histories = []
    outcomes: tuple[Outcome, ...] = ("succeeded", "failed", "denied")
    for seed in range(count):
        chance = random.Random(seed)
        machine, noted = Handshakes(), []
        for _ in range(steps):
            outcome, of_requests = chance.choice(outcomes), chance.random() < 0.7
            verdict = machine.ended(outcome, of_requests=of_requests)
            noted.append([outcome, of_requests, "lockedOut" if verdict == "locked out" else verdict])
        histories.append(noted)
    return histories


def resolutions() -> list[dict[str, Any]]:
    """Return what the resolvers make of two changes, or the fields that conflict."""
    values: list[Any] = [
        None,
        "text",
        {"a": 1},
        {"a": 1, "b": 2},
        {"a": 2, "b": 2},
        {"a": {"x": 1, "y": 2}, "lastModified": 5},
        {"a": {"x": 2, "y": 2}, "lastModified": 7},
        {"a": {"x": 1, "y": 3}, "lastModified": "2024"},
        {"lastUpdate": 3, "n": 1},
        {"lastUpdate": 4, "n": 2},
        {"lastUpdate": True},
    ]
    chance = random.Random(5)
    rows = []
    for _ in range(120):
        mine, theirs, base = (chance.choice(values) for _ in range(3))
        key = chance.choice(["backtest.x", "algorithm.x", "other"])
        try:
            result: dict[str, Any] = {"value": resolver_for(key, DEFAULTS)(mine, theirs, base)}
        except StateConflict as conflict:
            result = {"fields": (conflict.details or {})["fields"]}
        rows.append({"key": key, "mine": mine, "theirs": theirs, "base": base, **result})
    assert any("fields" in one for one in rows)
    assert merge_fields({"a": 1}, {"b": 1}, {}) == {"a": 1, "b": 1}
    return rows


class _ReplicaHistory:
    """One history of a replica, with a broker of three keys whose messages come in any order."""

    _KEYS = ("x.a", "x.b", "x.c")

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._replica = Replica()
        self._versions = dict.fromkeys(self._KEYS, 0)
        self._entries: dict[str, StateEntry] = {}
        self._published: list[StateUpdate] = []
        self._snapshot: tuple[int, list[StateEntry], int] | None = None
        self._updates: list[tuple[str, int]] = []
        self._steps: list[dict[str, Any]] = []

    def written(self, steps: int) -> list[dict[str, Any]]:
        for _ in range(steps):
            self._step()
        return self._steps

    def _step(self) -> None:
        event = self._chance.choice(
            ["change", "change", "change", "again", "ask", "apply", "apply", "begin", "confirm", "withdraw", "lost"]
        )
        key = self._chance.choice(self._KEYS)
        match event:
            case "change" | "again":
                update = self._change(key) if event == "change" else None
                if event == "again" and self._published:
                    update = self._chance.choice(self._published)
                if update is not None and self._chance.random() < 0.8:
                    data = decode(_any, encode(update))
                    message = StreamMessage(f"state.{update.key}", 1, "StateUpdate", msgspec.Raw(encode(update)))
                    self._note({"event": "update", "data": data}, self._replica.receive(message))
            case "ask":
                self._snapshot = (self._replica.begin_snapshot(), list(self._entries.values()), len(self._published))
                self._note({"event": "beginSnapshot"}, [])
            case "apply" if self._snapshot is not None:
                reasons, entries, watermark = self._snapshot
                self._snapshot = None
                step = {"event": "applySnapshot", "reasons": reasons, "watermark": watermark}
                step["entries"] = [decode(_any, encode(one)) for one in entries]
                self._note(step, self._replica.apply_snapshot(reasons, entries, watermark))
            case "begin":
                value = self._chance.choice([None, {"n": self._chance.randrange(9)}])
                number = self._replica.begin_update(key, None if value is None else value_bytes(value))
                self._updates.append((key, number))
                self._note({"event": "beginUpdate", "key": key, "value": value}, [])
            case "confirm" | "withdraw" if self._updates:
                key, number = self._updates.pop(self._chance.randrange(len(self._updates)))
                if event == "withdraw":
                    self._replica.withdraw_update(key, number)
                    self._note({"event": "withdraw", "key": key, "updateId": number}, [])
                else:
                    version = self._versions[key] = self._versions[key] + 1
                    changed = self._replica.confirm_update(key, number, version)
                    self._note({"event": "confirm", "key": key, "updateId": number, "version": version}, changed)
            case "lost":
                lost: list[tuple[str, Delivery]] = [
                    ("maybeLost", MaybeLost("x.")),
                    ("gap", Gap("state.x.a", 1, 2)),
                    ("restarted", Restarted("i2")),
                ]
                name, delivery = self._chance.choice(lost)
                self._note({"event": name}, self._replica.receive(delivery))

    def _change(self, key: str) -> StateUpdate:
        self._versions[key] += 1
        is_deleted = self._chance.random() < 0.3
        facts: dict[str, Any] = {
            "key": key,
            "value": None if is_deleted else {"n": self._chance.randrange(9)},
            "version": self._versions[key],
            "checksum": "c",
            "timestamp": WALL_MS,
        }
        self._entries.pop(key, None)
        if not is_deleted:
            self._entries[key] = StateEntry(**facts)
        update = StateUpdate(**facts, revision=len(self._published) + 1, deleted=is_deleted)
        self._published.append(update)
        return update

    def _note(self, step: dict[str, Any], changes: Iterable[Committed]) -> None:
        self._replica.check_invariants()
        visible = {one: decode(_any, self._replica.visible(one) or b"\xc0") for one in self._replica.visible_keys()}
        after = {
            "changes": [{"key": one.key, **_versioned(one.current)} for one in changes],
            "visible": visible,
            "committed": {one: _versioned(self._replica.committed(one)) for one in self._KEYS},
            "needsSnapshot": self._replica.needs_snapshot,
        }
        self._steps.append({**step, "after": after})


def _versioned(current: VersionedValue) -> dict[str, Any]:
    value = None if current.value is None else decode(_any, current.value)
    return {"version": current.version, "isThere": current.value is not None, "value": value}


def replicas(count: int = 10, steps: int = 40) -> list[list[dict[str, Any]]]:
    """Return histories of replicas."""
    return [_ReplicaHistory(seed).written(steps) for seed in range(count)]


def positions(count: int = 6) -> list[list[dict[str, Any]]]:
    """Return updates of positions that are read again after a restart, each with whether it is new."""
    histories = []
    for seed in range(count):
        chance = random.Random(seed)
        updates = []
        for number in range(20):
            is_mark = chance.random() < 0.5
            updates.append(_position(WALL_MS + 1000 * (number // 2), float(number) + 0.5, mark=is_mark))
        order, noted = PositionOrder(), []
        read = chance.randrange(1, 20)
        kept = [one for one in updates if not one.mark or chance.random() < 0.7]
        for one in updates[:read]:
            noted.append({"update": decode(_any, encode(one)), "isNew": order.is_new(one)})
        order.restarted()
        noted.append({"restarted": True})
        for one in kept:
            noted.append({"update": decode(_any, encode(one)), "isNew": order.is_new(one)})
        histories.append(noted)
    return histories


def _position(timestamp: int, quantity: float, *, mark: bool) -> PositionUpdate:
    return PositionUpdate(
        position_id="p",
        backtest_id="b",
        symbol="S",
        quantity=quantity,
        average_price=1.5,
        current_price=2.5,
        unrealized_pnl=0.5,
        realized_pnl=0.25,
        timestamp=timestamp,
        mark=mark,
    )


def filters() -> list[dict[str, Any]]:
    """Return which orders and positions pass which filters."""
    chance = random.Random(3)
    rows = []
    for _ in range(60):
        topic = chance.choice(["orders.b", "positions.b"])
        given: dict[str, Any] = {"symbol": chance.choice([None, "S", ["S", "T"]]), "side": chance.choice([None, "buy"])}
        given["min_quantity"] = chance.choice([None, 2.5])
        if topic == "orders.b":
            given["status"] = chance.choice([None, "filled", ["filled", "pending"]])
        wanted = update_filter(topic, **given)
        quantity = chance.choice([1.5, 2.5, 7.5])
        if topic == "orders.b":
            data: Any = OrderUpdate(
                order_id="o",
                backtest_id="b",
                symbol=chance.choice(["S", "T", "U"]),
                side=chance.choice(["buy", "sell"]),
                quantity=quantity,
                price=1.5,
                order_type="market",
                status=chance.choice(["filled", "pending", "rejected"]),
                timestamp=WALL_MS,
            )
        else:
            data = _position(WALL_MS, chance.choice([-quantity, quantity, 0.0]), mark=False)
        asked = {camel(name): value for name, value in given.items() if value is not None}
        passes = wanted is None or wanted.passes(data)
        rows.append({"topic": topic, "filters": asked, "data": decode(_any, encode(data)), "passes": passes})
    return rows


def _wire(error: BacktestrError) -> Any:
    assert error_json(error)["code"] == error.code
    return msgspec.to_builtins(error.to_data(component="test", timestamp=WALL_MS))
