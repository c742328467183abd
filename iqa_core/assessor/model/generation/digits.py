"""Log-probabilities at the places of digits -> a number as a distribution, instead of the one that was written.

A number is read as level words are: the digit before the point over all that the range allows, each digit behind it
over 0 to 9, given the digits that were written before it. So one answer has a spread, and is not rounded.

Shape suffixes: T tokens of an answer, W watched tokens, D digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from iqa_core.assessor.model.generation.decoding import Answer
from iqa_core.errors import CallerError
from iqa_core.written.form import Attribute, Form
from iqa_core.written.judging import Reading
from iqa_core.written.parsing import Span

DIGITS = "0123456789"


class DigitReader:
    """Reads the numbers of answers by the tokens of a vocabulary in which each digit is a token of its own."""

    def __init__(self, texts_V: Sequence[str], form: Form) -> None:
        """texts_V: what each token is decoded to, "" for those that never stand in a number, such as markup.

        Raises CallerError where a token joins a digit with anything but one space before it, or where a range does not
        end in single digits.
        """
        self._attributes = form.attributes
        for attribute in form.attributes:
            _require_single_digits(attribute)
        self._digit_of: dict[int, tuple[str, int]] = {}
        for token, text in enumerate(texts_V):
            if not any(letter in DIGITS for letter in text):
                continue
            if text.strip(" ") not in DIGITS or len(text) > 2:
                raise CallerError(
                    f'readout = "expected" needs a tokenizer with a token per digit; this one has {text!r} as one: '
                    'set readout = "parsed"'
                )
            self._digit_of[token] = (text[:-1], int(text[-1]))
        self.watched = tuple(self._digit_of)
        """Ids of tokens whose log-probabilities an answer must come with, in the order of its columns."""
        self._columns = {
            before: [self._column(before, digit) for digit in range(10)]
            for before in {before for before, _ in self._digit_of.values()}
        }

    def readings(self, answer: Answer, spans: Sequence[Span]) -> tuple[Reading, ...]:
        """The distribution of each number. spans: where they stand in the answer's text, one per attribute."""
        places = [t for t, token in enumerate(answer.ids) if token in self._digit_of]
        found = []
        for attribute, (begin, end) in zip(self._attributes, spans, strict=True):
            first = sum(letter in DIGITS for letter in answer.text[:begin])
            count = sum(letter in DIGITS for letter in answer.text[begin:end])
            rows = [self._distribution(answer, place) for place in places[first : first + count]]
            found.append(reading(rows, attribute))
        return tuple(found)

    def _distribution(self, answer: Answer, place: int) -> NDArray[np.float64]:
        """Log-probabilities (D,) of all digits where one was written, -inf for a digit without a token."""
        before, _ = self._digit_of[answer.ids[place]]
        row = np.append(answer.watched_TW[place].astype(np.float64), -np.inf)
        return row[self._columns[before]]

    def _column(self, before: str, digit: int) -> int:
        """Column of a digit's token with this text before it; -1 where there is none."""
        ids = list(self._digit_of)
        return next((ids.index(token) for token, found in self._digit_of.items() if found == (before, digit)), -1)


def reading(rows: Sequence[NDArray[np.float64]], attribute: Attribute) -> Reading:
    """Mean and spread of a number, in its own range. rows: log-probabilities (D,) at the place of each of its digits.

    What was written behind the point counts for every digit before it, but for the upper end, which has zeros there.
    """
    ends = attribute.range
    digits = np.arange(int(ends.low), int(ends.high) + 1)
    weights = _weights(rows[0][digits])
    fraction, variance = 0.0, 0.0
    for place, row in enumerate(rows[1:], start=1):
        decimals = _weights(row)
        mean = float(decimals @ np.arange(10))
        fraction += mean * 10.0**-place
        variance += float(decimals @ (np.arange(10) - mean) ** 2) * 100.0**-place
    values = np.where(digits == ends.high, ends.high, digits + fraction)
    mean = float(weights @ values)
    spread = float(weights @ (values - mean) ** 2) + variance * float(weights[digits != ends.high].sum())
    return Reading(mean, spread**0.5)


def texts_of_vocabulary(decode: Callable[[Sequence[int]], str], size: int, special: Sequence[int]) -> Iterator[str]:
    """What each token is decoded to; "" for special tokens."""
    markup = set(special)
    return ("" if token in markup else decode([token]) for token in range(size))


def _weights(log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities that sum to 1, of log-probabilities of some."""
    weights: NDArray[np.float64] = np.exp(log_probs - log_probs.max())
    return weights / weights.sum()


def _require_single_digits(attribute: Attribute) -> None:
    ends = (attribute.range.low, attribute.range.high)
    if any(end != int(end) or not 0 <= end <= 9 for end in ends):
        raise CallerError(
            f'readout = "expected" needs a range that ends in whole numbers from 0 to 9; {attribute.name} has '
            f'{ends[0]:g} to {ends[1]:g}: set readout = "parsed"'
        )
