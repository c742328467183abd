"""A tiny model that has learnt two captions by heart rates them alone, each by itself, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iqa_core.assessor.model.caption_judge import Judge
from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.model.processors import load_processor
from iqa_core.rubrics import WrittenRubric, load_any_rubric
from tests.training.ranking.tasks import caption_rows

pytestmark = pytest.mark.slow

LEARNT = {"a sharp hall": 5.0, "a hall, blurred by the hand that held the camera": 1.25}


@pytest.fixture(scope="module")
def rubric() -> WrittenRubric:
    found = load_any_rubric("perception-v1")
    assert isinstance(found, WrittenRubric)
    return found.model_copy(update={"question": "How good?"})


@pytest.fixture(scope="module")
def processor(qwen: Path) -> Any:
    return load_processor(qwen)


@pytest.fixture(scope="module")
def taught(qwen: Path, processor: Any, rubric: WrittenRubric) -> Any:
    model = load_model(qwen, "float32", "cpu", 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    rows = caption_rows(processor, rubric, LEARNT)
    model.train()
    for _ in range(40):
        for row in rows:
            loss = model(input_ids=row, labels=row).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def test_captions_are_rated_without_the_image_and_each_by_itself(
    taught: Any, processor: Any, rubric: WrittenRubric
) -> None:
    judge = Judge(processor, rubric, 64)
    sharp, blurred = LEARNT
    found = judge(taught, [blurred, None, sharp, sharp])
    assert np.array_equal(found, [1.25, np.nan, 5, 5], equal_nan=True)
    assert judge(taught, [sharp]).tolist() == [5], "padding beside a longer caption changes nothing"


def test_what_is_no_rating_is_none(taught: Any, processor: Any, rubric: WrittenRubric) -> None:
    assert np.isnan(Judge(processor, rubric, 3)(taught, [*LEARNT])).all(), "cut before its rating"


def test_a_judge_ends_with_its_rating_and_reads_a_caption_once(
    taught: Any, processor: Any, rubric: WrittenRubric
) -> None:
    """What stands behind a rating was not learnt, so that nothing else would end it before its limit."""
    sharp, blurred = LEARNT
    rows: list[int] = []

    def note(_module: Any, _args: Any, _named: Any, output: Any) -> None:
        rows.append(len(output.logits))

    with taught.register_forward_hook(note, with_kwargs=True):
        Judge(processor, rubric, 64)(taught, [blurred, sharp, None, sharp])
    assert set(rows) == {2}
    said = len(processor.tokenizer.encode("so</reasoning>\n<rating>1.25</rating>", add_special_tokens=False))
    assert len(rows) == said


def test_a_judge_is_silent_behind_its_turn_whatever_else_the_tokenizer_ends_by(
    taught: Any, processor: Any, rubric: WrittenRubric
) -> None:
    other, calls = copy.deepcopy(processor), []
    [turn] = processor.tokenizer.encode("<|im_end|>", add_special_tokens=False)
    other.tokenizer.eos_token = "<|endoftext|>"
    assert other.tokenizer.eos_token_id != turn

    def end(_module: Any, _args: Any, output: Any) -> None:
        output.logits[..., turn] = 1e4
        calls.append(output)

    with taught.register_forward_hook(end):
        assert np.isnan(Judge(other, rubric, 64)(taught, [*LEARNT])).all()
    assert len(calls) == 1


def test_a_checkpoints_own_settings_of_generation_stay_out(taught: Any, processor: Any, rubric: WrittenRubric) -> None:
    taught.generation_config.update(repetition_penalty=5.0, do_sample=True, temperature=9.0)
    assert Judge(processor, rubric, 64)(taught, [*LEARNT]).tolist() == [*LEARNT.values()]
