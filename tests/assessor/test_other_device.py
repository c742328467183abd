"""Every kind of model on a device of its own, against the CPU: what would fail on a GPU, or wait there, fails here."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from benchmarks.assessor import Engine, pictures
from benchmarks.model_shapes import SHAPES, Shape
from iqa_core.assessor.families import VIEWED
from iqa_core.assessor.model.asking import PROBABILITY_TOLERANCE
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.model.generation.decoding import Decoder
from iqa_core.assessor.model.prefix_sharing.packed import PackedSequences
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.model.writing import WritingAssessor
from iqa_core.assessor.preparing.preparers import make_preparer
from iqa_core.records import ImageLimits, Rejection
from iqa_core.rubrics import WrittenRubric, load_any_rubric, load_rubric
from tests.assessor.other_device import DEVICE, moved, other_device
from tests.assessor.tiny import FAMILIES, RUBRIC, make_images

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
IMAGES = make_images((64, 64), (112, 56), (40, 150))


def assessor_of(folder: Path, model: Any) -> TransformersAssessor:
    rubric = load_rubric(RUBRIC)
    rubric = rubric.model_copy(update={"dimensions": rubric.dimensions[:2]})
    preparer = make_preparer(folder, rubric, ImageLimits(), None)
    [assessor] = TransformersAssessor.over(model, load_processor(folder), [(rubric, preparer)], 10_000)
    return assessor


def of_views(assessor: TransformersAssessor, images: list[np.ndarray[Any, Any]]) -> list[torch.Tensor]:
    """Probabilities under views of unlike sizes; none where the model has no views."""
    if assessor.model.config.model_type not in VIEWED:
        return []
    views = [[tuple(range(count)) for count in (1, 3, 4)]] * len(images)
    results = assessor.assess_views(images, views, assessor.rubric.names)
    return [torch.from_numpy(one.probs_K[0]) for own in results for one in own]  # type: ignore[union-attr]


def softmax(logits_NKL: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(logits_NKL).softmax(-1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # processors of GLM-4V and PaliGemma
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, dtype) for name in FAMILIES[:8] for dtype in (torch.float32, torch.bfloat16)),
        *((name, torch.bfloat16) for name in (*FAMILIES[8:], "paligemma")),
    ],
)
def test_no_tensor_is_left_behind(
    name: str,
    dtype: torch.dtype,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Random weights make of bfloat16's rounding up to 0.05 of a probability."""
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    monkeypatch.setitem(PROBABILITY_TOLERANCE, dtype, tolerance)
    folder = request.getfixturevalue(name)
    here = assessor_of(folder, AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype))
    images = [here.preparer.prepare(image) for image in IMAGES]
    expected, viewed = softmax(here.level_logits(images)), of_views(here, images)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    with other_device(monkeypatch) as device:
        there = assessor_of(folder, moved(model))
        assert type(there._strategy) is type(here._strategy)
        found, viewed_there = softmax(there.level_logits(images)), of_views(there, images)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert bool(viewed) == (name in ("qwen", "qwen2", "qwen3"))
    torch.testing.assert_close(viewed_there, viewed, atol=tolerance, rtol=0)
    is_ours = isinstance(there._strategy, PackedSequences) or there._strategy._tower is not None
    assert bool(device.calls["torch_attn::_varlen_attn"]) == (is_ours and dtype == torch.bfloat16)


@pytest.mark.parametrize("shape", ["tiny", "tiny-ovis2.5"])
def test_a_gpu_is_waited_for_twice_per_batch(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the prompts have a place for every visual token, before any work on the images; and for the result."""
    engine = Engine(shape, CPU, torch.bfloat16)
    images = pictures(2, SHAPES[shape].sides[0])
    expected = engine.packed().logits(engine.encoder(images)).softmax(-1)
    make_model = Shape.make_model
    monkeypatch.setattr(Shape, "make_model", lambda shape, _, dtype: moved(make_model(shape, CPU, dtype)))
    with other_device(monkeypatch) as device:
        engine = Engine(shape, DEVICE, torch.bfloat16)
        strategy, batch = engine.packed(), engine.encoder(images)
        device.waits.clear()
        found = strategy.logits(batch).softmax(-1)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    assert sum(device.waits.values()) == 2


def texts_of(assessor: WritingAssessor, images: list[np.ndarray[Any, Any]]) -> list[list[str]]:
    return [[answer.text for answer in one] for one in assessor.answers(images) if not isinstance(one, Rejection)]


@pytest.mark.parametrize("name", ["qwen", "qwen3_5"])
def test_samples_are_written_there_too(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that chooses a token, and rows that leave."""
    folder = request.getfixturevalue(name)
    shipped = load_any_rubric("interior-perception-v1")
    assert isinstance(shipped, WrittenRubric)
    drawn = {"max_new_tokens": 8, "samples": 3, "temperature": 1.0, "top_k": 40, "repetition_penalty": 1.2}
    rubric = shipped.model_copy(update={"decoding": shipped.decoding.model_copy(update=drawn)})
    preparer = make_preparer(folder, rubric, ImageLimits(), None)
    images = [preparer.prepare(image) for image in IMAGES]

    def made(model: Any) -> WritingAssessor:
        return WritingAssessor(model, load_processor(folder), rubric, preparer, "of a test", 10_000, 64)

    here = made(AutoModelForImageTextToText.from_pretrained(folder))
    ids = [answer.ids for one in here.answers(images) if not isinstance(one, Rejection) for answer in one]
    ends = frozenset(one[2 + i % 3] for i, one in enumerate(ids[:6]))
    here._decoder._ends = ends
    expected = texts_of(here, images)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    for owner, method in ((Decoder, "__call__"), (WritingAssessor, "_prefilled")):  # see `other_device`
        monkeypatch.setattr(owner, method, inspect.unwrap(getattr(owner, method)))
    monkeypatch.setattr(torch, "inference_mode", nullcontext)
    with other_device(monkeypatch):
        there = made(moved(model))
        assert there._way.shares == here._way.shares
        there._decoder._ends = ends
        assert texts_of(there, images) == expected
    assert len({len(text) for row in expected for text in row}) > 2
