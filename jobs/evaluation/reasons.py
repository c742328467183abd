"""What was written about images, and what people wrote and rated -> every figure of reasons that is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_core.agreement.figures import Agreement, Comparison, Figure, agreement, bootstrapped, compare
from iqa_core.agreement.matrix import ToldApart, told_apart
from iqa_core.agreement.measures import pearson, spearman
from iqa_core.agreement.rouge import overlap
from iqa_core.opinions.chains import Chains
from iqa_core.opinions.opinion import Opinions, Texts
from iqa_core.reasons.meaning import LAYER, Meaning, TextsModel
from iqa_core.reasons.opposites import Contradictions, contradictions, contradictions_of_people, words
from iqa_core.reasons.texts import Nearness, nearness
from iqa_core.rubrics.written.rubric import Opposites
from iqa_core.tables.scores.columns import REWARD
from jobs.evaluation.judged import Judged
from jobs.evaluation.said import PARTS, Said

ImageKey = tuple[Path, Texts]

ROUGE = ("precision", "recall", "f1")
LEVEL_WORDS = frozenset("bad poor fair good excellent".split())
"""In a caption they give away what the reader of it is to find."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which figures of reasons are wanted, and what they need."""

    chains: Chains = field(default_factory=dict)
    texts_model: TextsModel | None = None
    matrix: bool = False
    alone: Mapping[str, tuple[Opinions, Judged]] = field(default_factory=dict)
    """Attribute -> an assessor that was asked for it alone, on the opinions about it."""
    opposites: Sequence[Opposites] = ()


@dataclass(frozen=True, slots=True)
class CaptionOnly:
    """Ratings read from captions alone, beside the scores of the images, on the same opinions."""

    scored: int
    """Opinions whose image has a score."""
    read: int
    """Opinions whose image has a caption from which a rating was read."""
    both: int
    """Opinions with both, which all figures rest on."""
    image: Agreement
    caption: Agreement
    difference: Comparison
    """Image less caption."""
    with_digits: int
    """Of these captions, those with a digit in them."""
    with_level_words: int
    """Of these captions, those that say how good it is, by a word of LEVEL_WORDS."""


@dataclass(frozen=True, slots=True)
class TextFigures:
    """One part of the answers against people's."""

    rouge1: Nearness
    meaning: Nearness | None
    """None where there is no model of texts."""
    contradicted: Mapping[str, Contradictions]
    """Attribute of the rubric's opposites -> the model against people."""
    contradicted_by_people: Mapping[str, Contradictions]
    """The same among people."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """One answer against the mean of n, of one dimension, on the images of which all answers were parsed."""

    samples: int
    images: int
    one_plcc: Figure
    """Mean over the answers' numbers: of the first answers of all images, of the second ones, …"""
    one_srcc: Figure
    mean_plcc: Figure
    mean_srcc: Figure


@dataclass(frozen=True, slots=True)
class Reasons:
    """All figures of one assessor's reasons."""

    about: Mapping[str, str]
    caption_only: CaptionOnly | None
    texts: Mapping[str, TextFigures]
    """Part -> its figures, where both the model and people wrote one."""
    texts_model: Mapping[str, str | int] | None
    """Folder, layer, and how many texts were cut at how many tokens."""
    sampling: Mapping[str, Sampling]
    """Dimension -> figures, where there are several answers."""
    matrix: ToldApart | None
    alone: ToldApart | None
    """Of the attributes of which another assessor was asked for each alone."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.caption_only or self.texts or self.sampling or self.matrix)


def reasons_of(opinions: Opinions, judged: Judged, asked: Asked, resamples: int, seed: int) -> Reasons:
    """Every figure of one assessor; None, or empty, what it did not write or was not asked for."""
    names, matrix, alone = _attributes(opinions), None, None
    if asked.matrix:
        matrix = _matrix(opinions, {name: _scores(opinions, judged, name) for name in names})
        alone = {name: _scores(own, by, name) for name, (own, by) in asked.alone.items()}
    texts = {
        part: _texts(judged.said, asked, part, resamples, seed) for part in PARTS if _both(judged.said, asked, part)
    }
    model = asked.texts_model
    return Reasons(
        about=judged.about,
        caption_only=_caption_only(opinions, judged, resamples, seed),
        texts=texts,
        texts_model={"folder": model.folder.name, "layer": LAYER, "max_tokens": model.max_tokens, "cut": model.cut}
        if model is not None and texts
        else None,
        sampling=_sampling(opinions, judged, resamples, seed),
        matrix=matrix,
        alone=_matrix(opinions, alone) if alone else None,
    )


def scores_by_image(opinions: Opinions, judged: Judged) -> dict[Path, dict[str, float]]:
    """Image -> dimension -> score on 1 (worst) to 5 (best), where there is one."""
    found: dict[Path, dict[str, float]] = {path: {} for path in opinions.images}
    for row, score in zip(opinions.rows, judged.scores_N.tolist(), strict=True):
        if np.isfinite(score):
            found[row.path][row.dimension] = score
    return found


def _caption_only(opinions: Opinions, judged: Judged, resamples: int, seed: int) -> CaptionOnly | None:
    ratings = judged.caption_ratings
    if ratings is None:
        return None
    # a rubric with captions has one number
    chosen = [n for n, row in enumerate(opinions.rows) if row.dimension != REWARD]
    rows = [opinions.rows[n] for n in chosen]
    image_N, mos_N = judged.scores_N[chosen], np.array([row.mos for row in rows])
    caption_N = np.array([ratings.get(row.path, np.nan) for row in rows])
    is_both = np.isfinite(image_N) & np.isfinite(caption_N)
    images = {row.path for row, both in zip(rows, is_both, strict=True) if both}
    captions = [judged.said[path].caption or "" for path in images]
    return CaptionOnly(
        scored=int(np.isfinite(image_N).sum()),
        read=int(np.isfinite(caption_N).sum()),
        both=int(is_both.sum()),
        image=agreement(image_N[is_both], mos_N[is_both], resamples, seed),
        caption=agreement(caption_N[is_both], mos_N[is_both], resamples, seed),
        difference=compare(image_N[is_both], caption_N[is_both], mos_N[is_both], resamples, seed),
        with_digits=sum(any(map(str.isdigit, caption)) for caption in captions),
        with_level_words=sum(not LEVEL_WORDS.isdisjoint(words(caption)) for caption in captions),
    )


def _both(said: Mapping[Path, Said], asked: Asked, part: str) -> bool:
    """Whether there is a text of this part on either side."""
    return any(one.texts(part) for one in said.values()) and any(
        chain.text(part) for chains in asked.chains.values() for chain in chains
    )


def _texts(said: Mapping[Path, Said], asked: Asked, part: str, resamples: int, seed: int) -> TextFigures:
    texts_N: list[tuple[str, ...]] = []
    references_N: list[list[str]] = []
    for path, chains in asked.chains.items():
        references = [text for chain in chains if (text := chain.text(part)) is not None]
        if references:
            texts_N.append(said[path].texts(part) if path in said else ())
            references_N.append(references)
    model = asked.texts_model
    print(f"texts       {part}s of {len(references_N):,} images are compared with people's", flush=True)
    firsts_N = [texts[:1] for texts in texts_N]
    return TextFigures(
        rouge1=nearness(texts_N, references_N, overlap(), ROUGE, resamples, seed),
        meaning=None if model is None else nearness(texts_N, references_N, model, Meaning._fields, resamples, seed),
        contradicted=contradictions(firsts_N, references_N, asked.opposites, resamples, seed),
        contradicted_by_people=contradictions_of_people(references_N, asked.opposites, resamples, seed),
    )


def _sampling(opinions: Opinions, judged: Judged, resamples: int, seed: int) -> dict[str, Sampling]:
    found = {}
    for name in opinions.dimensions:
        rows = [row for row in opinions.rows if row.dimension == name and row.path in judged.said]
        taken = [(judged.said[row.path].numbers(name), row.mos) for row in rows]
        whole = [(numbers, mos) for numbers, mos in taken if len(numbers) > 1]
        if whole:
            numbers_NS, mos_N = np.array([numbers for numbers, _ in whole]), np.array([mos for _, mos in whole])
            found[name] = _sampled(numbers_NS, mos_N, resamples, seed)
    return found


def _sampled(numbers_NS: NDArray[np.float64], mos_N: NDArray[np.float64], resamples: int, seed: int) -> Sampling:
    images, samples = numbers_NS.shape
    mean_N = numbers_NS.mean(axis=1)

    def of_one(measure: Callable[..., float], picks: NDArray[np.intp]) -> float:
        return float(np.mean([measure(numbers_NS[picks, s], mos_N[picks]) for s in range(samples)]))

    def measured(picks: NDArray[np.intp]) -> list[float]:
        of_mean = [measure(mean_N[picks], mos_N[picks]) for measure in (pearson, spearman)]
        return [of_one(pearson, picks), of_one(spearman, picks), *of_mean]

    return Sampling(samples, images, *bootstrapped(measured, measured(np.arange(images)), images, resamples, seed))


def _scores(opinions: Opinions, judged: Judged, dimension: str) -> dict[ImageKey, float]:
    """Image and texts -> its score in the dimension, NaN where it has none."""
    pairs = zip(opinions.rows, judged.scores_N.tolist(), strict=True)
    return {(row.path, row.texts): score for row, score in pairs if row.dimension == dimension}


def _matrix(opinions: Opinions, scores: Mapping[str, Mapping[ImageKey, float]]) -> ToldApart:
    """scores: of each attribute that is a row."""
    names = _attributes(opinions)
    mos = {(row.path, row.texts, row.dimension): row.mos for row in opinions.rows}
    images = list(dict.fromkeys((row.path, row.texts) for row in opinions.rows))
    scores_NA = [[of_image.get(image, np.nan) for of_image in scores.values()] for image in images]
    mos_NA = [[mos.get((*image, name), np.nan) for name in names] for image in images]
    return told_apart(tuple(scores), scores_NA, names, mos_NA)


def _attributes(opinions: Opinions) -> tuple[str, ...]:
    return tuple(name for name in opinions.dimensions if name != REWARD)
