"""Log-probabilities at the places of digits -> a number as a distribution, instead of the one that was written.

A number is read as level words are: the digit before the point over all that the range allows, each digit behind it
over 0 to 9, given the digits that were written before it. So one answer has a spread, and is not rounded.

Shape suffixes: T tokens of an answer, W watched tokens, D digits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

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

    def __init__(self, texts_V: Sequence[str], form: Form, markup: Collection[int] = ()) -> None:
        """texts_V: what each token is decoded to; markup: ids of tokens that never stand in a number.

        Raises CallerError where a token joins a digit with anything but one space before it, where only some digits
        have a token, alone or with that space, or where a range does not end in single digits.
        """
        self._attributes = form.attributes
        for attribute in form.attributes:
            _require_single_digits(attribute)
        found = {token: text for token, text in enumerate(texts_V) if any(letter in DIGITS for letter in text)}
        self._num_digits = {token: sum(letter in DIGITS for letter in text) for token, text in found.items()}
        of_numbers = {token: text for token, text in found.items() if token not in markup}
        for text in of_numbers.values():
            if text[:-1] not in ("", " ") or text[-1] not in DIGITS:
                raise CallerError(
                    f'readout = "expected" needs a tokenizer with a token per digit; this one has {text!r} as one: '
                    'set readout = "parsed"'
                )
        self._before = {token: text[:-1] for token, text in of_numbers.items()}
        self.watched = tuple(of_numbers)
        """Ids of tokens whose log-probabilities an answer must come with, in the order of its columns."""
        self._columns = {
            before: [_columns([*of_numbers.values()], f"{before}{digit}") for digit in DIGITS]
            for before in {"", *self._before.values()}
        }
        _require_all_digits(self._columns)

    def readings(self, answer: Answer, spans: Sequence[Span]) -> tuple[Reading, ...]:
        """The distribution of each number. spans: where they stand in the answer's text, one per attribute."""
        places = [t for t, token in enumerate(answer.ids) for _ in range(self._num_digits.get(token, 0))]
        found = []
        for attribute, (begin, end) in zip(self._attributes, spans, strict=True):
            first = sum(letter in DIGITS for letter in answer.text[:begin])
            count = sum(letter in DIGITS for letter in answer.text[begin:end])
            rows = [self._distribution(answer, place) for place in places[first : first + count]]
            found.append(reading(rows, attribute))
        return tuple(found)

    def _distribution(self, answer: Answer, place: int) -> NDArray[np.float64]:
        """Log-probabilities (D,) of all digits where one was written."""
        row_W = answer.watched_TW[place].astype(np.float64)
        return np.array(
            [np.logaddexp.reduce(row_W[columns]) for columns in self._columns[self._before[answer.ids[place]]]]
        )


def _columns(texts: Sequence[str], wanted: str) -> list[int]:
    """Places of a text; two tokens may have it, such as a digit and the byte that it is made of."""
    return [column for column, text in enumerate(texts) if text == wanted]


def _require_all_digits(columns: Mapping[str, Sequence[Sequence[int]]]) -> None:
    """What a digit without a token is worth is not known, and the others would share it."""
    for before, of_digits in columns.items():
        if missing := [f"{before}{digit}" for digit, found in zip(DIGITS, of_digits, strict=True) if not found]:
            raise CallerError(
                f'readout = "expected" needs a tokenizer with a token per digit; this one has none for {missing[0]!r}: '
                'set readout = "parsed"'
            )


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
