"""A filled sheet, as Label Studio exports it -> how people rate what each assessor wrote, with 95 % intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iqa_core.agreement.figures import Figure, HumanCeiling, bootstrapped, human_ceiling
from iqa_core.errors import CallerError
from iqa_core.reasons.sheet import MOST, QUESTIONS


@dataclass(frozen=True, slots=True)
class Rating:
    """What one person thinks of one answer in one respect."""

    assessor: str
    image: str
    question: str
    """One of QUESTIONS."""
    rater: str
    stars: float
    """1 (not at all) to 5 (wholly)."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What an export holds."""

    ratings: tuple[Rating, ...]
    unrated: int
    """Tasks that nobody has rated."""
    cancelled: int
    """Annotations that were skipped or withdrawn; they do not count."""


@dataclass(frozen=True, slots=True)
class RatingSummary:
    """One question about one assessor."""

    images: int
    raters: int
    ratings: int
    mean: Figure
    """Mean over images of the mean over raters; resampled by image."""
    ceiling: HumanCeiling | None
    """How well one rater agrees with the others; None where no image has two."""


def read_sheet(path: Path) -> Sheet:
    """A JSON export. Raises CallerError where it is none, or none of a sheet of ours."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CallerError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, list):
        raise CallerError(f"{path} is no list of tasks; export the project as JSON (not JSON-MIN, not CSV)")
    ratings: list[Rating] = []
    unrated = cancelled = 0
    for number, task in enumerate(content, start=1):
        place = f"{path}, task {number}"
        annotations = _annotations(task, place)
        kept = [one for one in annotations if not one.get("was_cancelled")]
        found = [rating for one in kept for rating in _ratings(task["data"], one, place)]
        cancelled += len(annotations) - len(kept)
        unrated += not found
        ratings += found
    if not ratings:
        raise CallerError(f"{path} holds no rating ({unrated:,} tasks without one)")
    return Sheet(tuple(ratings), unrated, cancelled)


def summaries(ratings: Sequence[Rating], resamples: int, seed: int) -> dict[str, dict[str, RatingSummary]]:
    """Assessor -> question -> its figures."""
    assessors = dict.fromkeys(rating.assessor for rating in ratings)
    return {
        assessor: {
            question: _summary(found, resamples, seed)
            for question in QUESTIONS
            if (found := [one for one in ratings if (one.assessor, one.question) == (assessor, question)])
        }
        for assessor in assessors
    }


def _annotations(task: Any, place: str) -> list[dict[str, Any]]:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict) or not {"image", "assessor"} <= data.keys():
        raise CallerError(f"{place} is none of a sheet of reasons: its data lacks image or assessor")
    annotations = task.get("annotations") or []
    if not all(isinstance(one, dict) for one in annotations):
        raise CallerError(f"{place}: annotations are no objects")
    return list(annotations)


def _ratings(data: Mapping[str, Any], annotation: Mapping[str, Any], place: str) -> Iterator[Rating]:
    by = annotation.get("completed_by")
    rater = str(by.get("id") if isinstance(by, dict) else by)
    for result in annotation.get("result") or []:
        question = result.get("from_name")
        if question not in QUESTIONS:
            continue
        stars = (result.get("value") or {}).get("rating")
        if isinstance(stars, bool) or not isinstance(stars, int | float) or not 1 <= stars <= MOST:
            raise CallerError(f"{place}: {question} is {stars!r}; a rating is a number from 1 to {MOST}")
        yield Rating(str(data["assessor"]), str(data["image"]), question, rater, float(stars))


def _summary(ratings: Sequence[Rating], resamples: int, seed: int) -> RatingSummary:
    by_image: dict[str, list[float]] = {}
    for rating in ratings:
        by_image.setdefault(rating.image, []).append(rating.stars)
    means_N = np.array([np.mean(stars) for stars in by_image.values()])

    def mean(picks: NDArray[np.intp]) -> list[float]:
        return [float(means_N[picks].mean())]

    [figure] = bootstrapped(mean, mean(np.arange(len(means_N))), len(means_N), resamples, seed)
    raters = len({rating.rater for rating in ratings})
    ceiling = human_ceiling(list(by_image.values()), resamples, seed)
    return RatingSummary(len(by_image), raters, len(ratings), figure, ceiling)
