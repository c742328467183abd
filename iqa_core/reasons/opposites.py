"""Texts about one image, and pairs of lists of opposite words -> attributes on which one says what the other denies.

ROUGE-1 is high between "no blur" and "blur"; this is not. A word counts for its side, and for the other side where one
of the two words before it is a negation. A text that says both sides of an attribute, or neither, takes none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iqa_core.agreement.figures import Figure, bootstrapped
from iqa_core.rubrics.written.rubric import Opposites

NEGATIONS = frozenset("no not never without barely hardly neither nor".split())
"""Of English, beside words that end in n't."""
REACH = 2
"""Words before a word in which a negation turns it: "not very sharp"."""

_WORD = re.compile(r"[^\W_]+(?:['’]t\b)?")


@dataclass(frozen=True, slots=True)
class Contradictions:
    """One attribute, over pairs of texts about the same image."""

    pairs: int
    """Pairs in which both texts take a side."""
    contradicted: int
    share: Figure
    """Of the former, with a 95 % interval over resampled images; not defined where there is no pair."""


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case; "isn't" is one."""
    return _WORD.findall(text.lower())


def side(text: str, opposites: Opposites) -> int:
    """1 where a text says the first side of an attribute alone, -1 the second, 0 both or neither."""
    found, said_words = set(), words(text)
    for place, word in enumerate(said_words):
        said = (word in opposites.one) - (word in opposites.other)
        if said:
            found.add(-said if any(map(_negates, said_words[max(0, place - REACH) : place])) else said)
    return found.pop() if len(found) == 1 else 0


def _negates(word: str) -> bool:
    return word in NEGATIONS or word.endswith(("n't", "n’t"))


def contradictions(
    texts_N: Sequence[Sequence[str]],
    references_N: Sequence[Sequence[str]],
    opposites: Sequence[Opposites],
    resamples: int,
    seed: int,
) -> dict[str, Contradictions]:
    """Attribute, and `all` where there are several -> its figures, over pairs of a text and a reference of one image.

    Raises ValueError when the two are not of one length.
    """
    names = [one.name for one in opposites]
    counts_N = [
        _counted([(text, other) for text in texts for other in references], opposites)
        for texts, references in zip(texts_N, references_N, strict=True)
    ]
    return _figures(names, counts_N, resamples, seed)


def contradictions_of_people(
    references_N: Sequence[Sequence[str]], opposites: Sequence[Opposites], resamples: int, seed: int
) -> dict[str, Contradictions]:
    """The same of people among themselves: each two raters of an image once."""
    counts_N = [
        _counted([(text, other) for n, text in enumerate(people) for other in people[:n]], opposites)
        for people in references_N
    ]
    return _figures([one.name for one in opposites], counts_N, resamples, seed)


def _counted(pairs: Sequence[tuple[str, str]], opposites: Sequence[Opposites]) -> NDArray[np.int64]:
    """Pairs that take a side, and contradictions, of each attribute: (attributes, 2)."""
    products = np.array([[side(a, one) * side(b, one) for one in opposites] for a, b in pairs], np.int64)
    products = products.reshape(len(pairs), len(opposites))
    return np.stack([(products != 0).sum(axis=0), (products < 0).sum(axis=0)], axis=1)


def _figures(
    names: Sequence[str], counts_N: Sequence[NDArray[np.int64]], resamples: int, seed: int
) -> dict[str, Contradictions]:
    counts = np.asarray(counts_N, np.int64).reshape(len(counts_N), len(names), 2)
    by_name: Mapping[str, NDArray[np.int64]] = {name: counts[:, k] for k, name in enumerate(names)}
    if len(names) > 1:
        by_name = {**by_name, "all": counts.sum(axis=1)}
    return {name: _figure(found, resamples, seed) for name, found in by_name.items()}


def _figure(counts_N2: NDArray[np.int64], resamples: int, seed: int) -> Contradictions:
    used = counts_N2[counts_N2[:, 0] > 0]

    def share(picks: NDArray[np.intp]) -> list[float]:
        pairs, contradicted = used[picks].sum(axis=0)
        return [contradicted / pairs if pairs else np.nan]

    [figure] = bootstrapped(share, share(np.arange(len(used))), len(used), resamples, seed)
    return Contradictions(int(used[:, 0].sum()), int(used[:, 1].sum()), figure)
