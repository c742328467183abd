"""Q-Align's JSON -> opinions; what range its scores have must be said.

A list of `{"id": "x.jpg->68.7", "image": …, "gt_score": 68.7}` or `{"img_path": …, "gt_score": "0.96"}`. A score may be
a text, and may stand only behind the arrow in `id`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.opinions.options import ScaleOptions
from iqa_core.opinions.rows import NO_OPINION, Row, read_rows, to_number

ARROW = "->"


class QAlignOptions(ScaleOptions):
    """`q-align:test_kadid.json?worst=1&best=5`."""

    dimension: str = "quality"


def read(path: Path, options: QAlignOptions) -> Iterator[Opinion | str]:
    """Opinions in the file's order. Raises CallerError when the range is not given, or a row has no score at all."""
    if options.scale is None:
        raise CallerError(f"q-align:{path} does not say what range its scores have; add ?worst=0&best=100 or the like")
    folder = options.images or path.absolute().parent
    for row in read_rows(path):
        image = row.text("image" if "image" in row.values else "img_path")
        score = _score(row)
        yield (
            NO_OPINION
            if score is None
            else Opinion(
                image=image,
                path=folder / image,
                dimension=options.dimension,
                mos=options.scale.mos(score, f"{row.place}: the score"),
                dataset=options.dataset or path.stem,
                group=row.name(options.group),
            )
        )


def _score(row: Row) -> float | None:
    """`gt_score`, else what stands behind the arrow. Raises CallerError when there is neither."""
    if "gt_score" in row.values:
        return row.number("gt_score")
    _, arrow, behind = str(row.values.get("id", "")).rpartition(ARROW)
    if not arrow:
        raise CallerError(f"{row.place}: neither gt_score nor a score behind {ARROW} in id {row.values.get('id')!r}")
    return to_number(behind, f"{row.place}: the score in id")
