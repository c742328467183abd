"""Our own CSV, JSONL or Parquet -> opinions: one row per image and dimension, or one column per dimension.

Long: `image`, `dimension`, `mos`, and optionally `std`, `count` (number of raters), `raters`, `group`, `dataset`.
Wide: `image`, one column per name in `?dimensions=a,b`, and optionally `a_std`, `a_count`, `a_raters`, `group`,
`dataset`. Raters are single opinions: a list of numbers, in CSV with spaces between them.
Numbers are on 1..5 unless `?worst=0&best=100` says otherwise; a relative path is relative to the file's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import ONE_TO_FIVE, NumberRange, Opinion
from iqa_core.opinions.options import ScaleOptions
from iqa_core.opinions.rows import NO_OPINION, Row, read_rows, to_number


class TableOptions(ScaleOptions):
    """`opinions.csv?worst=0&best=100`."""

    dimensions: str | None = None
    """Names of the columns with opinions, separated by commas; without it the file is a long one."""


def read(path: Path, options: TableOptions) -> Iterator[Opinion | str]:
    """Opinions in the file's order; for an empty cell, the reason. Raises CallerError with the line at fault."""
    folder = options.images or path.absolute().parent
    scale = options.scale or ONE_TO_FIVE
    for row in read_rows(path):
        image = row.text("image")
        for dimension, mos, std, count, raters in _columns(row, options.dimensions):
            value = row.number(mos)
            yield (
                NO_OPINION
                if value is None
                else Opinion(
                    image=image,
                    path=folder / image,
                    dimension=dimension,
                    mos=scale.mos(value, f"{row.place}: {mos}"),
                    std=_std(row, std, scale),
                    num_raters=_count(row, count),
                    raters=_raters(row, raters, scale),
                    dataset=options.dataset or row.name(None, "dataset") or path.stem,
                    group=row.name(options.group, "group"),
                )
            )


def _columns(row: Row, dimensions: str | None) -> Iterator[tuple[str, str, str, str, str]]:
    """Dimension, and the names of the columns with its mean, deviation, number of raters and single opinions."""
    if dimensions is None:
        if not {"dimension", "mos"} <= row.values.keys():
            raise CallerError(
                f"{row.place}: its columns are {', '.join(row.values)}; a row has image, dimension and mos, "
                "or ?dimensions=a,b names the columns that are opinions"
            )
        yield row.text("dimension"), "mos", "std", "count", "raters"
        return
    for name in dimensions.split(","):
        if name not in row.values:
            raise CallerError(f"{row.place}: no column {name}; there are {', '.join(row.values)}")
        yield name, name, f"{name}_std", f"{name}_count", f"{name}_raters"


def _std(row: Row, name: str, scale: NumberRange) -> float | None:
    value = row.number(name)
    return None if value is None else scale.std(value, f"{row.place}: {name}")


def _count(row: Row, name: str) -> int | None:
    value = row.number(name)
    if value is not None and (value < 1 or value != int(value)):
        raise CallerError(f"{row.place}: {name} is {value:g}; a number of raters is 1 or more")
    return None if value is None else int(value)


def _raters(row: Row, name: str, scale: NumberRange) -> tuple[float, ...]:
    value = row.values.get(name) or ()
    place = f"{row.place}: {name}"
    if not isinstance(value, str | list | tuple):
        raise CallerError(f"{place} is {value!r}; a list of numbers is wanted")
    numbers = [to_number(rating, place) for rating in (value.split() if isinstance(value, str) else value)]
    return tuple(scale.mos(number, place) for number in numbers if number is not None)
