"""Numbers that answers say -> their figures: a model that looks is told from one that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from iqa_core.records import Finish
from iqa_core.rubrics import WrittenRubric
from iqa_core.rubrics.load import parse_rubric
from iqa_core.training.ranking.recipe import RankingRecipe
from iqa_core.training.ranking.rollouts import Rollout, Said, drawing_rubric
from iqa_core.training.ranking.task import RankingTask
from iqa_core.training.ranking.worth import single_figures, worth_of
from iqa_core.training.rewards.arrays import Opinions
from iqa_core.training.written_validation import Rated
from tests.training.ranking.tasks import RUBRIC, answer

IMAGES = np.arange(4)
DECODING = 'temperature = 0.5\nsamples = 3\ntop_k = 5\nrepetition_penalty = 1.05\nstop = ["!"]\n'


def rubric_of(text: str = RUBRIC) -> WrittenRubric:
    return cast(WrittenRubric, parse_rubric(text.encode(), "ranked.toml"))


def task_of(y_N: list[float], **rewards: Any) -> RankingTask:
    """Images of two data sets, with the same opinion on both attributes."""
    people = Opinions(np.repeat(y_N, 2).reshape(-1, 2), np.full((len(y_N), 2), np.nan), np.array([0, 0, 1, 1]))
    recipe = RankingRecipe.model_validate({"rewards": rewards})
    nothing: Any = None
    return RankingTask("base", rubric_of(), nothing, recipe.engine(1), (), (), threads=1, ranking=recipe, people=people)


def said(numbers_NK: list[list[int]], finish: Finish = Finish.STOP) -> Said:
    """0 is an answer in no form."""
    rollouts = [
        [Rollout(answer(number, number) if number else "hm", finish, (1, 2), (-0.1, -0.2)) for number in of_image]
        for of_image in numbers_NK
    ]
    return Said.of(rollouts, rubric_of().form)


def figure(found: Any, name: str) -> float:
    total, count = found.figures[name]
    return total / count


def test_answers_in_the_right_order_are_told_from_those_about_another_image() -> None:
    found = worth_of(task_of([4.0, 2.0, 5.0, 1.0]), IMAGES, said([[4, 4], [2, 2], [5, 5], [1, 1]]))
    assert figure(found, "fidelity_normalised") == pytest.approx(1, abs=0.01)
    assert figure(found, "fidelity_blind") < -2, "the other image of the data set is the worst choice"
    turned = worth_of(task_of([4.0, 2.0, 1.0, 5.0]), IMAGES, said([[4, 4], [2, 2], [1, 1], [5, 5]]))
    assert figure(turned, "fidelity_blind") == figure(found, "fidelity_blind"), "an image of another data set is none"
    same = worth_of(task_of([4.0, 2.0, 5.0, 1.0]), IMAGES, said([[3, 3]] * 4))
    assert figure(same, "fidelity_normalised") == pytest.approx(0, abs=0.01)
    assert figure(same, "fidelity_blind") == figure(same, "fidelity_normalised")
    assert figure(same, "dead_groups") == 1


def test_an_answer_in_no_form_is_worth_less_and_counted() -> None:
    found = worth_of(task_of([4.0, 2.0, 5.0, 1.0]), IMAGES, said([[4, 4, 0], [2, 2, 2], [5, 4, 5], [1, 1, 2]]))
    assert found.advantage_NK[0, 2] == found.advantage_NK[0].min() < 0
    assert figure(found, "parsed_drawn") == pytest.approx(11 / 12)
    assert figure(found, "distinct_texts") == pytest.approx((2 + 1 + 2 + 2) / 4)
    assert figure(found, "answer_tokens") == 2
    assert figure(worth_of(task_of([4.0, 2.0, 5.0, 1.0]), IMAGES, said([[4, 4]] * 4, Finish.LENGTH)), "cut") == 1


def test_images_without_any_reward_teach_nothing_and_are_counted() -> None:
    task = task_of([np.nan, np.nan, 5.0, 1.0], composition={"weights": {"score": 1}})
    assert figure(worth_of(task, IMAGES, said([[4, 3], [2, 1], [5, 4], [1, 2]])), "dead_groups") == 0.5


def test_data_sets_on_other_scales_are_compared_where_that_is_asked_for() -> None:
    """In units of their data sets, 4 of 2 and 4 is what 2 of 1 and 2 is."""
    task = task_of([4.0, 2.0, 2.0, 1.0], alignment="standardised", preferences="soft")
    assert task.scales is not None
    assert task_of([4.0, 2.0, 2.0, 1.0]).scales is None
    assert np.isfinite(worth_of(task, IMAGES, said([[4, 4], [2, 2], [4, 4], [2, 2]])).advantage_NK).all()


def test_words_are_held_against_what_was_written_about_the_same_image() -> None:
    rubric = rubric_of(RUBRIC.replace('thought = "none"\n', ""))
    thought = ["a sharp room", "a dark room"]
    rollouts = [
        [Rollout(f"<think>{text}</think>{answer(3, 3)}", Finish.STOP, (1,), (-0.1,)) for text in thought]
        for _ in range(2)
    ]
    task = replace(
        task_of([4.0, 2.0, 5.0, 1.0], composition={"weights": {"words": 1}}),
        references=((), (), ("a dark room",), ("a sharp room",)),
    )
    found = worth_of(task, np.array([2, 3]), Said.of(rollouts, rubric.form))
    assert (found.advantage_NK > 0).tolist() == [[False, True], [True, False]]
    assert 0.5 < figure(found, "reward_words") < 1


def test_a_code_that_only_the_model_reads_shows() -> None:
    """The judge reads what people say; the base reads the opposite there, and nothing from one caption."""
    task = task_of([4.0, 2.0, 5.0, 1.0])
    judged = np.array([[4.0, 4], [2, 2], [5, 5], [1, 1]])
    by_base = np.where(judged == 4, np.nan, 6 - judged)
    found = worth_of(
        task, IMAGES, replace(said([[4, 4], [2, 2], [5, 5], [1, 1]]), judged_NK=judged, judged_by_base_NK=by_base)
    )
    assert (figure(found, "caption_plcc"), figure(found, "caption_plcc_base")) == pytest.approx((1, -1))
    assert (figure(found, "caption_read"), figure(found, "caption_read_base")) == (1, 0.75)


def test_single_answers_are_judged_one_by_one() -> None:
    """Of three answers about each of four images one is in the right order, one in the wrong, and one is in no form."""
    task = task_of([4.0, 2.0, 5.0, 1.0])
    rated = [Rated(None, {"quality": mos}) for mos in (4.0, 2.0, 5.0, 1.0)]  # type: ignore[arg-type]
    found = single_figures(replace(task, rated=tuple(rated)), said([[4, 2, 0], [2, 4, 0], [5, 1, 0], [1, 5, 0]]))
    assert found["single_srcc_quality"] == pytest.approx(0)
    assert found["single_mae_quality"] == pytest.approx((0 + 3) / 2)
    assert found["single_parsed"] == pytest.approx(2 / 3)


def test_what_all_workers_say_is_put_back_into_the_order_of_the_step() -> None:
    """Image i was dealt to worker i modulo their number."""
    whole = said([[1, 2], [3, 4], [5, 0], [2, 2], [4, 4]])
    dealt = Said.dealt([said([[1, 2], [5, 0], [4, 4]]), said([[3, 4], [2, 2]])])
    assert np.array_equal(dealt.answers.q_NKA, whole.answers.q_NKA, equal_nan=True)
    assert (dealt.distinct_N, dealt.cut_N, dealt.tokens_N) == (whole.distinct_N, whole.cut_N, whole.tokens_N)


def test_answers_are_drawn_from_the_models_own_distribution_whatever_the_rubric_says() -> None:
    """Another one is not what the gradient is about: penalties, top-k and the base's generation_config stay out."""
    rubric = rubric_of(RUBRIC + DECODING)
    found = drawing_rubric(rubric, RankingRecipe(rollouts=8, max_new_tokens=40)).decoding
    assert (found.samples, found.temperature, found.max_new_tokens) == (8, 1, 40)
    assert (found.top_k, found.top_p, found.min_p) == (0, 1, 0)
    assert (found.repetition_penalty, found.presence_penalty) == (1, 0)
    assert found.stop == ("!",)
