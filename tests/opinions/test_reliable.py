"""Opinions -> reliable ones, the rest counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.opinions.reliable import FEW_RATERS, WIDE, reliable


def opinion(std: float | None, num_raters: int | None) -> Opinion:
    return Opinion("x.png", Path("x.png"), "layout", 3, "a", std=std, num_raters=num_raters)


def test_unreliable_opinions_are_counted_by_reason() -> None:
    rows = [opinion(0.3, 5), opinion(1.4, 5), opinion(0.3, 1), opinion(None, None)]
    kept, dropped = reliable(rows, min_raters=2, max_std=1.0)
    assert kept == [rows[0], rows[3]], "what is not known is kept"
    assert dropped == {FEW_RATERS: 1, WIDE: 1}
    with pytest.raises(CallerError, match="no opinion is left of 4"):
        reliable([rows[1]] * 4, None, 1.0)
