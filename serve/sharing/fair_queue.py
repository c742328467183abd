"""What callers wait for, each with its cost -> the order in which they are served: start-time fair queueing.

Within a caller, first come, first served. Between callers, each turn begins where the caller's turn before it ended on
a common clock, and no earlier than the clock stands now; the earliest begin goes first. So a caller who asks for little
passes one who asked for much, and nobody saves up turns by asking for nothing. (Goyal, Vin, Cheng: Start-Time Fair
Queueing, SIGCOMM 1996. Their clock stands at the begin of the turn that is served; here each turn also moves it on by
its cost over the callers in line and one who may come, so that new callers without end hold back nobody.)
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT_DEBTS = 64
"""Debts of callers who have left the line, kept until there are so many; then those that the clock has passed go."""


@dataclass(slots=True, eq=False)
class Turn(Generic[T]):
    """One thing that is waited for."""

    caller: str
    cost: int
    item: T
    number: int
    count: int = 1
    """Images that it holds, or whatever else is counted."""
    begin: float = 0.0
    """Time on the queue's clock; set for the first in its caller's line only."""
    is_ready: bool = False
    """Whether it competes with the first of other lines."""
    passed: int = 0
    """Cost of what went before it though it was first (see Shares)."""

    @property
    def size(self) -> int:
        """Class of costs within a factor of two."""
        return self.cost.bit_length()


class FairQueue(Generic[T]):
    """One line per caller. O(log n) comparisons for whatever is done with one turn."""

    def __init__(self, may_go: Callable[[Turn[T]], bool] = lambda turn: True) -> None:
        """may_go: whether the first of a caller's line competes with those of others; asked anew by `look_at`."""
        self._may_go = may_go
        self._lines: dict[str, OrderedDict[Turn[T], None]] = {}
        # by size, the first of each line that may go, as (begin, number, turn), in order
        self._ready: dict[int, list[tuple[float, int, Turn[T]]]] = {}
        self._num_ready = 0
        self._debts: dict[str, float] = {}  # by caller: the end of its latest turn, where the clock is not there yet
        self._kept_debts = KEPT_DEBTS
        self._clock = 0.0
        self._number = 0
        self._len = 0
        self.total_cost = 0
        """Cost of all that is waited for."""
        self.total_count = 0

    def __len__(self) -> int:
        return self._len

    def push(self, caller: str, cost: int, item: T, count: int = 1) -> Turn[T]:
        """Put an item at the end of its caller's line."""
        self._number += 1
        self._len += 1
        self.total_cost += cost
        self.total_count += count
        turn = Turn(caller, cost, item, self._number, count)
        self._lines.setdefault(caller, OrderedDict())[turn] = None
        self.look_at(caller)
        return turn

    def first(self, at_most: int | None = None) -> Turn[T] | None:
        """Whose turn it is, or would be if nothing above a cost could go; it stays in line.

        Among costs that are alike within a factor of two only the earliest is looked at.
        """
        heads = [line[0] for line in self._ready.values() if line and (at_most is None or line[0][2].cost <= at_most)]
        return min(heads)[2] if heads else None

    def serve(self, turn: Turn[T]) -> None:
        """Take out one that `first` gave, and have its caller pay for it."""
        self._clock = max(self._clock + turn.cost / (self._num_ready + 1), turn.begin)
        self._debts[turn.caller] = turn.begin + turn.cost
        self._take_out(turn, turn.begin + turn.cost)

    def serve_batch(
        self,
        max_cost: int,
        max_count: int,
        is_wanted: Callable[[T], bool],
        is_alone: Callable[[T], bool] = lambda item: False,
    ) -> list[T]:
        """Take out the next that cost `max_cost` together at most, or one that costs more by itself.

        max_count: bound on what they hold together, likewise.
        is_wanted: what nobody wants any more is taken out too, and is not in the batch.
        is_alone: what has a batch of its own, whatever it costs.
        """
        batch: list[T] = []
        cost = count = 0
        while turn := self.first(max_cost - cost if batch else None):
            if batch and (is_alone(turn.item) or is_alone(batch[0]) or count + turn.count > max_count):
                break
            self.serve(turn)
            if is_wanted(turn.item):
                batch.append(turn.item)
                cost += turn.cost
                count += turn.count
        return batch

    def discard(self, turn: Turn[T]) -> bool:
        """Take out one that is no longer waited for, at no cost; whether it was there."""
        is_there = turn in self._lines.get(turn.caller, ())
        if is_there:
            self._take_out(turn, turn.begin if turn.is_ready else self._clock)
        return is_there

    def look_at(self, caller: str) -> None:
        """Ask again whether the first of a caller's line may go."""
        self._offer(caller, self._clock)

    def _take_out(self, turn: Turn[T], next_begin: float) -> None:
        line = self._lines[turn.caller]
        self._step_back(turn)
        del line[turn]
        self._len -= 1
        self.total_cost -= turn.cost
        self.total_count -= turn.count
        if line:
            self._offer(turn.caller, next_begin)
        else:
            del self._lines[turn.caller]
            self._forget()

    def _offer(self, caller: str, begin: float) -> None:
        head = next(iter(self._lines.get(caller, ())), None)
        if head is None:
            return
        if not self._may_go(head):
            self._step_back(head)
        elif not head.is_ready:
            head.is_ready = True
            head.begin = max(begin, self._debts.get(caller, 0.0))
            insort(self._ready.setdefault(head.size, []), (head.begin, head.number, head))
            self._num_ready += 1

    def _step_back(self, turn: Turn[T]) -> None:
        if turn.is_ready:
            turn.is_ready = False
            line = self._ready[turn.size]
            del line[bisect_left(line, (turn.begin, turn.number))]
            self._num_ready -= 1

    def _forget(self) -> None:
        """Forget debts that the clock has passed; with nobody in line, all of them."""
        if not self._lines:
            self._debts.clear()
            self._clock = 0.0
        elif len(self._debts) > self._kept_debts:
            self._debts = {caller: end for caller, end in self._debts.items() if end > self._clock}
            self._kept_debts = 2 * len(self._debts) + KEPT_DEBTS
