"""SA-BENCH's annotations -> opinions, with single raters where the CSV has them.

CSV `{dimension}_{size}_{train|test|full}.csv`: `id`, `{dimension}_score_*` of single raters, `{dimension}_score_mos`,
`{dimension}_score_mos_int`, `model`. JSONL: the level word of the answer, which is the rounded mean. The image of an id
is `images/{dimension}/images/{id}.jpg`; a path that begins with `SA-BENCH/` is relative to the parent of the data
folder, any other relative one to the data folder itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import ONE_TO_FIVE, Opinion, spread_of
from iqa_core.opinions.options import FileOptions
from iqa_core.opinions.rows import NO_OPINION, Row, read_rows
from iqa_core.rubrics.sa_bench import annotation_folder, prompt_lines

DATASET = "SA-BENCH"
FILE = re.compile(r"(?P<dimension>[a-z][a-z0-9]*)_\w+?_(?P<split>train|test|full)(?:_prompt\d+)?\.(?:csv|jsonl)")


class SaBenchOptions(FileOptions):
    """`sa-bench:<folder>?split=test`, or one CSV or JSONL file in place of the folder."""

    split: Literal["train", "test", "full"] | None = None
    dimension: str | None = None
    """One dimension alone; default: all that have a file."""


def read(place: Path, options: SaBenchOptions) -> Iterator[Opinion | str]:
    """Opinions of the chosen files in their order; for a row without a mean opinion, the reason.

    Raises CallerError when there is no such file, or a file is not what its name says.
    """
    for path, dimension in _files(place, options):
        folder = options.images or path.absolute().parent.parent
        dataset = options.dataset or DATASET
        if path.suffix == ".csv":
            yield from _from_csv(path, dimension, folder, dataset, options.group)
        elif options.group is not None:
            raise CallerError(f"{path} has no column {options.group}; the CSV beside it has columns")
        else:
            yield from _from_jsonl(path, dimension, folder, dataset)


def _files(place: Path, options: SaBenchOptions) -> list[tuple[Path, str]]:
    if place.is_file():
        name = FILE.fullmatch(place.name)
        if name is None or options.split is not None or options.dimension is not None:
            raise CallerError(
                f"sa-bench:{place}: the name of a file, <dimension>_<size>_<split>.csv or ..._prompt4.jsonl, says its "
                "dimension and split; options split and dimension go with a folder"
            )
        return [(place, name["dimension"])]
    if options.split is None:
        raise CallerError(f"sa-bench:{place}: say which split, as in sa-bench:{place}?split=test")
    folder = annotation_folder(str(place), f"*_{options.split}.csv")
    named = [(path, FILE.fullmatch(path.name)) for path in sorted(folder.glob("*.csv"))]
    found = [
        (path, name["dimension"])
        for path, name in named
        if name and name["split"] == options.split and options.dimension in (None, name["dimension"])
    ]
    if not found:
        wanted = options.dimension or "<dimension>"
        raise CallerError(f"{folder} has no annotations {wanted}_*_{options.split}.csv")
    return found


def _from_csv(path: Path, dimension: str, folder: Path, dataset: str, group: str | None) -> Iterator[Opinion | str]:
    column = f"{dimension}_score_mos"
    for row in read_rows(path):
        if column not in row.values:
            raise CallerError(f"{path} has no column {column}; it has {', '.join(row.values)}")
        mos = row.number(column)
        yield NO_OPINION if mos is None else _rated(row, dimension, mos, folder, dataset, group)


def _rated(row: Row, dimension: str, mos: float, folder: Path, dataset: str, group: str | None) -> Opinion:
    prefix = f"{dimension}_score_"
    names = [name for name in row.values if name.startswith(prefix) and not name.startswith(f"{prefix}mos")]
    ratings = [(name, row.number(name)) for name in names]
    raters = tuple(ONE_TO_FIVE.mos(r, f"{row.place}: {name}") for name, r in ratings if r is not None)
    image = f"images/{dimension}/images/{row.text('id')}.jpg"
    return Opinion(
        image=image,
        path=folder / image,
        dimension=dimension,
        mos=ONE_TO_FIVE.mos(mos, f"{row.place}: {prefix}mos"),
        std=spread_of(raters),
        num_raters=len(raters) or None,
        raters=raters,
        dataset=dataset,
        group=row.name(group, "model"),
    )


def _from_jsonl(path: Path, dimension: str, folder: Path, dataset: str) -> Iterator[Opinion]:
    for line in prompt_lines(path):
        yield Opinion(
            image=line.image,
            path=image_path(line.image, folder),
            dimension=dimension,
            mos=float(line.level),
            dataset=dataset,
        )


def image_path(image: str, folder: Path) -> Path:
    """Where an image of the JSONL lies; `folder` is the data set's."""
    begins_with_its_name = PurePosixPath(image).parts[:1] == (DATASET,)
    return (folder.parent if begins_with_its_name else folder) / image
