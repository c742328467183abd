"""Scenes and their truths -> annotations laid out like SA-BENCH: CSV with raters, JSONL with prompts.

    images/{dimension}/images/{id}.jpg
    annotations/{dimension}_{size}_{train|test|full}.csv
    annotations/{dimension}_{size}_{train|test|full}_prompt{1..4}.jsonl

An image belongs to one dimension, as there; every fifth of a dimension is a test image. Its mean opinion is the truth,
around which two or three made-up raters lie. The prompts are those of interior-v1 to interior-v4.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_core.demo.scenes import DIMENSIONS
from iqa_core.records import FIVE_LEVELS
from iqa_core.rubrics import Rubric, load_rubric
from iqa_core.rubrics.sa_bench import prompt_line

TEST_EVERY = 5
RATERS = 3
MAX_DISAGREEMENT = 0.75
"""How far a rater may lie from the mean, on 1..5."""

GENERATORS = ("generator-a", "generator-b", "generator-c")
"""Values of the column `model`, which names the generator of an image; these are made up."""


@dataclass(frozen=True, slots=True)
class Rated:
    """One image with the opinions on it."""

    id: str
    generator: str
    raters: tuple[float | None, ...]
    """Opinions on 1..5; None where this rater did not see the image."""

    @property
    def mos(self) -> float:
        """Mean of the opinions, on 1..5."""
        return float(np.mean([rating for rating in self.raters if rating is not None]))

    @property
    def level(self) -> int:
        """The mean rounded, halves up: 1 (bad) to 5 (excellent)."""
        return FIVE_LEVELS.levels[FIVE_LEVELS.nearest(self.mos)]


def dimension_of(index: int) -> str:
    """Which dimension the scene of this index is judged on."""
    return DIMENSIONS[index % len(DIMENSIONS)]


def image_path(index: int, id: str) -> str:
    """Path of an image relative to the data set's folder."""
    return f"images/{dimension_of(index)}/images/{id}.jpg"


def write_annotations(output: Path, seed: int, truths: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """Write annotations/ for images of these ids and truths; the index of an image is its place in the sequence."""
    folder = output / "annotations"
    folder.mkdir()
    rubrics = {version: load_rubric(f"interior-v{version}") for version in range(1, 5)}
    for k, dimension in enumerate(DIMENSIONS):
        rated = {
            index: _rated(id, truth[dimension], np.random.Generator(np.random.PCG64([seed, index, 2])))
            for index, (id, truth) in enumerate(truths)
            if index % len(DIMENSIONS) == k
        }
        for split, indices in _splits(list(rated)).items():
            stem = folder / f"{dimension}_{len(rated)}_{split}"
            rows = {index: rated[index] for index in indices}
            _write_csv(stem.with_suffix(".csv"), dimension, list(rows.values()))
            for version, rubric in rubrics.items():
                lines = _prompt_lines(rubric, k, rows)
                Path(f"{stem}_prompt{version}.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _splits(indices: list[int]) -> Mapping[str, list[int]]:
    train = [index for place, index in enumerate(indices) if place % TEST_EVERY]
    return {"train": train, "test": indices[::TEST_EVERY], "full": indices}


def _rated(id: str, truth: float, random: np.random.Generator) -> Rated:
    """Raters whose mean is the truth, to four digits: offsets that sum to zero, inside of 1..5."""
    mos = round(truth, 4)
    count = RATERS if random.random() < 0.8 else RATERS - 1
    offsets: NDArray[np.float64] = random.normal(size=count)
    offsets -= offsets.mean()
    room = min(MAX_DISAGREEMENT, mos - FIVE_LEVELS.worst, FIVE_LEVELS.best - mos) * random.random()
    offsets *= room / max(float(np.abs(offsets).max()), 1e-9)
    raters = [*(float(mos + offset) for offset in offsets), *[None] * (RATERS - count)]
    return Rated(id, GENERATORS[int(random.integers(len(GENERATORS)))], tuple(raters))


def _write_csv(path: Path, dimension: str, rows: Sequence[Rated]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        raters = [f"{dimension}_score_{number + 1}" for number in range(RATERS)]
        table.writerow(["id", *raters, f"{dimension}_score_mos", f"{dimension}_score_mos_int", "model"])
        for row in rows:
            ratings = ["" if rating is None else f"{rating:.6f}" for rating in row.raters]
            table.writerow([row.id, *ratings, f"{row.mos:.4f}", row.level, row.generator])


def _prompt_lines(rubric: Rubric, k: int, rows: Mapping[int, Rated]) -> Iterator[str]:
    for index, row in rows.items():
        yield prompt_line(rubric, rubric.dimensions[k], row.level, image_path(index, row.id))
