"""A text and another -> the share of words that they have in common: ROUGE-1.

It sees words, not what they mean: "no blur" and "blur" differ by one. Words are runs of a to z and 0 to 9, in lower
case, as google's `rouge-score` has them without a stemmer; a text of other letters has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from iqa_core.errors import CallerError

SHOWN = 80
"""Characters of a text in a message."""


class Overlap(NamedTuple):
    """ROUGE-1 of one text against one reference, each 0 to 1; all 0 where either has no word."""

    precision: float
    recall: float
    f1: float


def overlap() -> Callable[[str, str], Overlap]:
    """What compares a prediction with a reference. Raises CallerError where `rouge-score` is not installed."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise CallerError("comparing words needs rouge-score: pip install 'iqa-ray[reasons]'") from error
    scorer = RougeScorer(["rouge1"])
    return lambda prediction, reference: Overlap(*scorer.score(reference, prediction)["rouge1"])


def require_words(references: Iterable[tuple[str, str]], instead: str) -> None:
    """Raises CallerError on a reference in which ROUGE-1 sees no word: every text would be worth 0 against it.

    references: each with what it is about, for the message. instead: another way out than leaving it out.
    """
    compare = overlap()
    for what, reference in references:
        if not compare(reference, reference).f1:
            raise CallerError(
                f"the reference {reference[:SHOWN]!r} of {what} has no word of Latin letters or digits, and every text "
                f"would be worth 0 against it; leave it out, or {instead}"
            )
