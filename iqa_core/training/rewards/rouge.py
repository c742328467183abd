"""What rollouts write and what people wrote -> the share of words that they have in common: ROUGE-1.

It sees words, not what they mean: "no blur" and "blur" differ by one. Words are runs of a to z and 0 to 9, in lower
case, as google's `rouge-score` has them without a stemmer; a text of other letters has none. Shape suffixes: N images,
K rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from iqa_core.agreement import rouge
from iqa_core.agreement.rouge import Overlap, overlap
from iqa_core.training.rewards.arrays import Floats

Measure = Literal["precision", "recall", "f1"]
"""The share of the prediction's words; of the reference's, which rewards length; and the harmonic mean of both."""


def rouge1(
    texts_NK: Sequence[Sequence[str | None]], references_N: Sequence[Sequence[str]], measure: Measure = "f1"
) -> Floats:
    """Overlap of each text with the reference that it is nearest to, (N, K), 0 to 1.

    Like is compared with like: captions with captions, without their tags. NaN for a text that is None (not parsed),
    and for all texts of an image without a reference. Raises ValueError when the numbers of images differ, and
    CallerError on a reference without words, as `require_words`.
    """
    require_words(references_N)
    compare = overlap()
    return np.array(
        [
            [_nearest(text, references, compare, measure) for text in texts]
            for texts, references in zip(texts_NK, references_N, strict=True)
        ],
        dtype=np.float64,
    )


def require_words(references_N: Sequence[Sequence[str]]) -> None:
    """Raises CallerError on a reference in which ROUGE-1 sees no word: every text would be worth 0 against it."""
    named = ((f"image {n}", reference) for n, references in enumerate(references_N) for reference in references)
    rouge.require_words(named, "train without the reward of words")


def _nearest(
    text: str | None, references: Sequence[str], compare: Callable[[str, str], Overlap], measure: Measure
) -> float:
    if text is None or not references:
        return np.nan
    return max(float(getattr(compare(text, reference), measure)) for reference in references)
