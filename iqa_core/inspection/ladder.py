"""An assessor and images without labels -> how each of its dimensions falls as the images are spoilt, step by step.

No opinions are needed: whatever an image is worth, it is worth less when it is blurred, and less still when it is
blurred more. A dimension that does not fall where it should, or falls where it should not, has learnt something else.

Shape suffixes: N images, D kinds of distortion, S strengths (0 is the image itself), K dimensions of the rubric.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_core.assessor.protocol import Assessor
from iqa_core.errors import CallerError, RunError, listed
from iqa_core.images.distortions import KINDS, STRENGTHS, Pixels, distort
from iqa_core.inspection.own_images import read_bounded
from iqa_core.records import Assessment, ImageHeader, Rejection, RgbImage, ScoreRange

ANSWERS_TAU, ANSWERS_FALL = 0.4, 0.25
"""Least tau and fall with which a dimension answers to a distortion: 7 pairs of 10 in order, and a quarter point of 1
to 5 lost, or the same part of another range."""


DIMENSIONS_SHOWN = 16
"""Columns of the table and curves of the picture; a checklist may have 256 dimensions."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Scores of every image at every strength of every distortion."""

    images: tuple[str, ...]
    rejected: tuple[str, ...]
    """Images that could not be read, or got no score in some form; they are not among `images`."""
    dimensions: tuple[str, ...]
    scores_NDSK: NDArray[np.float32]
    ranges: tuple[ScoreRange, ...]
    """Of the dimensions."""

    @property
    def ratings_NDSK(self) -> NDArray[np.float64]:
        """The scores brought to 1 (worst) to 5 (best)."""
        scores_KNDS = np.moveaxis(self.scores_NDSK.astype(np.float64), -1, 0)
        return np.stack([ends.rating(scores) for ends, scores in zip(self.ranges, scores_KNDS, strict=True)], axis=-1)

    def falls_NDK(self) -> NDArray[np.float64]:
        """Kendall's tau of strength and loss, per image: 1 is worse at each step, 0 has no order or stays, -1 better.

        Tau-a: steps that are equal count as no order, so that a score that never moves gets 0.
        """
        ratings_NDSK, pairs = self.ratings_NDSK, combinations(range(STRENGTHS + 1), 2)
        signs = [np.sign(ratings_NDSK[:, :, weak] - ratings_NDSK[:, :, strong]) for weak, strong in pairs]
        return np.asarray(np.mean(signs, axis=0))

    def changes_NDK(self) -> NDArray[np.float64]:
        """Change of the score, in its own units, from the image itself to the greatest strength."""
        return np.asarray(self.scores_NDSK[:, :, -1] - self.scores_NDSK[:, :, 0], dtype=np.float64)

    def answers(self, kind: str) -> list[str]:
        """Dimensions that get worse with this distortion, the one that loses most of its range first."""
        d = KINDS.index(kind)
        taus_K = self.falls_NDK()[:, d].mean(axis=0)
        ratings_NSK = self.ratings_NDSK[:, d]
        changes_K = (ratings_NSK[:, -1] - ratings_NSK[:, 0]).mean(axis=0)
        order = np.argsort(changes_K, kind="stable")
        return [self.dimensions[k] for k in order if taus_K[k] >= ANSWERS_TAU and -changes_K[k] >= ANSWERS_FALL]


def climb(assessor: Assessor, paths: Sequence[Path], progress: Callable[[int], None] = lambda done: None) -> Ladder:
    """Score each image as it is and in all its spoilt forms, one image after the other.

    Raises RunError when no image at all could be scored, CallerError for a rubric with slots.
    """
    if assessor.rubric.slots:
        raise CallerError(
            f"--ladder: rubric {assessor.rubric.id} has slots ({', '.join(assessor.rubric.slots)}), and images of a "
            "folder have no texts; give a --rubric without"
        )
    names, rejected, scores = list[str](), list[str](), list[NDArray[np.float32]]()
    for done, path in enumerate(paths, start=1):
        pixels_HWC = read_bounded(path, assessor.preparer.limits)
        scores_DSK = None if isinstance(pixels_HWC, Rejection) else _scores(assessor, pixels_HWC)
        if scores_DSK is None:
            rejected.append(str(path))
        else:
            names.append(str(path))
            scores.append(scores_DSK)
        progress(done)
    if not scores:
        raise RunError(f"none of {len(paths)} images could be read and scored, {paths[0]} among them")
    ranges = tuple(column.scale.range for column in assessor.rubric.columns)
    return Ladder(tuple(names), tuple(rejected), assessor.rubric.names, np.stack(scores), ranges)


def _scores(assessor: Assessor, pixels_HWC: Pixels) -> NDArray[np.float32] | None:
    """Shape (D, S, K), or None when any of them gets no score. The image itself is scored once."""
    forms = [pixels_HWC, *(distort(pixels_HWC, kind, step + 1) for kind in KINDS for step in range(STRENGTHS))]
    header = ImageHeader(pixels_HWC.shape[1], pixels_HWC.shape[0], "png", 1)
    prepared = [assessor.preparer.prepare(RgbImage(form, header)) for form in forms]
    results = assessor.assess(prepared)
    scored = [result.scores_K for result in results if isinstance(result, Assessment)]
    if len(scored) < len(forms):
        return None
    spoilt_DSK = np.stack(scored[1:]).reshape(len(KINDS), STRENGTHS, -1)
    return np.concatenate([np.broadcast_to(scored[0], (len(KINDS), 1, len(scored[0]))), spoilt_DSK], axis=1)


def finest(ladder: Ladder) -> Path:
    """The image with the best scores: on it one sees best what spoiling does."""
    return Path(ladder.images[int(ladder.ratings_NDSK[:, 0, 0].mean(axis=-1).argmax())])


def ladder_lines(ladder: Ladder) -> Iterator[str]:
    """Per distortion and dimension: mean tau, and mean change at the greatest strength; then who answers.

    Of more than DIMENSIONS_SHOWN dimensions the first.
    """
    taus_DK, changes_DK = ladder.falls_NDK().mean(axis=0), ladder.changes_NDK().mean(axis=0)
    shown = ladder.dimensions[:DIMENSIONS_SHOWN]
    width = max(14, *(len(name) + 2 for name in shown))
    yield f"{'':<14}" + "".join(f"{name:<{width}}" for name in shown) + "answers"
    for d, kind in enumerate(KINDS):
        cells = (f"{taus_DK[d, k]:+.2f} {changes_DK[d, k]:+.2f}" for k in range(len(shown)))
        answers = listed(ladder.answers(kind), DIMENSIONS_SHOWN) or "none"
        yield f"{kind:<14}" + "".join(f"{cell:<{width}}" for cell in cells) + answers
    if left := len(ladder.dimensions) - len(shown):
        yield f"and {left} further dimensions, in ladder.csv"


def write_scores(ladder: Ladder, folder: Path) -> None:
    """ladder.csv with every score, and ladder.json with the table."""
    with (folder / "ladder.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "distortion", "strength", *ladder.dimensions])
        for n, d, s in np.ndindex(*ladder.scores_NDSK.shape[:3]):
            scores = (f"{score:.5f}" for score in ladder.scores_NDSK[n, d, s])
            writer.writerow([ladder.images[n], KINDS[d], s, *scores])
    taus_DK, changes_DK = ladder.falls_NDK().mean(axis=0), ladder.changes_NDK().mean(axis=0)
    content = {
        "images": len(ladder.images),
        "rejected": list(ladder.rejected),
        "distortions": {
            kind: {
                "answers": ladder.answers(kind),
                "kendall": dict(zip(ladder.dimensions, taus_DK[d].round(4).tolist(), strict=True)),
                "change": dict(zip(ladder.dimensions, changes_DK[d].round(4).tolist(), strict=True)),
            }
            for d, kind in enumerate(KINDS)
        },
    }
    (folder / "ladder.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
