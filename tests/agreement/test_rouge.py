"""Two texts -> the share of words in common."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from iqa_core.agreement.rouge import overlap, require_words
from iqa_core.errors import CallerError

TEXT, REFERENCE = "The photo is sharp, but slightly over-exposed.", "Sharp photo; slightly overexposed sky."


@pytest.mark.parametrize(
    ("prediction", "reference", "wanted"),
    [
        (TEXT, REFERENCE, (0.375, 0.6, 0.461538)),
        ("blurry blurry blurry blurry", "The image is blurry and dark.", (0.25, 0.166667, 0.2)),
        ("Clear image, no blur and no noise.", "Blurry image with noise.", (0.285714, 0.5, 0.363636)),
        ("", "Good.", (0, 0, 0)),
        ("模糊", "模糊", (0, 0, 0)),
    ],
)
def test_words_in_common(prediction: str, reference: str, wanted: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(overlap()(prediction, reference), wanted, rtol=0, atol=6e-7)


@pytest.mark.parametrize("reference", ["", "…", "模糊的照片"])
def test_a_reference_without_words_is_refused_by_its_name(reference: str) -> None:
    require_words([("a", "good")], "do without")
    with pytest.raises(CallerError, match=r"of b has no word of Latin letters .* leave it out, or do without"):
        require_words([("a", "good"), ("b", reference)], "do without")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("rouge_score"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CallerError, match=r"pip install 'iqa-ray\[reasons\]'"):
        overlap()
