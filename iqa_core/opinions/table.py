"""Our own CSV, JSONL or Parquet -> opinions: one row per image and dimension, or one column per dimension.

Long: `image`, `dimension`, `mos`, and optionally `std`, `count` (number of raters), `raters`, `group`, `dataset`.
Wide: `image`, one column per name in `?dimensions=a,b`, and optionally `a_std`, `a_count`, `a_raters`, `group`,
`dataset`. Raters are single opinions: a list of numbers, in CSV with spaces between them.
Numbers are on 1..5 unless `?worst=0&best=100` says otherwise, or `?range=own`: on the range that the rubric gives their
dimension or statement. Texts for a rubric's slots stand in columns of any name. A relative path is relative to the
file's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import ONE_TO_FIVE, NumberRange, Opinion
from iqa_core.opinions.options import ScaleOptions
from iqa_core.opinions.rows import NO_OPINION, Row, read_rows, to_number
from iqa_core.opinions.terms import ANY, Terms


class TableOptions(ScaleOptions):
    """`opinions.csv?worst=0&best=100`."""

    dimensions: str | None = None
    """Names of the columns with opinions, separated by commas; without it the file is a long one."""
    range: Literal["own"] | None = None
    """Whose ends the numbers have: each dimension's own, as the rubric says."""

    @model_validator(mode="after")
    def _one_range(self) -> Self:
        if self.range is not None and self.scale is not None:
            raise ValueError("range=own says what worst and best would; give one of them")
        return self

    def numbers(self, dimension: str, terms: Terms, place: str) -> NumberRange:
        """The range of a dimension's numbers. Raises CallerError, with `place`, where the rubric cannot say it."""
        return terms.own_range(dimension, place) if self.range else self.scale or ONE_TO_FIVE


def read(path: Path, options: TableOptions, terms: Terms = ANY) -> Iterator[Opinion | str]:
    """Opinions in the file's order; for an empty cell or text the reason. Raises CallerError with the line at fault."""
    folder = options.images or path.absolute().parent
    for row in read_rows(path):
        image = row.text("image")
        for dimension, mos, std, count, raters in _columns(row, options.dimensions):
            value, texts = row.number(mos), terms.texts(row, dimension)
            if value is None:
                yield NO_OPINION
                continue
            if isinstance(texts, str):
                yield texts
                continue
            scale = options.numbers(dimension, terms, row.place)
            yield Opinion(
                image=image,
                path=folder / image,
                dimension=dimension,
                mos=scale.mos(value, f"{row.place}: {mos}"),
                std=_std(row, std, scale),
                num_raters=_count(row, count),
                raters=_raters(row, raters, scale),
                dataset=options.dataset or row.name(None, "dataset") or path.stem,
                group=row.name(options.group, "group"),
                texts=texts,
                is_cut=terms.is_cut(row, dimension),
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
