"""SPAQ's table as CSV -> opinions on quality and on five attributes per image, 0 to 100 each.

Its columns are `Image name`, `MOS`, `Brightness`, `Colorfulness`, `Contrast`, `Noisiness`, `Sharpness`, in any case.
The attributes are taken as they are: more of one need not be better.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import NumberRange, Opinion
from iqa_core.opinions.options import FileOptions
from iqa_core.opinions.rows import NO_OPINION, Row, read_rows

COLUMNS = {
    "mos": "quality",
    "brightness": "brightness",
    "colorfulness": "colorfulness",
    "contrast": "contrast",
    "noisiness": "noisiness",
    "sharpness": "sharpness",
}
"""Column, in lower case -> dimension."""

IMAGE = "image name"
SCALE = NumberRange(0, 100)


class SpaqOptions(FileOptions):
    """`spaq:annotations.csv?images=TestImage`."""


def read(path: Path, options: SpaqOptions) -> Iterator[Opinion | str]:
    """Opinions in the file's order, up to six per image. Raises CallerError when no column is one of SPAQ's."""
    folder = options.images or path.absolute().parent
    for found in read_rows(path):
        names = [name.strip().lower() for name in found.values]
        if doubled := [name for name in (IMAGE, *COLUMNS) if names.count(name) > 1]:
            raise CallerError(f"{path}: it has {', '.join(doubled)} more than once, in other cases; rename all but one")
        row = Row(found.place, dict(zip(names, found.values.values(), strict=True)))
        columns = [name for name in COLUMNS if name in row.values]
        if IMAGE not in row.values or not columns:
            raise CallerError(f"{path}: its columns are {', '.join(found.values)}; SPAQ's are Image name, MOS, …")
        image = row.text(IMAGE)
        for name in columns:
            value = row.number(name)
            yield (
                NO_OPINION
                if value is None
                else Opinion(
                    image=image,
                    path=folder / image,
                    dimension=COLUMNS[name],
                    mos=SCALE.mos(value, f"{row.place}: {name}"),
                    dataset=options.dataset or "SPAQ",
                    group=found.name(options.group),
                )
            )
