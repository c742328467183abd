"""Lessons -> losses that reach what they are to train, and a training that goes on as if it had never stopped.

Tests iqa_core/demo/base.py, iqa_core/demo/keeper.py and iqa_core/demo/blueprint.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from iqa_core.demo import base
from iqa_core.demo.base import Learner, Teacher, learning_rate, optimise, place_targets
from iqa_core.demo.blueprint import SINGLE_WORDS, TAGS, make_config, make_image_processor, make_tokenizer
from iqa_core.demo.cpu_speed import speed_up
from iqa_core.demo.keeper import Keeper
from iqa_core.demo.lessons import UNKNOWN, Lessons, joined, render
from iqa_core.demo.prompts import PLACES, STATEMENTS, Asked, Prompts, rubric_questions
from iqa_core.errors import CallerError
from iqa_core.rubrics import load_rubric

pytestmark = pytest.mark.slow

STAGES = ("first", "second")
STEPS = 6
LEVELS = load_rubric("interior-v1").levels


class Stopped(Exception):
    """A process that ends where it stands."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def questions() -> tuple[Asked, ...]:
    return tuple(each for name in base.RUBRICS for each in rubric_questions(load_rubric(name))) + PLACES + STATEMENTS


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer([each.query + each.answer_start for each in questions()], LEVELS)


@pytest.fixture(scope="module")
def learner(tokenizer: PreTrainedTokenizerBase) -> Learner:
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(make_config(tokenizer))
    speed_up(model)
    return Learner(model, make_image_processor())


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    return joined(render(31, range(24)), render(31, range(24, 48), flawed=True))


def trained(folder: Path, *, resume: bool = False, stop: tuple[str, int] = ("", 0)) -> list[torch.Tensor]:
    """A line through noise, in two stages; the state is written at each step."""
    torch.manual_seed(3)
    module = torch.nn.Linear(4, 1)
    keeper = Keeper(folder / "state", {"steps": STEPS}, STAGES, module, resume=resume, every_s=0)

    def loss_of(stage: str) -> Callable[[int], torch.Tensor]:
        def loss(step: int) -> torch.Tensor:
            if (stage, step) == stop:
                raise Stopped
            found: torch.Tensor = module(torch.randn(8, 4)).square().mean()
            return found

        return loss

    for stage in STAGES:
        optimise([{"params": list(module.parameters()), "lr": 0.1}], stage, STEPS, loss_of(stage), keeper)
    return [parameter.detach() for parameter in module.parameters()]


@pytest.mark.parametrize("stop", [("first", 4), ("second", 1), ("second", 5)])
def test_a_training_that_was_stopped_ends_where_an_undisturbed_one_does(stop: tuple[str, int], tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        trained(tmp_path, stop=stop)
    again = trained(tmp_path, resume=True)
    (tmp_path / "state").unlink()
    undisturbed = trained(tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(again, undisturbed, strict=True))


def test_a_begun_training_is_not_lost_by_mistake(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(CallerError, match="--resume"):
        trained(tmp_path)
    with pytest.raises(CallerError, match="begun with steps 6, not 7"):
        Keeper(tmp_path / "state", {"steps": 7}, STAGES, torch.nn.Linear(4, 1), resume=True)


def test_a_state_is_not_written_before_its_time(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1)
    optimiser = torch.optim.AdamW(module.parameters())
    keeper = Keeper(tmp_path / "state", {}, STAGES, module, resume=False, every_s=3600)
    keeper.step_done("first", 1, optimiser)
    assert list(tmp_path.iterdir()) == []
    assert keeper.steps_done("first", 5, optimiser) == 0


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [learning_rate(step, 400) for step in range(1, 401)]
    assert rates[0] == pytest.approx(0.02)
    assert rates.index(max(rates)) in range(45, 55)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("name", ["interior-v1", "places", "statements"])
def test_every_kind_of_question_reaches_tower_and_text(
    name: str, learner: Learner, lessons: Lessons, tokenizer: PreTrainedTokenizerBase
) -> None:
    asked = {"interior-v1": rubric_questions(load_rubric("interior-v1")), "places": PLACES}
    prompts = {key: Prompts(learner.model, tokenizer, each) for key, each in asked.items()}
    torch.manual_seed(1)
    learner.zero_grad()
    loss = Teacher(tokenizer, prompts, lessons, batch=4).loss(learner, name)
    loss.backward()
    # a model that knows nothing gives each word the same share: ln(1799) = 7.5, and a little for the heads
    assert 6.5 < loss.item() < 11
    for part in (learner.model.model.visual, learner.model.model.language_model, learner.model.lm_head, learner.facts):
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


def test_a_few_steps_of_the_first_stage_learn_where_a_scene_is_spoilt(learner: Learner, lessons: Lessons) -> None:
    torch.manual_seed(1)
    few = lessons.pick(torch.arange(20, 28), torch.zeros(8, dtype=torch.bool))
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        losses.append(learner.look(few)[1])
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]


def test_what_cannot_be_told_has_no_target() -> None:
    targets = place_targets(torch.tensor([[1, 0, 2], [0, UNKNOWN, UNKNOWN]]))
    assert targets.sum(-1).tolist() == [[1, 1, 1], [1, 0, 0]]
    assert targets[0].argmax(-1).tolist() == [1, 0, 2]


def test_words_and_marks_of_answers_are_single_tokens_also_when_loaded(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    for part in (tokenizer, make_image_processor(), make_config(tokenizer)):
        part.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path).tokenizer
    marks = [mark for tag in TAGS for mark in (f"<{tag}>", f"</{tag}>")]
    for text in (*marks, *SINGLE_WORDS, *(f" {word}" for word in SINGLE_WORDS), *"0123456789"):
        assert len(loaded(text)["input_ids"]) == 1, text
    answer = "<think>The red sofa floats.</think>\nLayout: 2, Harmony: 3.5, Overall: 2.75"
    ids = loaded(answer)["input_ids"]
    assert (len(ids), loaded.decode(ids, skip_special_tokens=True)) == (27, answer)


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="not one token each in a vocabulary of 500"):
        make_tokenizer([], LEVELS, vocabulary=500)
