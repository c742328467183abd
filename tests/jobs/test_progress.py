"""What a line and a bar of progress say: rates and ETAs of what is really done."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from jobs.progress import Progress
from tests.clock import stand_still


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def after_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Progress]:
    """Progress as it stands then."""

    def progress(total: int, done_before: int = 0) -> Progress:
        found = Progress(total, done_before)
        stand_still(monkeypatch, "jobs.progress", found.began + 10)
        found._line_at = found.began + 10
        return found

    return progress


def test_a_line(after_ten_seconds: Callable[..., Progress]) -> None:
    found = after_ten_seconds(400, done_before=100)
    assert found.line() == "100 of 400 images, 0.0 images/s, 0 rejected, ETA unknown"
    found.add(50, 3)
    assert found.line() == "150 of 400 images, 5.0 images/s, 3 rejected, ETA 0:50"


def test_images_of_a_chunk_that_stays_unfinished_are_not_done(after_ten_seconds: Callable[..., Progress]) -> None:
    found = after_ten_seconds(40)
    found.add(40, 40)
    found.give_up(40, 40, 40)
    assert found.line() == "0 of 40 images, 0.0 images/s, 0 rejected, 40 in unfinished chunks, ETA unknown"
    assert (found.rate, found.eta_s, found.left) == (0.0, None, 0)
    assert found.moments()[-1][1] == 0


def test_what_is_given_up_is_not_waited_for(after_ten_seconds: Callable[..., Progress]) -> None:
    found = after_ten_seconds(100)
    found.give_up(40)
    found.add(20, 0)
    assert found.left == 40
    assert found.line().endswith("2.0 images/s, 0 rejected, 40 in unfinished chunks, ETA 0:20")


def test_the_bar_begins_below_what_the_job_says_first(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    found = Progress(10, 0)
    print("assessor   demo")
    found.add(5, 1)
    found.say("chunk 3: its images are tried one by one")
    found.add(5, 0)
    found.close()
    found.tick()
    shown = [line.split("\r")[-1].strip() for line in terminal.getvalue().split("\n")]
    assert shown[0] == "assessor   demo"
    assert shown[1] == "chunk 3: its images are tried one by one"
    assert shown[2].startswith("100%")
    assert "10/10" in shown[2]
    assert "rejected=1" in shown[2]
    assert shown[3:] == [""]
