"""Answers and opinions -> images that are written about, by a model that goes on as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iqa_core.assessor.model.loading import load_model
from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.rubrics import WrittenRubric
from iqa_core.rubrics.load import parse_rubric
from iqa_core.training.objective import losses
from iqa_core.training.samples import TrainingSample
from iqa_core.training.written_validation import (
    MAX_CHARACTERS,
    MOST_IMAGES,
    UNPARSED,
    Answered,
    Example,
    Rated,
    asked_about,
    examples_of,
    greedy,
    parsable,
    rated_by_answers,
    rated_by_opinions,
    written_answers,
)
from tests.training.writing import QUESTION, RUBRIC, answer, make_writing_encoder

pytestmark = pytest.mark.slow


def rubric_of(text: str = RUBRIC.replace("{head}", "")) -> WrittenRubric:
    rubric = parse_rubric(text.encode(), "rated.toml")
    assert isinstance(rubric, WrittenRubric)
    return rubric


RATED = rubric_of()


def text(image: str, said: str, query: str = QUESTION) -> TrainingSample:
    return TrainingSample(Path(image), query, said, "d")


def test_answers_in_another_form_are_left_out_and_counted() -> None:
    samples = [text("a", answer(3)), text("a", "It is fine."), text("b", "It is fine.", "What is it?")]
    kept, dropped = parsable(samples, RATED)
    assert kept == [samples[0], samples[2]]
    assert dropped == {UNPARSED: 1}


def test_what_is_true_is_what_the_answers_to_the_question_say() -> None:
    samples = [text("x", answer(2), "Another?"), text("a", answer(3)), text("b", answer(9)), text("a", answer(1))]
    rated = rated_by_answers(samples, RATED)
    assert [(each.sample.image.name, dict(each.ratings)) for each in rated] == [
        ("a", {"quality": 4.0}),
        ("b", {"quality": 1.0}),
    ]
    many = [text(str(n), answer(3)) for n in range(MOST_IMAGES + 5)]
    assert len(rated_by_answers(many, RATED)) == MOST_IMAGES


def test_or_what_people_say() -> None:
    def opinion(image: str, name: str, mos: float) -> Opinion:
        return Opinion(image=image, path=Path(image), dimension=name, mos=mos, dataset="people")

    opinions = [opinion("a", "quality", 2.5), opinion("b", "quality", 4)]
    asked = asked_about(opinions, RATED)
    assert [(each.image.name, each.query, each.answer) for each in asked] == [("a", QUESTION, ""), ("b", QUESTION, "")]
    assert [dict(each.ratings) for each in rated_by_opinions(asked[1:], opinions, RATED)] == [{"quality": 4}]
    with pytest.raises(CallerError, match="opinions on layout, but rubric rated has quality"):
        rated_by_opinions(asked, [*opinions, opinion("a", "layout", 3)], RATED)


def test_examples_are_of_the_same_few_images_from_the_worst_to_the_best() -> None:
    goodness = [3.0, 5.0, 1.0, 4.0, 2.0, 1.5, 4.5]
    rated = [Rated(text(f"{mean:g}", ""), {"quality": mean + 0.5, "layout": mean - 0.5}) for mean in goodness]
    answered = [Answered(f"about {mean:g}", {"quality": mean}) for mean in goodness]
    found = examples_of(rated, answered)
    assert [one.image for one in found] == ["1", "2", "4", "5"]
    assert found[0] == Example("1", "about 1", {"quality": 1.0}, {"quality": 1.5, "layout": 0.5})
    assert [one.image for one in examples_of(rated[:2], answered)] == ["3", "5"]
    [long] = examples_of(rated[:1], [Answered("x" * 5000, None)])
    assert (len(long.text), long.text[-2:], long.ratings) == (MAX_CHARACTERS, " …", None)


def test_it_is_written_greedily_whatever_the_rubric_says() -> None:
    drawn = rubric_of(
        RUBRIC.replace("{head}", "") + 'samples = 5\ntemperature = 0.7\ntop_p = 0.9\nstop = ["</answer>"]'
    )
    found = greedy(drawn).decoding
    assert (found.samples, found.temperature, found.top_p) == (1, 0, 1)
    assert (found.max_new_tokens, found.stop) == (24, ("</answer>",))


def test_what_is_written_is_parsed_and_leaves_the_model_as_it_was(
    qwen: Path, opinions: list[Opinion], tmp_path: Path
) -> None:
    """The model has learnt one answer by heart; it is taught on, to the bit as if it had not written in between."""
    encoder = make_writing_encoder(qwen, tmp_path)
    images = list(dict.fromkeys(row.path for row in opinions))
    batch = encoder.batch([text(str(image), answer(3)) for image in images[:4]])
    rated = [Rated(text(str(image), ""), {"quality": 4}) for image in images[:3]]
    ends = []
    for writes in (True, False):
        model = load_model(qwen, "float32", "cpu", 1)
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(40):
            if writes and step in (0, 35):
                found = written_answers(model, encoder._processor, RATED, encoder, rated)
                assert [one.ratings for one in found] == [None if step == 0 else {"quality": 4.0}] * len(rated)
                assert step == 0 or found[0].text == answer(3)
            model.train()
            loss = losses(model, batch, 1.0).weighted_sum
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        ends.append(model.state_dict())
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
