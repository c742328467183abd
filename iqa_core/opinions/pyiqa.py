"""pyiqa's meta_info CSV -> opinions; columns count by position, and what their numbers mean stands in SETS.

No reference: name, mean opinion. Full reference: reference, name, mean opinion. The column behind it is a deviation
where the header calls it `std`, or its square where it says `var`; all others are splits and counts. A header must say
so: another file of the same data set, KonIQ's own or KADID's, has other columns in these places. Whether higher is
better it does not tell: KADID's opinion is called `dmos`, LIVE's `mos`, and both mean the opposite. Split files are
pickles and are not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import NumberRange, Opinion
from iqa_core.opinions.options import ScaleOptions
from iqa_core.opinions.rows import NO_OPINION, csv_cells, to_number


@dataclass(frozen=True, slots=True)
class _Set:
    scale: NumberRange
    kind: Literal["nr", "fr"]
    spread: NumberRange | None
    """Scale of the deviations, which need not be that of the means; None where they are not those of single ratings."""


SETS = {
    "ava": _Set(NumberRange(1, 10), "nr", NumberRange(1, 10)),
    "csiq": _Set(NumberRange(1, 0), "fr", NumberRange(1, 0)),
    "flive": _Set(NumberRange(0, 100), "nr", NumberRange(0, 100)),
    "kadid10k": _Set(NumberRange(1, 5), "fr", NumberRange(1, 5)),
    "koniq10k": _Set(NumberRange(0, 100), "nr", NumberRange(1, 5)),
    "live": _Set(NumberRange(100, 0), "fr", NumberRange(100, 0)),
    "livec": _Set(NumberRange(0, 100), "nr", NumberRange(0, 100)),
    "spaq": _Set(NumberRange(0, 100), "nr", NumberRange(0, 100)),
    "tid2008": _Set(NumberRange(0, 9), "fr", None),
    "tid2013": _Set(NumberRange(0, 9), "fr", None),
}
"""Data sets as pyiqa publishes them; of LIVE and CSIQ lower numbers are better. KonIQ's means are z-scores on 0..100,
its deviations those of votes on 1..5. TID's `std` (about .13) is that of the mean and says little of single raters."""

OPINIONS = ("mos", "dmos")
"""What the opinion's column is called in the published files, in any case."""

OPINION_WORDS = (*OPINIONS, "score", "rating", "opinion", "quality", "aesthetic")
"""One of these is in its name where the set is none of SETS."""

SCALE_DOUBTED_FROM, SCALE_USED = 20, 0.06
"""So many opinions that all lie in so small a share of the range, at its low end, are on another scale: MOS from 1 to 5
under a set of 0 to 100."""


class PyiqaOptions(ScaleOptions):
    """`pyiqa:meta_info_KonIQ10kDataset.csv?set=koniq10k`, or `?kind=nr&worst=0&best=100` for a set not in SETS."""

    set: str | None = None
    kind: Literal["nr", "fr"] | None = None
    dimension: str = "quality"


def read(path: Path, options: PyiqaOptions) -> Iterator[Opinion | str]:
    """Opinions in the file's order. Raises CallerError when kind or range are not known, or a line is too short."""
    known = _known(path, options)
    folder = options.images or path.absolute().parent
    first = 0 if known.kind == "nr" else 1
    lines = csv_cells(path)
    top = next(lines, (str(path), []))
    header = [] if _is_number(top[1][first + 1 : first + 2]) else top[1]
    if not header:
        lines = chain([top], lines)
    _check_header(path, header, known, options)
    spread = header[first + 2].strip().lower() if len(header) > first + 2 else ""
    numbers: list[float] = []
    for place, cells in lines:
        if len(cells) < first + 2:
            raise CallerError(f"{place}: {len(cells)} fields; a {known.kind} file has {first + 2} or more")
        mos = to_number(cells[first + 1], f"{place}: the opinion")
        numbers += [] if mos is None else [mos]
        # one reference has many distorted images, which must not be split
        group = cells[0] if known.kind == "fr" else None
        if options.group is not None:
            group = dict(zip(header, cells, strict=False)).get(options.group) or None
        yield (
            NO_OPINION
            if mos is None
            else Opinion(
                image=cells[first],
                path=folder / cells[first],
                dimension=options.dimension,
                mos=known.scale.mos(mos, f"{place}: the opinion"),
                std=_std(spread, cells[first + 2 :], place, known.spread),
                dataset=options.dataset or options.set or path.stem,
                group=group,
            )
        )

    _check_scale(path, numbers, known.scale)


def _is_number(cells: Sequence[str]) -> bool:
    """Whether the first cell is a number, so that the file has no header."""
    try:
        return bool(cells) and math.isfinite(float(cells[0]))
    except ValueError:
        return False


def _check_header(path: Path, header: Sequence[str], known: _Set, options: PyiqaOptions) -> None:
    """Raises CallerError unless image and opinion stand where they are read."""
    names = [name.strip().lower() for name in header]
    if options.group is not None and options.group not in header:
        raise CallerError(
            f"{path}: no column {options.group}; there are {', '.join(header) or 'none, not even a header'}"
        )
    first = 0 if known.kind == "nr" else 1
    if len(names) < first + 2:
        return  # the first line of data will be refused, with its place
    image, opinion = names[first : first + 2]
    is_opinion = opinion in OPINIONS if options.set else any(word in opinion for word in OPINION_WORDS)
    if not is_opinion or image.startswith("ref") or (first and names[0].startswith("dist")):
        wanted = "name, mos" if known.kind == "nr" else "reference, name, mos"
        raise CallerError(
            f"{path}: its columns are {', '.join(header)}, and a {known.kind} file of pyiqa begins with {wanted}; is "
            "it another file of this data set? Name its columns image, dimension and mos, and give it without pyiqa:"
        )


def _check_scale(path: Path, numbers: Sequence[float], scale: NumberRange) -> None:
    """Raises CallerError where all opinions lie in a corner of the range: they are on another scale."""
    if len(numbers) >= SCALE_DOUBTED_FROM and max(numbers) - scale.low <= SCALE_USED * scale.width:
        raise CallerError(
            f"{path}: all {len(numbers):,} opinions lie between {min(numbers):g} and {max(numbers):g}, where the range "
            f"is {scale.worst:g} (worst) to {scale.best:g} (best); give the range that they have, as in "
            "?kind=nr&worst=1&best=5"
        )


def _std(spread: str, cells: Sequence[str], place: str, scale: NumberRange | None) -> float | None:
    """cells: those behind the opinion."""
    if spread not in ("std", "var") or scale is None or not cells:
        return None
    value = to_number(cells[0], f"{place}: {spread}")
    if value is None:
        return None
    if value < 0:
        raise CallerError(f"{place}: {spread} is {value:g}; 0 or more is wanted")
    return scale.std(math.sqrt(value) if spread == "var" else value, f"{place}: {spread}")


def _known(path: Path, options: PyiqaOptions) -> _Set:
    if options.set is not None:
        if options.set not in SETS or options.scale is not None or options.kind is not None:
            raise CallerError(
                f"pyiqa:{path}: ?set= is one of {', '.join(SETS)} and goes without kind, worst and best; for other "
                "sets give these three, as in ?kind=nr&worst=0&best=100"
            )
        return SETS[options.set]
    if options.scale is None or options.kind is None:
        raise CallerError(
            f"pyiqa:{path} does not say what its numbers mean; add ?set=<one of {', '.join(SETS)}>, "
            "or ?kind=nr&worst=0&best=100 (fr: the first column is the reference)"
        )
    return _Set(options.scale, options.kind, options.scale)
