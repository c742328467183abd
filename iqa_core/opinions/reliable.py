"""Opinions -> those of enough raters who agree well enough, and how many were left out for which reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion

FEW_RATERS, WIDE = "fewer raters than asked for", "a standard deviation above the bound"


def reliable(
    opinions: Sequence[Opinion], min_raters: int | None, max_std: float | None
) -> tuple[list[Opinion], Counter[str]]:
    """Opinions of enough raters who agree well enough, and reason -> how many were left out.

    An opinion whose number of raters or deviation is not known is kept. Raises CallerError when nothing is left.
    """
    dropped: Counter[str] = Counter()
    kept = []
    for opinion in opinions:
        if min_raters is not None and opinion.num_raters is not None and opinion.num_raters < min_raters:
            dropped[FEW_RATERS] += 1
        elif max_std is not None and opinion.std is not None and opinion.std > max_std:
            dropped[WIDE] += 1
        else:
            kept.append(opinion)
    if opinions and not kept:
        raise CallerError(f"no opinion is left of {len(opinions)} ({dict(dropped)}); loosen --min-raters or --max-std")
    return kept, dropped
