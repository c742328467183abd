"""Counts of a run -> a bar on a terminal, a line every ten seconds anywhere else."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any

LINE_EVERY_S = 10.0

MOMENTS = 240
"""Points of the line of progress that a report shows."""


@dataclass(slots=True)
class Progress:
    """Images of one run; rate and ETA count what this run does, not what an earlier one did."""

    total: int | None
    """Images of this run's chunks; None where only reading tells how many there are."""
    done_before: int
    """Images that were finished when the run began."""
    done: int = 0
    failed: int = 0
    given_up: int = 0
    """Images of chunks that this run leaves unfinished."""
    failed_are: str = "rejected"
    """What a line of progress calls the failed ones."""
    history: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the run began, images that were back by then: at most MOMENTS of them, evenly thinned out."""
    began: float = field(default_factory=time.monotonic)
    _line_at: float = field(default_factory=time.monotonic)
    _bar: Any = None
    _is_closed: bool = False
    _moment_s: float = 1.0

    def add(self, images: int, failed: int) -> None:
        """Count images that came back. failed: how many of them."""
        self.done += images
        self.failed += failed
        self._remember()
        self._draw()
        self.tick()

    def give_up(self, images: int, back: int = 0, failed: int = 0) -> None:
        """Images of a chunk that stays unfinished, of which `back` had come back and `failed` of these are rejected."""
        self.given_up += images
        self.done -= back
        self.failed -= failed
        self._draw()

    def say(self, text: str) -> None:
        """Print a line: above the bar, where there is one."""
        if self._bar is not None:
            self._bar.clear()
        print(text, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def _draw(self) -> None:
        """Draw the bar, made with the run's first batch so that the job's opening lines stand above it."""
        if self._bar is None and not self._is_closed and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total, initial=self.done_before, unit="image", smoothing=0.05)
        if self._bar is not None:
            self._bar.update(self.done_before + self.done - self._bar.n)
            self._bar.set_postfix({self.failed_are: self.failed})

    def _remember(self) -> None:
        if not self.history or self.seconds - self.history[-1][0] >= self._moment_s:
            self.history.append((round(self.seconds, 1), self.done))
        if len(self.history) > MOMENTS:
            del self.history[1::2]
            self._moment_s *= 2

    def tick(self) -> None:
        """Print the line if it is time."""
        now = time.monotonic()
        if self._bar is None:
            self._draw()
        if self._bar is None and now - self._line_at >= LINE_EVERY_S:
            self._line_at = now
            print(self.line(), flush=True)

    def line(self) -> str:
        """Progress in one line, for people."""
        finished = self.done_before + self.done
        eta = "ETA unknown" if self.eta_s is None else f"ETA {_duration(self.eta_s)}"
        of_total = "" if self.total is None else f" of {self.total:,}"
        failed = f"{self.failed:,} {self.failed_are}"
        if self.given_up:
            failed += f", {self.given_up:,} in unfinished chunks"
        return f"{finished:,}{of_total} images, {self.rate:.1f} images/s, {failed}, {eta}"

    def moments(self) -> list[tuple[float, int]]:
        """Seconds since the run began and images that were back by then, the last of them included."""
        last = [(round(self.seconds, 1), self.done)] if self.history and self.history[-1][1] != self.done else []
        return [*self.history, *last]

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Images per second of this run."""
        return self.done / self.seconds if self.done else 0.0

    @property
    def left(self) -> int | None:
        """Images that are still to come back; None where only reading tells how many there are."""
        return None if self.total is None else max(self.total - self.done_before - self.done - self.given_up, 0)

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end at this rate; None where it is not known."""
        return None if self.left is None or not self.done else self.left / self.rate

    def close(self) -> None:
        """Take the bar off the terminal; no other is made."""
        self._is_closed = True
        if self._bar is not None:
            self._bar.close()


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 chunk, 2,000 chunks."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
