"""The shipped checkpoint -> loads with transformers' own classes, says level words, and says them right.

Tests iqa_core/demo/prompts.py, and `see` of iqa_core/demo/base.py, with it; iqa_core/demo/cpu_speed.py too.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from transformers import AutoModelForImageTextToText, AutoProcessor

from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.manifest_writing import write_manifest
from iqa_core.assessor.samples import FEW, SAMPLES
from iqa_core.demo.base import level_targets, see
from iqa_core.demo.cpu_speed import attend_within_images, speed_up
from iqa_core.demo.prompts import Prompts, rubric_questions
from iqa_core.demo.scenes import DIMENSIONS, make_scene
from iqa_core.records import FIVE_LEVELS, ImageLimits
from iqa_core.rubrics import Rubric, load_rubric

pytestmark = pytest.mark.slow

FOLDER = Path(str(resources.files("iqa_core.demo"))) / "checkpoint"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32)


@pytest.fixture(scope="module")
def rubric() -> Rubric:
    return load_rubric(tomllib.loads((FOLDER / "assessor.toml").read_text())["rubric"])


def prompt(processor: Any, rubric: Rubric, k: int) -> str:
    content = [{"type": "image"}, {"type": "text", "text": f"\n{rubric.dimensions[k].query}"}]
    asked = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return str(asked) + rubric.answer_start(rubric.dimensions[k])


def test_the_folder_is_small_and_holds_no_code() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".toml", ".md"}


def test_the_manifest_names_a_rubric_in_the_version_it_was_trained_on(rubric: Rubric) -> None:
    manifest = read_manifest(FOLDER)
    assert manifest is not None
    assert (manifest.rubric, manifest.prompt_version, manifest.dtype) == (rubric.id, rubric.prompt_version, "float32")
    assert (manifest.trained_on, manifest.image_limits) == ("sentence", ImageLimits())
    assert [entry.image for entry in manifest.golden] == list(SAMPLES[:FEW])


def test_the_manifest_is_what_the_checkpoint_would_get_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    manifest = read_manifest(FOLDER)
    assert manifest is not None
    copy = Path(shutil.copytree(FOLDER, tmp_path / "demo"))
    again = write_manifest(copy, "interior-v4", "float32", max_pixels=manifest.max_pixels, domain=manifest.domain)
    assert again.model_copy(update={"golden": ()}) == manifest.model_copy(update={"golden": ()})
    for entry, written in zip(again.golden, manifest.golden, strict=True):
        assert entry.scores == pytest.approx(written.scores, abs=1e-3)


@pytest.mark.parametrize("name", ["interior-v1", "interior-v2", "interior-v3", "interior-v4"])
def test_each_level_word_is_one_token_behind_any_answer(name: str, processor: Any) -> None:
    rubric = load_rubric(name)
    for k in range(len(rubric.dimensions)):
        start = processor.tokenizer(prompt(processor, rubric, k))["input_ids"]
        longer = [processor.tokenizer(f"{prompt(processor, rubric, k)} {word}")["input_ids"] for word in rubric.levels]
        assert all(ids[:-1] == start for ids in longer)
        assert len({ids[-1] for ids in longer}) == FIVE_LEVELS.num_levels


def test_a_forward_through_the_processor_is_finite_and_what_the_trainer_computes(
    processor: Any, model: Any, rubric: Rubric
) -> None:
    pixels = np.stack([make_scene(21, index).pixels_HWC for index in range(2)])
    texts = [prompt(processor, rubric, k) for k in range(len(DIMENSIONS))]
    prompts = Prompts(model, processor.tokenizer, rubric_questions(rubric))
    found = []
    with torch.inference_mode():
        for picture in pixels:
            images = [Image.fromarray(picture)] * len(texts)
            batch = processor(text=texts, images=images, padding=True, padding_side="right", return_tensors="pt")
            logits = model(**batch).logits
            assert torch.isfinite(logits).all()
            last = batch["attention_mask"].sum(1) - 1
            found.append(logits[torch.arange(len(texts)), last].log_softmax(-1).gather(-1, prompts.answer_ids_KA))
        speed_up(model)
        trained = prompts.log_probs(model, see(model, processor.image_processor, torch.from_numpy(pixels)))
    assert torch.allclose(torch.stack(found), trained, atol=1e-4)


def test_images_of_other_sizes_get_a_forward(processor: Any, model: Any, rubric: Rubric) -> None:
    for width, height in ((64, 64), (300, 200), (90, 400)):
        image = Image.new("RGB", (width, height), (200, 180, 160))
        batch = processor(text=[prompt(processor, rubric, 0)], images=[image], return_tensors="pt")
        with torch.inference_mode():
            assert torch.isfinite(model(**batch).logits).all()


def test_scores_follow_the_truths_of_unseen_scenes(processor: Any, model: Any, rubric: Rubric) -> None:
    speed_up(model)
    scenes = [make_scene(987_654, index) for index in range(64)]
    images = torch.from_numpy(np.stack([scene.pixels_HWC for scene in scenes]))
    with torch.inference_mode():
        log_probs = Prompts(model, processor.tokenizer, rubric_questions(rubric)).log_probs(
            model, see(model, processor.image_processor, images)
        )
    scores = (log_probs.softmax(-1) @ torch.tensor(FIVE_LEVELS.levels, dtype=torch.float32)).numpy()
    for k, name in enumerate(DIMENSIONS):
        truths = [scene.truths[name] for scene in scenes]
        assert spearmanr(scores[:, k], truths).statistic > 0.7, name


def test_level_words_take_most_of_the_probability(processor: Any, model: Any, rubric: Rubric) -> None:
    image = torch.from_numpy(make_scene(5, 5).pixels_HWC[None])
    with torch.inference_mode():
        log_probs = Prompts(model, processor.tokenizer, rubric_questions(rubric)).log_probs(
            model, see(model, processor.image_processor, image)
        )
    assert log_probs.exp().sum(-1).min() > 0.9


def test_targets_have_the_truth_as_expected_score() -> None:
    truths = torch.tensor([[1.0, 2.3], [4.75, 5.0]])
    targets = level_targets(truths)
    assert torch.allclose(targets.sum(-1), torch.ones(2, 2))
    assert torch.allclose(targets @ torch.tensor(FIVE_LEVELS.levels, dtype=torch.float32), truths)
    assert (targets > 0).sum(-1).tolist() == [[1, 2], [2, 1]]


def test_attention_within_images_sees_no_other_image() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 4, 3 * 16, 8)
    packed, _ = attend_within_images(torch.nn.Identity(), query, key, value, scaling=8**-0.5, max_length_q=16)
    for n in range(3):
        own = (part[:, :, n * 16 : (n + 1) * 16] for part in (query, key, value))
        alone = torch.nn.functional.scaled_dot_product_attention(*own)
        assert torch.allclose(packed[:, n * 16 : (n + 1) * 16], alone.transpose(1, 2), atol=1e-5)
