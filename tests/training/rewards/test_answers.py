"""Answers -> numbers on 1 to 5, texts, and which were read."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.records import Finish
from iqa_core.training.rewards.answers import read
from iqa_core.written.judging import Sample
from tests.written.forms import PERCEPTION, PLAIN_JSON

GOOD = "<caption>a hall</caption><reasoning>it is sharp</reasoning><rating>3.5</rating>"


def test_texts_and_numbers_are_those_of_the_parser() -> None:
    found = read([[Sample(GOOD), Sample("3.5")], [Sample("<rating>3.5</rating>"), Sample(GOOD)]], PERCEPTION)
    np.testing.assert_array_equal(found.q_NKA[:, :, 0], [[3.5, np.nan], [np.nan, 3.5]])
    assert found.captions_NK == (("a hall", None), (None, "a hall"))
    assert found.reasonings_NK == (("it is sharp", None), (None, "it is sharp"))
    assert found.format_NK.tolist() == [[1, 0], [0, 1]]


def test_each_number_is_brought_to_its_place_between_worst_and_best() -> None:
    found = read([[Sample('{"noise": 100, "rating": 4.25}'), Sample('{"noise": 25, "rating": 1}')]], PLAIN_JSON)
    assert found.q_NKA.tolist() == [[[1, 4.25], [4, 1]]]
    assert found.captions_NK == ((None, None),)


def test_an_answer_that_was_cut_is_not_guessed() -> None:
    cut = Sample(GOOD.removesuffix("</rating>"), Finish.LENGTH)
    assert read([[cut]], PERCEPTION).format_NK.tolist() == [[0]]


@pytest.mark.parametrize("sizes", [[], [0], [1, 2]])
def test_images_have_equally_many_rollouts(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="the same number of them"):
        read([[Sample(GOOD)] * size for size in sizes], PERCEPTION)
