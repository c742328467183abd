"""Texts of a model and of several people about the same images -> how near they are, with people as the yardstick.

What "near" is comes from outside: words in common (`agreement.rouge`) or meaning (`meaning`). Three figures stand side
by side, because a mean over raters and the nearest of several are different things:

    all raters      a text against each rater, the mean
    nearest rater   a text against the rater that it is nearest to
    ceiling         a rater's text against the nearest of the other raters, the mean over raters

The ceiling is what a person reaches, and belongs beside the nearest rater; it has one rater less to choose from. Shape
suffixes: N images, M measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iqa_core.agreement.figures import Figure, bootstrapped

Near = Callable[[str, str], Sequence[float]]
"""Text, reference -> measures, the last of which says which of several references is the nearest."""


@dataclass(frozen=True, slots=True)
class Nearness:
    """Means over images of each measure, with 95 % intervals over resampled images."""

    images: int
    """Images about which both wrote."""
    unwritten: int
    """Images that people wrote about, and of which the model wrote nothing that could be parsed."""
    texts: int
    """Texts of people about the former."""
    all_raters: Mapping[str, Figure]
    nearest_rater: Mapping[str, Figure]
    samples: int
    """Answers about these images that were parsed."""
    all_samples: Mapping[str, Figure]
    """`all_raters` as the mean over an image's answers instead of its first one; empty where each has one."""
    ceiling_images: int
    """Images that two raters or more wrote about, whether or not the model did."""
    ceiling: Mapping[str, Figure]
    """Empty where there are none."""


def nearness(
    texts_N: Sequence[Sequence[str]],
    references_N: Sequence[Sequence[str]],
    near: Near,
    measures: Sequence[str],
    resamples: int,
    seed: int,
) -> Nearness:
    """All figures of one part of the answers, such as their captions.

    texts_N: the answers about each image that were parsed, the first of which counts; may be empty. references_N:
    people's texts about it. Images without references are left out. Raises ValueError when the two differ in length.
    """
    pairs = [(texts, people) for texts, people in zip(texts_N, references_N, strict=True) if people]
    both = [(texts, people) for texts, people in pairs if texts]
    raters = [people for _, people in pairs if len(people) > 1]
    several = any(len(texts) > 1 for texts, _ in both)

    def means(rows: Sequence[NDArray[np.float64]]) -> dict[str, Figure]:
        return _means(rows, measures, resamples, seed)

    return Nearness(
        images=len(both),
        unwritten=len(pairs) - len(both),
        texts=sum(len(people) for _, people in both),
        all_raters=means([_mean(texts[0], people, near) for texts, people in both]),
        nearest_rater=means([_nearest(texts[0], people, near) for texts, people in both]),
        samples=sum(len(texts) for texts, _ in both),
        all_samples=means([np.mean([_mean(text, people, near) for text in texts], axis=0) for texts, people in both])
        if several
        else {},
        ceiling_images=len(raters),
        ceiling=means([_ceiling(people, near) for people in raters]) if raters else {},
    )


def _mean(text: str, references: Sequence[str], near: Near) -> NDArray[np.float64]:
    """(M,)."""
    return np.mean([near(text, reference) for reference in references], axis=0)


def _nearest(text: str, references: Sequence[str], near: Near) -> NDArray[np.float64]:
    """(M,): all measures are those of one reference."""
    return np.asarray(max((near(text, reference) for reference in references), key=lambda found: found[-1]), np.float64)


def _ceiling(people: Sequence[str], near: Near) -> NDArray[np.float64]:
    """(M,)."""
    others = [[*people[:n], *people[n + 1 :]] for n in range(len(people))]
    return np.mean([_nearest(text, rest, near) for text, rest in zip(people, others, strict=True)], axis=0)


def _means(
    rows: Sequence[NDArray[np.float64]], measures: Sequence[str], resamples: int, seed: int
) -> dict[str, Figure]:
    """Measure -> its mean over images; not defined where there is none."""
    found_NM = np.asarray(rows, np.float64).reshape(-1, len(measures))
    whole = found_NM.mean(axis=0).tolist() if len(found_NM) else [np.nan] * len(measures)
    figures = bootstrapped(lambda picks: found_NM[picks].mean(axis=0).tolist(), whole, len(found_NM), resamples, seed)
    return dict(zip(measures, figures, strict=True))
