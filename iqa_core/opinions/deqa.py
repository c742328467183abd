"""Data-DeQA-Score JSON -> opinions: `gt_score_norm` and `std_norm` are already on 1..5 (arXiv 2501.11561).

A list of `{"id", "image", "gt_score", "gt_score_norm", "std", "std_norm"}`. `level_probs`, which only training files
have, is a target that follows from mean and deviation; it is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import ONE_TO_FIVE, Opinion
from iqa_core.opinions.options import FileOptions
from iqa_core.opinions.rows import NO_OPINION, read_rows


class DeqaOptions(FileOptions):
    """`deqa:test_koniq_2k.json?images=Data-DeQA-Score`."""

    dimension: str = "quality"


def read(path: Path, options: DeqaOptions) -> Iterator[Opinion | str]:
    """Opinions in the file's order. Raises CallerError when a row lacks `gt_score_norm`: no scale is guessed."""
    folder = options.images or path.absolute().parent
    for row in read_rows(path):
        if "gt_score_norm" not in row.values:
            raise CallerError(f"{row.place}: no gt_score_norm; files without it are read as q-align:, with their range")
        mos, std, image = row.number("gt_score_norm"), row.number("std_norm"), row.text("image")
        yield (
            NO_OPINION
            if mos is None
            else Opinion(
                image=image,
                path=folder / image,
                dimension=options.dimension,
                mos=ONE_TO_FIVE.mos(mos, f"{row.place}: gt_score_norm"),
                std=None if std is None else ONE_TO_FIVE.std(std, f"{row.place}: std_norm"),
                dataset=options.dataset or path.stem,
                group=row.name(options.group),
            )
        )
