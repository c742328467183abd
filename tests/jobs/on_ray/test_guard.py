"""Streams that end, fail or fall silent: each event once and in order, a beat in a silence, and an end to waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from iqa_core.errors import RunError
from jobs.on_ray.guard import TICK_S, guarded


def coming(events: Iterator[str | None]) -> Iterator[str]:
    """Without the beats that a busy machine may put between them."""
    return (event for event in events if event is not None)


def test_events_pass_in_order() -> None:
    assert list(coming(guarded(iter("abc"), stall_s=60))) == ["a", "b", "c"]


def test_what_the_stream_raises_is_raised_behind_its_events() -> None:
    def failing() -> Iterator[str]:
        yield "a"
        raise ConnectionError("lost")

    events = coming(guarded(failing(), stall_s=60))
    assert next(events) == "a"
    with pytest.raises(ConnectionError, match="lost"):
        next(events)


def test_a_silence_is_a_beat_per_tick_and_then_an_error() -> None:
    released = threading.Event()

    def silent() -> Iterator[str]:
        yield "a"
        released.wait()

    events = guarded(silent(), stall_s=2 * TICK_S)
    assert next(coming(events)) == "a"
    assert next(events) is None
    with pytest.raises(RunError, match=r"no batch came back for 2 s \(--stall-timeout-s\)"):
        next(events)
    released.set()
