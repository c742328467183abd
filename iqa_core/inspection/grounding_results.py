"""What a self-test of locating found -> its verdict, a record for metadata, and lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from iqa_core.agreement.measures import wilson
from iqa_core.grounding.locating import Method

FALSE_ALARMS = 0.05
"""Share of the images without a flaw that may be taken for spoilt ones, when it is asked how many of these are seen."""


@dataclass(frozen=True, slots=True)
class KindResult:
    """Flaws of one kind, and how many of them were found in one dimension and grid."""

    kind: str
    side: int
    trials: int
    hits: int
    """Images whose worst cell is the spoilt one."""
    central: int | None
    """Images whose spoilt cell is the middle one, which always saying "the middle" finds; None where no cell is."""
    sharpest: int
    """Images whose spoilt cell has the most Laplacian energy."""
    fall: float
    """Mean fall of the whole image's score, in points of 1 to 5; NaN without trials."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share of hits, by Wilson."""
        return wilson(self.hits, self.trials)

    @property
    def is_above_chance(self) -> bool:
        """Whether the lower end of the interval is above chance."""
        return self.interval[0] > 1 / self.side**2


@dataclass(frozen=True, slots=True)
class GridResult:
    """How well one dimension locates in the cells of one grid."""

    dimension: str
    side: int
    """Cells along a side of the image."""
    kinds: tuple[KindResult, ...]
    mirrored: float
    """Share of the spoilt images whose mirror image has the mirrored cell as its worst."""
    min_fall: float
    """By so many points of 1 to 5 the worst cell must be below the best to be taken for a flaw."""
    false_alarms: float
    """Share of the images without a flaw that have such a cell."""
    strict_fall: float
    """The fall that FALSE_ALARMS of the images without a flaw exceed."""
    noticed: float
    """Share of the spoilt images whose cells fall by more than that."""

    @property
    def chance(self) -> float:
        """Share of hits of somebody who guesses."""
        return 1 / self.side**2

    @property
    def is_above_chance(self) -> bool:
        """Whether at least half of the kinds of flaws are found more often than by chance."""
        return 2 * sum(kind.is_above_chance for kind in self.kinds) >= len(self.kinds)

    @property
    def verdict(self) -> str:
        """For people and metadata."""
        return "above chance" if self.is_above_chance else "at chance"


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What came out, for each dimension and grid."""

    method: Method
    seed: int
    images: int
    """That were spoilt and asked about."""
    rejected: Mapping[str, int]
    """Reason -> number of images that were left out."""
    results: tuple[GridResult, ...]

    @property
    def is_above_chance(self) -> bool:
        """Whether any dimension locates in any grid."""
        return any(result.is_above_chance for result in self.results)

    @property
    def record(self) -> dict[str, Any]:
        """All of it for JSON, as metadata of a table or a report holds it."""
        return {
            "method": self.method,
            "seed": self.seed,
            "images": self.images,
            "rejected": dict(self.rejected),
            "results": [_record(result) for result in self.results],
        }


def _record(result: GridResult) -> dict[str, Any]:
    return {
        "dimension": result.dimension,
        "cells": [result.side, result.side],
        "verdict": result.verdict,
        "chance": result.chance,
        "kinds": {
            kind.kind: {
                "trials": kind.trials,
                "hits": kind.hits,
                "interval": list(kind.interval),
                "central": kind.central,
                "sharpest": kind.sharpest,
                "fall": kind.fall if kind.trials else None,
            }
            for kind in result.kinds
        },
        **{name: getattr(result, name) for name in ("mirrored", "min_fall", "false_alarms", "strict_fall", "noticed")},
    }


def self_test_lines(test: SelfTest) -> Iterator[str]:
    """A table per dimension and grid, and the verdict of each."""
    for result in test.results:
        grid = f"{result.side} x {result.side}"
        yield f"{result.dimension}, {grid} cells, chance {result.chance:.2f}: {result.verdict}"
        yield f"{'':<14} {'hits':<6}{'95 % interval':<15}{'middle':<8}{'sharpest':<10}fall of the score"
        for kind in result.kinds:
            yield f"  {kind.kind:<12} {_kind_line(kind)}"
        yield f"  mirrored     {result.mirrored:.2f} of the images have the mirrored cell"
        named = f"a cell that falls by {result.min_fall:g} or more" if result.min_fall else "a worst cell"
        yield f"  unspoilt     {result.false_alarms:.2f} of the images as they were have {named}"
        yield (
            f"  noticed      {result.noticed:.2f} of the spoilt images have a cell that falls by more than "
            f"{result.strict_fall:.2f}, which {FALSE_ALARMS:g} of the others have"
        )
        yield ""
    width = max(len(result.dimension) for result in test.results)
    for result in test.results:
        yield f"{'verdict':<14} {result.dimension:<{width}} {result.side} x {result.side}  {result.verdict}"
    yield "Nothing is said of flaws that no filter makes, such as a hand with six fingers."


def _kind_line(kind: KindResult) -> str:
    if not kind.trials:
        return "none"
    low, high = kind.interval
    counts = (kind.hits, kind.central, kind.sharpest)
    shares = ["-" if count is None else f"{count / kind.trials:.2f}" for count in counts]
    interval = f"{max(low, 0):.2f} to {high:.2f}"
    return f"{shares[0]:<6}{interval:<15}{shares[1]:<8}{shares[2]:<10}{kind.fall:+.2f}"
