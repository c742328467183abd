"""The order in which callers are served: each its share by cost, and none for ever behind others."""

from __future__ import annotations

from collections import Counter
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from serve.sharing.fair_queue import KEPT_DEBTS, FairQueue


def served(queue: FairQueue[str]) -> str:
    turn = queue.first()
    assert turn is not None
    queue.serve(turn)
    return turn.item


def drained(queue: FairQueue[str]) -> list[str]:
    return [served(queue) for _ in range(len(queue))]


def test_one_of_another_caller_does_not_wait_for_a_thousand() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(1000):
        queue.push("a", 1000, f"a{number}")
    assert served(queue) == "a0"
    queue.push("b", 1000, "b0")
    assert drained(queue)[:2] == ["b0", "a1"]


def test_a_batch_is_bounded_by_cost_but_for_what_costs_more_by_itself() -> None:
    queue: FairQueue[str] = FairQueue()
    for cost, item in ((4, "a"), (4, "gone"), (6, "b"), (4, "c"), (50, "large"), (1, "d")):
        queue.push("caller", cost, item)
    batches = []
    while batch := queue.serve_batch(10, 100, lambda item: item != "gone"):
        batches.append(batch)
    assert batches == [["a", "b"], ["c"], ["large"], ["d"]], "what nobody wants any more takes no room"
    assert len(queue) == queue.total_cost == 0


def test_a_batch_is_bounded_by_what_its_items_hold_together() -> None:
    queue: FairQueue[str] = FairQueue()
    for held, item in ((2, "a"), (1, "b"), (2, "c"), (9, "many"), (3, "d")):
        queue.push("caller", 1, item, held)
    assert queue.total_count == 17
    batches = []
    while batch := queue.serve_batch(100, 4, lambda item: True):
        batches.append(batch)
    assert batches == [["a", "b"], ["c"], ["many"], ["d"]]
    assert queue.total_count == 0


def test_turns_are_shared_by_cost() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.push("small", 1, "small")
        queue.push("large", 10, "large")
    counts = Counter(drained(queue)[:55])
    assert counts == {"small": 50, "large": 5}


def test_nobody_saves_up_turns_by_asking_for_nothing() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(200):
        queue.push("busy", 1, "busy")
    for _ in range(100):
        served(queue)
    for _ in range(50):
        queue.push("idle", 1, "idle")
    assert Counter(drained(queue)[:40]) == {"busy": 20, "idle": 20}


def test_callers_who_are_new_for_ever_hold_back_nobody() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(3):
        queue.push("old", 8, f"old{number}")
        queue.push(f"first{number}", 8, "first")
    order = []
    for number in count():
        queue.push(f"new{number}", 8, "new")
        order.append(served(queue))
        if order[-1] == "old2":
            break
    assert len(order) < 30


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), min_size=1, max_size=60))
def test_within_a_caller_in_order_and_between_callers_who_wait_alike_by_cost(pushed: list[tuple[str, int]]) -> None:
    queue: FairQueue[str] = FairQueue()
    for caller, cost in pushed:
        queue.push(caller, cost, caller)
    left = Counter(caller for caller, _ in pushed)
    costs = {caller: iter([cost for who, cost in pushed if who == caller]) for caller in left}
    got = dict.fromkeys(left, 0)
    while len(queue):
        turn = queue.first()
        assert turn is not None
        queue.serve(turn)
        assert turn.cost == next(costs[turn.caller])
        got[turn.caller] += turn.cost
        left[turn.caller] -= 1
        waiting = [got[caller] for caller in left if left[caller]]
        assert not waiting or max(waiting) - min(waiting) <= 2 * max(cost for _, cost in pushed)
    assert queue.total_cost == 0


def test_what_is_taken_out_costs_nothing_and_leaves_its_place_to_the_next() -> None:
    queue: FairQueue[str] = FairQueue()
    first, second, third = (queue.push("a", 10, f"a{number}") for number in range(3))
    queue.push("b", 10, "b0")
    assert queue.discard(first)
    assert queue.discard(third)
    assert not queue.discard(first)
    assert queue.total_cost == 20
    assert drained(queue) == ["a1", "b0"]
    assert not queue.discard(second)


def test_a_caller_who_may_not_go_is_left_out_until_it_may() -> None:
    barred = {"a"}
    queue: FairQueue[str] = FairQueue(lambda turn: turn.caller not in barred)
    queue.push("a", 1, "a0")
    queue.push("b", 1, "b0")
    assert served(queue) == "b0"
    assert queue.first() is None
    barred.clear()
    queue.look_at("a")
    barred.add("a")
    queue.look_at("a")
    assert queue.first() is None
    barred.clear()
    queue.look_at("a")
    queue.look_at("nobody")
    assert drained(queue) == ["a0"]


def test_under_a_bound_smaller_things_go_first() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", 100, "large")
    queue.push("b", 3, "small")
    queue.push("c", 1, "smallest")
    assert queue.first() is not None
    assert [turn and turn.item for turn in (queue.first(), queue.first(99), queue.first(2), queue.first(0))] == [
        "large",
        "small",
        "smallest",
        None,
    ]


def test_callers_who_have_left_are_forgotten() -> None:
    queue: FairQueue[str] = FairQueue(lambda turn: turn.caller != "barred")
    queue.push("barred", 1, "")
    queue.push("waits", 1_000_000, "")
    served(queue)
    queue.push("waits", 1, "")
    for number in range(10_000):
        queue.push(f"caller{number}", 1 + number % 7, "")
        turn = queue.first()
        assert turn is not None
        if number % 3:
            queue.serve(turn)
        else:
            queue.discard(turn)
    assert len(queue._debts) <= 2 * KEPT_DEBTS
    assert len(queue._lines) == 2
