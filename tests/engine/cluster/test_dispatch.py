"""Every unit is computed once, whatever happens to workers, and none but one that ends workers becomes a failed row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.cluster.dispatch import DEPTH, MAX_LOSSES, MAX_RETURNS, Dispatch, Give, Greet


def accepted(units: int, size: int, *addresses: str) -> Dispatch:
    """Return a span whose workers have all been accepted."""
    dispatch = Dispatch(0, units, size)
    dispatch.seen(addresses)
    assert dispatch.take() == [Greet(address) for address in sorted(addresses)]
    for address in addresses:
        dispatch.greeted(address, [])
    return dispatch


def gives(dispatch: Dispatch) -> list[Give]:
    return [order for order in dispatch.take() if isinstance(order, Give)]


def test_a_worker_gets_no_block_before_it_has_answered() -> None:
    dispatch = Dispatch(0, 10, 5)
    dispatch.seen({"a"})
    assert dispatch.take() == [Greet("a")]
    assert dispatch.take() == [], "it is greeted once"
    assert dispatch.is_greeting
    dispatch.greeted("a", [])
    assert [(one.address, one.first, one.count) for one in gives(dispatch)] == [("a", 0, 5), ("a", 5, 5)]
    assert not dispatch.is_greeting


def test_a_worker_that_differs_gets_none_and_is_remembered() -> None:
    dispatch = Dispatch(0, 10, 5)
    dispatch.seen({"a", "b"})
    dispatch.take()
    dispatch.greeted("a", ["numpy: 1.0 there, 2.0 here"])
    dispatch.greeted("b", [])
    assert {one.address for one in gives(dispatch)} == {"b"}
    assert dispatch.refused == {"a": ["numpy: 1.0 there, 2.0 here"]}
    dispatch.seen({"b"})
    assert dispatch.refused == {}


def test_the_answers_of_workers_that_are_known_are_not_asked_for_again() -> None:
    dispatch = Dispatch(0, 10, 5)
    dispatch.seen({"a", "b", "c"}, {"a": [], "b": ["it differs"]})
    orders = dispatch.take()
    assert [one.address for one in orders if isinstance(one, Greet)] == ["c"]
    assert {one.address for one in orders if isinstance(one, Give)} == {"a"}
    assert "b" in dispatch.refused


def test_every_worker_has_a_block_before_any_has_two() -> None:
    dispatch = accepted(3, 1, "a", "b")
    assert [one.address for one in gives(dispatch)] == ["a", "b", "a"]
    assert DEPTH == 2


def test_a_lost_worker_costs_the_block_that_it_was_at() -> None:
    dispatch = accepted(8, 4, "a")
    first, second = gives(dispatch)
    assert sorted(dispatch.seen(set())) == [first.key, second.key]
    dispatch.check_invariants()
    assert dispatch.left() == [(0, 8)]
    dispatch.seen({"b"}, {"b": []})
    sizes = [(one.first, one.count) for one in gives(dispatch)]
    dispatch.seen({"b", "c", "d"}, {"c": [], "d": []})
    sizes += [(one.first, one.count) for one in gives(dispatch)]
    assert sorted(sizes) == [(0, 2), (2, 2), (4, 4)], "the block behind it is whole"


def test_a_unit_that_ends_workers_is_tried_alone_and_then_given_up() -> None:
    dispatch = accepted(3, 1, "w0")
    for loss in range(MAX_LOSSES):
        orders = gives(dispatch)
        assert orders[0].first == 0
        if loss:
            assert len(orders) == 1, "nothing is behind it: a worker may end before it says that a block was done"
        dispatch.seen({f"w{loss + 1}"}, {f"w{loss + 1}": []})
        dispatch.check_invariants()
    assert [(one.first, one.count) for one in dispatch.fatal] == [(0, 1)]
    for order in gives(dispatch):
        dispatch.done(order.key)
    assert dispatch.is_done
    assert dispatch.left() == []


def test_a_block_that_the_scheduler_has_given_up_counts_as_a_loss() -> None:
    dispatch = accepted(4, 4, "a")
    [order] = gives(dispatch)
    dispatch.killed(order.key)
    assert sorted((one.first, one.count) for one in gives(dispatch)) == [(0, 2), (2, 2)]


def test_a_block_that_comes_back_is_given_out_again_as_it_is() -> None:
    dispatch = accepted(4, 4, "a")
    for _ in range(MAX_RETURNS):
        [order] = gives(dispatch)
        assert (order.first, order.count) == (0, 4)
        assert dispatch.returned(order.key)
    [order] = gives(dispatch)
    assert not dispatch.returned(order.key), "it would come back for ever"


def test_a_worker_that_turns_out_to_differ_gives_its_blocks_back() -> None:
    dispatch = accepted(8, 4, "a", "b")
    given_to = {one.address: one for one in gives(dispatch)}
    assert dispatch.refuse("a", ["it was replaced"]) == [given_to["a"].key]
    dispatch.check_invariants()
    assert [one.address for one in gives(dispatch)] == ["b"]


def test_a_lost_scheduler_costs_no_block_its_good_name() -> None:
    dispatch = accepted(8, 4, "a")
    gives(dispatch)
    dispatch.forget_workers()
    dispatch.check_invariants()
    assert dispatch.left() == [(0, 8)]
    assert dispatch.accepted == 0
    dispatch.seen({"a"})
    assert dispatch.take() == [Greet("a")], "what is behind the address may be another worker now"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_happens_every_unit_is_done_once(data: st.DataObject) -> None:
    units = data.draw(st.integers(1, 30), "units")
    worst = data.draw(st.sets(st.integers(0, units - 1), max_size=2), "units that end workers")
    dispatch = Dispatch(0, units, data.draw(st.integers(1, 8), "size"))
    queues: dict[str, list[Give]] = {}
    done: list[int] = []
    numbered = 0
    for _ in range(2_000):
        while len(queues) < 2:
            numbered += 1
            queues[f"w{numbered}"] = []
        for key in dispatch.seen(queues):
            assert all(order.key != key for queue in queues.values() for order in queue)
        for order in dispatch.take():
            if isinstance(order, Greet):
                dispatch.greeted(order.address, [])
            else:
                queues[order.address].append(order)
        dispatch.check_invariants()
        if dispatch.is_done:
            break
        address = data.draw(st.sampled_from([one for one, queue in queues.items() if queue] or list(queues)), "worker")
        if not queues[address]:
            continue
        order = queues[address].pop(0)
        span = range(order.first, order.first + order.count)
        if worst.isdisjoint(span):
            done += span
            dispatch.done(order.key)
        else:
            del queues[address]
    assert dispatch.is_done
    fatal = [piece.first for piece in dispatch.fatal]
    assert sorted(fatal) == sorted(worst)
    assert sorted([*done, *fatal]) == list(range(units))


def test_an_answer_of_a_worker_that_has_left_is_forgotten() -> None:
    dispatch = Dispatch(0, 1, 1)
    dispatch.seen({"a"})
    dispatch.take()
    dispatch.seen(set())
    dispatch.greeted("a", [])
    assert dispatch.accepted == 0
    assert dispatch.refuse("a", ["late"]) == []
    with pytest.raises(KeyError):
        dispatch.done(1)


def test_a_closed_span_ends_with_the_blocks_that_workers_have() -> None:
    dispatch = accepted(20, 4, "a")
    first, second = gives(dispatch)
    dispatch.close()
    dispatch.done(first.key)
    assert gives(dispatch) == []
    seen = [dispatch.is_done]
    dispatch.done(second.key)
    assert [*seen, dispatch.is_done] == [False, True]
    assert dispatch.left() == [(8, 12)]


def test_blocks_have_another_size_once_the_speed_is_known() -> None:
    dispatch = accepted(20, 1, "a")
    assert [one.count for one in gives(dispatch)] == [1, 1]
    dispatch.resize(6)
    dispatch.seen({"a", "b"}, {"b": []})
    assert [one.count for one in gives(dispatch)] == [6, 6]


def test_a_closed_span_still_finds_the_unit_that_ends_workers() -> None:
    dispatch = accepted(40, 4, "w0")
    gives(dispatch)
    dispatch.seen({"w1"}, {"w1": []})
    dispatch.close()
    queue: list[Give] = []
    for numbered in range(2, 30):
        queue += gives(dispatch)
        if not queue:
            break
        assert queue[0].first <= 3, "of units that nothing is said against none is given out"
        if queue[0].first == 0:
            dispatch.seen({f"w{numbered}"}, {f"w{numbered}": []})
            queue.clear()
        else:
            dispatch.done(queue.pop(0).key)
        dispatch.check_invariants()
    assert [one.first for one in dispatch.fatal] == [0]
    assert dispatch.is_done
    assert dispatch.left() == [(4, 36)]
