"""The backend against transformers' own forward, one image and one prompt at a time.

Tests iqa_core/assessor/fast/packed_tower.py, iqa_core/assessor/model/loading.py and
iqa_core/assessor/model/processors.py.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import softmax
from transformers import AutoModelForImageTextToText

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, load
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.model.prefix_sharing.cached import PrefixCaching
from iqa_core.assessor.model.prefix_sharing.choosing import AskedRubric
from iqa_core.assessor.model.prefix_sharing.packed import PackedSequences
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from iqa_core.assessor.model.prefix_sharing.strategy import Strategy
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import answer_joint, build_prompt
from iqa_core.assessor.prompts.level_tokens import level_token_ids
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.inspection.check import quick_check
from iqa_core.levels import PADDING
from iqa_core.records import Assessment, ImageLimits, Reason, Rejection
from tests.assessor.contract import check_assessment
from tests.assessor.tiny import FAMILIES, damaged, make_images

pytestmark = pytest.mark.slow

IMAGES = make_images((64, 64), (112, 56), (40, 150), (200, 180))


UNLIKE = """
id = "unlike"
domain = "any"
prompt_version = 1
description = "Two, four, five and ten answers, and statements."
levels = ["bad", "poor", "fair", "good", "excellent"]
answer_prefix = "The {dimension} is"
dimensions = [
    { name = "shown", query = "Is a room shown?", answers = { No = 0, Yes = 1 }, answer_prefix = "" },
    { name = "letter", query = "Which one?", answers = { A = 4, B = 3, C = 2, D = 1 }, worst = 5, answer_prefix = "" },
    { name = "looks", query = "How good is the room?" },
    { name = "digit", query = "How many?", answers = { 0 = 0, 1 = 1, 2 = 2, 3 = 3, 4 = 4, 5 = 5, 6 = 6, 7 = 7, 8 = 8, \
9 = 9 }, answer_prefix = "" },
]
checklist = { query = "{statement} Is it so?", answers = { No = 0, Yes = 1 }, answer_prefix = "" }
statements = [{ name = "a", text = "A lamp.", group = "things" }, { name = "b", text = "A bed.", group = "things" }]
""".replace("DIGITS", f"{{ {', '.join(f'{digit} = {digit}' for digit in range(10))} }}")


LAMPS = """
id = "lamps"
domain = "any"
prompt_version = 1
description = "Many statements of one length."
checklist = { query = "{statement} Is it so?", answers = { No = 0, Yes = 1 }, answer_prefix = "" }
"""


def described(folder: Path, rubric: str | None = None, **settings: Any) -> tuple[AssessorSpec, AssessorConfig]:
    config = AssessorConfig(checkpoint=str(folder), threads=1, **settings)
    return describe(config, rubric, ImageLimits()), config


def open_assessor(folder: Path, rubric: str | None = None, **settings: Any) -> TransformersAssessor:
    assessor = load(*described(folder, rubric, **settings))
    assert isinstance(assessor, TransformersAssessor)
    return assessor


@torch.inference_mode()
def plain_level_logits(folder: Path, assessor: TransformersAssessor, pixels: np.ndarray, **images: bool) -> np.ndarray:
    """Level logits, shape (K, L), out of the whole vocabulary's logits of an untouched model."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = load_processor(folder)
    rows = []
    for question in assessor.rubric.questions:
        prompt, joint = build_prompt(processor, question, None), answer_joint(processor, question, None)
        ids = level_token_ids(processor.tokenizer, prompt, question.scale.answers, joint)
        inputs = processor(text=[prompt], images=[[Image.fromarray(pixels)]], images_kwargs=images, return_tensors="pt")
        rows.append(model(**inputs).logits[0, -1, ids].numpy())
    most = max(map(len, rows))
    return np.stack([np.pad(row, (0, most - len(row)), constant_values=PADDING) for row in rows])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # processors of GLM-4V and PaliGemma
@pytest.mark.parametrize("name", [*FAMILIES, "paligemma"])
def test_levels_are_those_of_the_models_own_forward(name: str, request: pytest.FixtureRequest) -> None:
    """Images of four sizes in one batch. The plain forward also resizes by itself, from the decoder's pixels."""
    folder: Path = request.getfixturevalue(name)
    check_against_plain(folder, open_assessor(folder))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", [*FAMILIES, "paligemma"])
def test_so_are_answers_of_any_number(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(name)
    (tmp_path / "unlike.toml").write_text(UNLIKE)
    assessor = open_assessor(folder, str(tmp_path / "unlike.toml"))
    check_against_plain(folder, assessor)
    check_assessment(assessor, assessor.assess([assessor.preparer.prepare(IMAGES[0])])[0])


def check_against_plain(folder: Path, assessor: TransformersAssessor) -> None:
    logits_NKL = assessor.level_logits([assessor.preparer.prepare(image) for image in IMAGES])
    assert logits_NKL.dtype == np.float32
    for image, logits_KL in zip(IMAGES, logits_NKL, strict=True):
        plain_KL = plain_level_logits(folder, assessor, image.pixels_HWC)
        np.testing.assert_allclose(softmax(logits_KL, axis=1), softmax(plain_KL, axis=1), atol=1e-5)


def test_a_bound_above_the_processors_own_reaches_the_model(qwen: Path) -> None:
    """The actor does not resize again what was prepared."""
    assessor = open_assessor(qwen, max_pixels=168 * 168)
    pixels = assessor.preparer.prepare(IMAGES[-1])
    assert pixels.shape[0] * pixels.shape[1] > 112 * 112
    [logits_KL] = assessor.level_logits([pixels])
    plain_KL = plain_level_logits(qwen, assessor, pixels, do_resize=False)
    np.testing.assert_allclose(softmax(logits_KL, axis=1), softmax(plain_KL, axis=1), atol=1e-5)


def test_a_bias_of_the_output_layer_is_honoured(qwen: Path) -> None:
    """The rows of the level words bring theirs along."""
    assessor = open_assessor(qwen)
    pixels = [assessor.preparer.prepare(image) for image in IMAGES[:2]]
    model, processor = AutoModelForImageTextToText.from_pretrained(qwen), load_processor(qwen)
    head = torch.nn.Linear(48, model.config.text_config.vocab_size, bias=True)
    torch.nn.init.normal_(head.bias)
    head.weight = model.lm_head.weight
    model.lm_head = head
    [taken] = TransformersAssessor.over(model, processor, [(assessor.rubric, assessor.preparer)], 4096)
    biased = taken.level_logits(pixels)
    prompt = build_prompt(processor, assessor.rubric.questions[0], None)
    ids = level_token_ids(processor.tokenizer, prompt, assessor.rubric.levels)
    added = biased[:, 0] - assessor.level_logits(pixels)[:, 0]
    np.testing.assert_allclose(added, np.tile(head.bias.detach()[ids].numpy(), (2, 1)), atol=1e-5)


def test_bfloat16_reads_its_levels_in_float32(qwen: Path) -> None:
    exact, rounded = open_assessor(qwen), open_assessor(qwen, dtype="bfloat16")
    pixels = [exact.preparer.prepare(image) for image in IMAGES]
    logits = rounded.level_logits(pixels)
    assert not np.array_equal(logits, torch.from_numpy(logits).bfloat16().float().numpy())
    np.testing.assert_allclose(logits, exact.level_logits(pixels), atol=0.5)


@pytest.mark.parametrize("batch_tokens", [1, 500, 100_000])
def test_any_budget_gives_the_same_scores(qwen: Path, batch_tokens: int) -> None:
    default, other = open_assessor(qwen), open_assessor(qwen, batch_tokens=batch_tokens)
    pixels = [default.preparer.prepare(image) for image in IMAGES]
    for expected, result in zip(default.assess(pixels), other.assess(pixels), strict=True):
        assert isinstance(expected, Assessment)
        assert isinstance(result, Assessment)
        np.testing.assert_allclose(result.scores_K, expected.scores_K, atol=1e-4)


@pytest.fixture(scope="module")
def alone(qwen: Path) -> tuple[TransformersAssessor, list[np.ndarray], np.ndarray]:
    """An assessor, images of many sizes, and what each scores by itself, (N, K)."""
    assessor = open_assessor(qwen)
    images = make_images(*((56 + 28 * (i % 3), 40 + 31 * (i % 5)) for i in range(12)))
    prepared = [assessor.preparer.prepare(image) for image in images]
    return assessor, prepared, scores_of(assessor, prepared, one_by_one=True)


def scores_of(assessor: TransformersAssessor, prepared: list[np.ndarray], one_by_one: bool = False) -> np.ndarray:
    batches = [[pixels] for pixels in prepared] if one_by_one else [prepared]
    results = [result for batch in batches for result in assessor.assess(batch)]
    assert all(isinstance(result, Assessment) for result in results)
    return np.stack([result.scores_K for result in results if isinstance(result, Assessment)])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=12), st.sampled_from([1, 300, 700, 10_000]))
def test_a_score_does_not_depend_on_company_order_or_budget(
    alone: tuple[TransformersAssessor, list[np.ndarray], np.ndarray], chosen: list[int], batch_tokens: int
) -> None:
    assessor, prepared, expected = alone
    assessor._batch_tokens = batch_tokens
    found = scores_of(assessor, [prepared[i] for i in chosen])
    np.testing.assert_allclose(found, expected[chosen], atol=1e-4)


def test_bfloat16_moves_little_in_company(qwen: Path) -> None:
    """At most 0.02 of the scale for nearly all; the random weights here exaggerate."""
    assessor = open_assessor(qwen, dtype="bfloat16")
    prepared = [assessor.preparer.prepare(image) for image in make_images((64, 64), (112, 56), (40, 150), (90, 90))]
    apart = np.abs(scores_of(assessor, prepared) - scores_of(assessor, prepared, one_by_one=True))
    assert np.quantile(apart, 0.99) <= 0.02


@pytest.mark.parametrize("strategy", [PackedSequences, PrefixCaching, SeparatePrompts])
def test_a_mix_of_sizes_wastes_little_padding(
    strategy: type[Strategy], qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one side to eight times as much, as from 256 x 256 to four megapixels."""

    def choose(model: Any, rubrics: Sequence[AskedRubric], *_: object) -> Strategy:
        chosen = strategy.of(model, [rubrics[0].encoder])
        assert chosen is not None
        return chosen

    monkeypatch.setattr("iqa_core.assessor.model.backend.choose_strategy", choose)
    assessor = open_assessor(qwen)
    sides = np.exp(np.random.default_rng(0).uniform(np.log(48), np.log(384), (40, 2))).astype(int)
    prepared = [assessor.preparer.prepare(image) for image in make_images(*[(h, w) for h, w in sides.tolist()])]
    assessor._batch_tokens = 100_000
    assessor.assess(prepared)
    assert assessor.tokens.real > 1000
    assert assessor.tokens.waste <= (0.05 if assessor._strategy.pads else 0)


@pytest.mark.parametrize("name", ["llava", "idefics"])
def test_tiles_cost_what_they_cost_when_batches_are_made(name: str, request: pytest.FixtureRequest) -> None:
    """These small images grow to as many as 88 visual tokens; by their pixels they would be 4 to 6."""
    assessor = open_assessor(request.getfixturevalue(name), batch_tokens=800)
    prepared = [
        assessor.preparer.prepare(image) for image in make_images(*[(20 + 8 * i, 90 - 5 * i) for i in range(12)])
    ]
    text_tokens, seen = assessor.preparer.cost.text_tokens, list[int]()

    def count(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        visual = int((inputs["input_ids"] == assessor.model.config.image_token_id).sum())
        seen.append(visual + text_tokens * len(inputs["input_ids"]))

    assessor.model.register_forward_pre_hook(count, with_kwargs=True)
    assessor.assess(prepared)
    assert len(seen) > 1
    assert max(seen) <= 800


def fail_above(largest_batch: int, seen: list[int]) -> Callable[..., None]:
    """A hook that runs out of memory as a device with room for so many images would."""

    def hook(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        seen.append(len(inputs["input_ids"]))
        if seen[-1] > largest_batch:
            raise torch.OutOfMemoryError("no room")

    return hook


def test_out_of_memory_halves_the_batch(qwen: Path) -> None:
    assessor = open_assessor(qwen)
    pixels = [assessor.preparer.prepare(image) for image in IMAGES]
    expected, seen = assessor.assess(pixels), list[int]()
    assessor.model.register_forward_pre_hook(fail_above(1, seen), with_kwargs=True)
    for before, after in zip(expected, assessor.assess(pixels), strict=True):
        assert isinstance(before, Assessment)
        assert isinstance(after, Assessment)
        np.testing.assert_allclose(after.scores_K, before.scores_K, atol=1e-4)
    assert sorted(set(seen)) == [1, 2, 4]


@pytest.mark.parametrize("name", ["qwen", "qwen3_5"])
def test_out_of_memory_with_one_image_halves_its_questions(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """As a device would with room for fewer tokens than 32 statements take, in one forward or behind a cache."""
    statements = "".join(f'[[statements]]\nname = "a{i}"\ntext = "A lamp {i}."\n' for i in range(32))
    (tmp_path / "list.toml").write_text(f"{LAMPS}\n{statements}")
    assessor = open_assessor(request.getfixturevalue(name), str(tmp_path / "list.toml"))
    pixels, tokens = [assessor.preparer.prepare(IMAGES[0])], list[int]()

    def fail_above(_module: Any, _args: Any, inputs: dict[str, Any], room: float = math.inf) -> None:
        tokens.append(inputs["input_ids"].numel())
        if tokens[-1] > room:
            raise torch.OutOfMemoryError("no room")

    hook = assessor.model.register_forward_pre_hook(fail_above, with_kwargs=True)
    expected = assessor.level_logits(pixels)
    hook.remove()
    most = max(tokens)
    assessor.model.register_forward_pre_hook(partial(fail_above, room=most - 1), with_kwargs=True)
    np.testing.assert_allclose(assessor.level_logits(pixels), expected, atol=1e-4)
    assert tokens.count(most) == 2, "the whole was tried once more"
    assert isinstance(assessor.assess(pixels)[0], Assessment)


def test_an_image_that_does_not_fit_alone_is_a_rejection(qwen: Path) -> None:
    assessor = open_assessor(qwen)
    assessor.model.register_forward_pre_hook(fail_above(0, []), with_kwargs=True)
    results = assessor.assess([assessor.preparer.prepare(image) for image in IMAGES[:3]])
    assert [result.reason for result in results if isinstance(result, Rejection)] == [Reason.ASSESSOR_FAILED] * 3


def test_logits_that_are_not_finite_are_a_rejection(qwen: Path) -> None:
    assessor = open_assessor(qwen)
    with torch.no_grad():
        assessor.model.get_output_embeddings().weight_VD[0] = torch.nan
    [result] = assessor.assess([assessor.preparer.prepare(IMAGES[0])])
    assert isinstance(result, Rejection)
    assert result.reason is Reason.ASSESSOR_FAILED
    assert "finite" in result.detail


def test_missing_weights_are_refused_instead_of_drawn_at_random(qwen: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(qwen, tmp_path / "holed"))
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CallerError, match=r"lacks 1 .*lm_head.weight"):
        open_assessor(folder)


@pytest.mark.parametrize(("value", "fault"), [(math.nan, "NaN"), (math.inf, "inf")])
def test_a_weight_that_is_not_finite_is_named(value: float, fault: str, qwen: Path, tmp_path: Path) -> None:
    folder = damaged(qwen, tmp_path / "damaged", "model.norm.weight", value)
    said = rf"weights are damaged: {fault} in model\.language_model\.norm\.weight; save"
    for rubric in (None, "perception-v1"):
        with pytest.raises(CallerError, match=said):
            open_assessor(folder, rubric)
    with pytest.raises(CallerError, match=said):
        quick_check(*described(folder))


def test_a_model_of_another_kind_is_refused(qwen: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(qwen, tmp_path / "text"))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "dtype": "float32"}))
    with pytest.raises(CallerError, match="cannot be loaded"):
        open_assessor(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(qwen: Path) -> None:
    with pytest.raises(CallerError, match="CUDA"):
        open_assessor(qwen, device="cuda")


def test_exact_arithmetic_is_set_when_a_model_is_loaded(qwen: Path) -> None:
    torch.set_float32_matmul_precision("medium")
    assert open_assessor(qwen).versions["device"]
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_num_threads() == 1
