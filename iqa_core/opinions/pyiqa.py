"""pyiqa's meta_info CSV -> opinions; columns count by position, and range and direction stand in SETS.

No reference: name, mean opinion. Full reference: reference, name, mean opinion. The header's name of the third or
fourth column says whether it is a deviation (`std`) or a variance (`var`); all others are splits. The name of the
opinion's column says nothing: KADID's is `dmos`, but higher is better. Split files are pickles and are not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion, Scale
from iqa_core.opinions.options import ScaleOptions
from iqa_core.opinions.rows import NO_OPINION, csv_cells, to_number


@dataclass(frozen=True, slots=True)
class _Set:
    scale: Scale
    kind: Literal["nr", "fr"]


SETS = {
    "ava": _Set(Scale(1, 10), "nr"),
    "csiq": _Set(Scale(1, 0), "fr"),
    "flive": _Set(Scale(0, 100), "nr"),
    "kadid10k": _Set(Scale(1, 5), "fr"),
    "koniq10k": _Set(Scale(0, 100), "nr"),
    "live": _Set(Scale(100, 0), "fr"),
    "livec": _Set(Scale(0, 100), "nr"),
    "spaq": _Set(Scale(0, 100), "nr"),
    "tid2008": _Set(Scale(0, 9), "fr"),
    "tid2013": _Set(Scale(0, 9), "fr"),
}
"""Data sets whose range is known; of LIVE and CSIQ lower numbers are better."""


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
    header = next(lines, (str(path), []))[1]
    if options.group is not None and options.group not in header:
        raise CallerError(f"{path}: no column {options.group}; there are {', '.join(header)}")
    spread = header[first + 2].strip().lower() if len(header) > first + 2 else ""
    for place, cells in lines:
        if len(cells) < first + 2:
            raise CallerError(f"{place}: {len(cells)} fields; a {known.kind} file has {first + 2} or more")
        mos = to_number(cells[first + 1], f"{place}: the opinion")
        # of one reference there are many distorted images, which must not be split
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
                std=_std(spread, to_number(cells[first + 2], place), known.scale) if spread in _SPREADS else None,
                dataset=options.dataset or options.set or path.stem,
                group=group,
            )
        )


_SPREADS = frozenset({"std", "var"})


def _std(spread: str, value: float | None, scale: Scale) -> float | None:
    if value is None:
        return None
    return scale.std(math.sqrt(value) if spread == "var" else value)


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
    return _Set(options.scale, options.kind)
