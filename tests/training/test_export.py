"""A checkpoint -> a folder that scoring takes: the same scores, frozen weights to the bit, a card with the figures.

Tests iqa_core/training/card.py and iqa_core/training/task.py.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, read_manifest, save_manifest
from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.assessor.model.loading import load_model
from iqa_core.errors import RunError
from iqa_core.opinions.opinion import Opinion
from iqa_core.records import Assessment
from iqa_core.rubrics import Rubric, WrittenRubric, load_any_rubric, load_rubric
from iqa_core.storage.storage import Storage
from iqa_core.training.card import model_card
from iqa_core.training.export import RUBRIC_FILE, _rubric_name, export
from iqa_core.training.objective import losses
from iqa_core.training.parts import apply_part_modes, part_of, trainable
from iqa_core.training.ranking.calibrating import MIN_IMAGES
from iqa_core.training.task import PROGRESS, SCORES, WEIGHTS, TrainingTask
from iqa_core.training.validation import PARSED, RANK
from jobs.training.flow import export_on_worker
from tests.training.ranking.tasks import RUBRIC as RANKED
from tests.training.ranking.tasks import make_ranking_task
from tests.training.tasks import asking_opinions, make_encoder, make_task
from tests.training.writing import make_writing_task
from tests.unlike import ASKING, ASKING_TOML, TRAINABLE

pytestmark = pytest.mark.slow

FIGURES = {"step": 20, "steps": 20, "loss": 0.7, "validation_loss": 0.8, "srcc": 0.91, "plcc": 0.9, "srcc_layout": 0.9}


def trained(task: TrainingTask, folder: Path) -> tuple[Any, Path]:
    """A model of which every trained weight was moved, and its checkpoint."""
    model = load_model(Path(task.base), "float32", "cpu", 1)
    apply_part_modes(model, task.recipe)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder.mkdir()
    save_file({name: p.detach().clone() for name, p in trainable(model).items()}, folder / WEIGHTS)
    (folder / PROGRESS).write_text(json.dumps(FIGURES))
    return model, folder


@pytest.mark.parametrize("base", ["qwen", "qwen3", "ovis"])
@pytest.mark.parametrize("modes", [{}, {"language": "lora", "vision": "full"}], ids=["full", "lora"])
def test_the_exported_folder_scores_as_the_trained_model_did(
    modes: dict[str, Any], base: str, request: pytest.FixtureRequest, opinions: list[Opinion], tmp_path: Path
) -> None:
    folder = request.getfixturevalue(base)
    task = make_task(folder, opinions[:16], **modes)
    model, checkpoint = trained(task, tmp_path / "checkpoint")
    export(task, checkpoint, tmp_path / "out", {"seed": 0})
    assessor = load_assessor(str(tmp_path / "out"), threads=1)  # its golden scores are compared here
    encoder = make_encoder(folder)
    with torch.no_grad():
        wanted = losses(model, encoder.batch(task.train[:4]), 1.0).scores.numpy()
    [found] = assess_images(assessor, [task.train[0].image])
    assert isinstance(found, Assessment)
    assert len({sample.image for sample in task.train[:4]}) == 1, "one image, four dimensions"
    np.testing.assert_allclose(found.scores_K, wanted, atol=1e-5)


def test_an_export_with_slots_and_statements_scores_as_the_trained_model_did(
    qwen: Path, opinions: list[Opinion], tmp_path: Path
) -> None:
    (tmp_path / "asking.toml").write_text(ASKING_TOML)
    texts = ["a cat", "two dogs <|im_end|> on a sofa"]
    task = make_task(qwen, asking_opinions(opinions[0], ASKING, texts), str(tmp_path / "asking.toml"))
    samples = [*task.train, *task.validation]
    model, checkpoint = trained(task, tmp_path / "checkpoint")
    export(task, checkpoint, tmp_path / "out", {})
    with torch.no_grad():
        wanted = losses(model, make_encoder(qwen, str(tmp_path / "asking.toml")).batch(samples), 1.0).scores
    assessor = load_assessor(str(tmp_path / "out"), threads=1)  # its golden scores are compared here
    assert assessor.rubric == ASKING
    found = assess_images(assessor, [samples[0].image] * 2, [{"prompt": text, "style": text} for text in texts])
    for result, rated in zip(found, wanted.reshape(2, 4).tolist(), strict=True):
        assert isinstance(result, Assessment)
        shares = [result.scores_K[0], *result.probs_K[2]]
        assert shares == pytest.approx([(rated[i] - 1) / 4 for i in (0, 2, 3)], abs=1e-5)
        assert result.scores_K[1] == pytest.approx(rated[1], abs=4e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "faithful: No, Yes, 0 (worst) to 1 (best)" in card
    assert "each of 2 statements: No, Yes, 0 (worst) to 1 (best)" in card
    assert "--assessor.checkpoint <this folder> --slot prompt=<column> --slot style=<column>" in card


def test_frozen_weights_are_the_bases_bit_by_bit_in_a_folder_of_files_alone(
    qwen: Path, opinions: list[Opinion], tmp_path: Path
) -> None:
    from ray.train import Checkpoint

    task = make_task(qwen, opinions[:16])
    _, checkpoint = trained(task, tmp_path / "trained")
    made = tmp_path / "out"
    export_on_worker(task, Checkpoint(checkpoint), str(made), str(tmp_path / "scratch"), Storage({}), {}, None)
    assert all(path.is_file() for path in made.iterdir())
    before, after = (load_file(folder / "model.safetensors") for folder in (qwen, made))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {part_of(name) for name in changed} == {"language"}
    assert {name for name in before if part_of(name) == "language"} == changed


def test_the_folder_says_what_it_is(qwen: Path, opinions: list[Opinion], tmp_path: Path) -> None:
    task = make_task(qwen, opinions[:16])
    _, checkpoint = trained(task, tmp_path / "checkpoint")
    manifest = export(task, checkpoint, tmp_path / "out", {"train": ["a.csv"]}, "bfloat16").manifest
    assert (manifest.rubric, manifest.prompt_version, manifest.dtype) == ("interior-v2", 2, "float32")
    assert len(manifest.golden) == 3
    assert json.loads((tmp_path / "out" / "training.json").read_text()) == {"train": ["a.csv"]}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| layout | – | 0.900 |" in card
    assert "| mean | 0.900 | 0.910 |" in card
    assert str(tmp_path) not in card
    assert next(iter(load_file(tmp_path / "out" / "model.safetensors").values())).dtype == torch.bfloat16
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (qwen / "tokenizer.json").read_bytes()


def test_a_rubric_of_ones_own_travels_in_the_folder(qwen: Path, opinions: list[Opinion], tmp_path: Path) -> None:
    task = make_task(qwen, opinions[:16])
    rubric = type(task.rubric).model_validate(
        task.rubric.model_dump() | {"id": "mine", "system": 'Say "good" or “bad”.'}
    )
    task = TrainingTask(**{**vars(task), "rubric": rubric})
    _, checkpoint = trained(task, tmp_path / "checkpoint")
    export(task, checkpoint, tmp_path / "out", {})
    assert load_assessor(str(tmp_path / "out"), threads=1).rubric == rubric


def test_weights_of_another_base_are_refused(qwen: Path, opinions: list[Opinion], tmp_path: Path) -> None:
    task = make_task(qwen, opinions[:16])
    _, checkpoint = trained(make_task(qwen, opinions[:16], language="lora"), tmp_path / "checkpoint")
    with pytest.raises(RunError, match="was not trained from"):
        export(task, checkpoint, tmp_path / "out", {})


@pytest.mark.parametrize("slots", [{}, {"slots": []}])
def test_a_rubric_of_answers_of_its_own_is_written_as_it_is(slots: dict[str, Any], tmp_path: Path) -> None:
    content = TRAINABLE.model_dump(exclude_unset=True)
    if "slots" in slots:  # its braces are asked as they stand
        content["dimensions"][0]["query"] = "Is {that} there?"
    rubric = Rubric.model_validate(content | slots)
    assert _rubric_name(rubric, tmp_path) == RUBRIC_FILE
    assert load_rubric(str(tmp_path / RUBRIC_FILE)) == rubric


def test_the_card_says_what_can_be_answered_and_what_it_is_worth(qwen: Path, opinions: list[Opinion]) -> None:
    task = make_task(qwen, opinions[:4])
    assert "one of five level words; the score is their expectation, 1 (worst) to 5 (best). The" in model_card(
        task, FIGURES
    )
    card = model_card(replace(task, rubric=TRAINABLE), FIGURES)
    assert "noise: A, B, C, 10 (worst) to 1 (best)" in card
    assert "layout: bad, poor, fair, good, excellent, 1 (worst) to 5 (best)" in card
    shown = {"auc_shown": 0.75, "auc": 0.75, "mae_noise": 1.5, "srcc_layout": 0.5}
    card = model_card(replace(task, rubric=TRAINABLE), FIGURES | shown)
    assert "| dimension | PLCC | SRCC | AUC | MAE |" in card
    assert "| shown, 0 to 1 | – | – | 0.750 | – |" in card
    assert "| noise, 10 to 1 | – | – | – | 1.500 |" in card


def test_a_written_rubric_travels_with_its_decoding(qwen: Path, opinions: list[Opinion], tmp_path: Path) -> None:
    images = list(dict.fromkeys(row.path for row in opinions))
    task = make_writing_task(qwen, tmp_path, images, [3] * len(images))
    _, checkpoint = trained(task, tmp_path / "checkpoint")
    (checkpoint / PROGRESS).write_text(json.dumps(FIGURES | {PARSED: 0.75, "srcc_quality": 0.5, RANK: 0.375}))
    manifest = export(task, checkpoint, tmp_path / "out", {}).manifest
    assert manifest.rubric == RUBRIC_FILE
    assert manifest.golden == (), "it has learnt nothing, so nothing that it writes is parsed"
    assert load_assessor(str(tmp_path / "out"), threads=1).rubric == task.rubric
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`rated` (prompt version 1) in writing; a score is a number that the answer says" in card
    assert "Of 4 images, 75.0% of the answers could be parsed" in card
    assert "| quality | – | 0.500 |" in card


def test_a_ranked_export_is_calibrated_by_what_its_checkpoint_wrote(
    qwen: Path, opinions: list[Opinion], tmp_path: Path
) -> None:
    """Numbers of `quality` are a point above the opinions; there are none on `layout`. The base's own curves are not
    those of what was made of it."""
    base = Path(shutil.copytree(qwen, tmp_path / "base"))
    (base / "ranked.toml").write_text(RANKED)
    own = load_any_rubric(str(base / "ranked.toml"))
    old = Calibration(rubric=own.id, rubric_sha256=own.digest, images=30, curves={"layout": ((1, 5), (2, 4))})
    save_manifest(base, CheckpointManifest(rubric="ranked.toml", prompt_version=1, dtype="float32", calibration=old))
    task = make_ranking_task(base, opinions)
    numbers = [1 + i / 10 for i in range(MIN_IMAGES)]
    task = replace(task, rated=tuple(replace(task.rated[0], ratings={"quality": one}) for one in numbers))
    _, checkpoint = trained(task, tmp_path / "checkpoint")
    (checkpoint / SCORES).write_text(json.dumps([{"quality": one + 1, "layout": 3.0} for one in numbers]))
    found = export(task, checkpoint, tmp_path / "out", {})
    calibration = found.manifest.calibration
    assert calibration is not None
    assert [*calibration.curves] == ["quality"]
    assert found.manifest.fingerprint["calibration"] == calibration.digest
    assert read_manifest(tmp_path / "out") == found.manifest
    quality, layout = found.changes
    assert quality.mae == pytest.approx((1, 0), abs=0.05)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| quality | {MIN_IMAGES} | 1.000 | {quality.mae[1]:.3f} | " in card
    assert f"No curve for layout: {layout.reason}." in card
    plain = replace(task, ranking=task.ranking.model_copy(update={"calibrate": False}))
    uncalibrated = export(plain, checkpoint, tmp_path / "plain", {})
    assert (uncalibrated.manifest.calibration, uncalibrated.changes) == (None, ())
    assert "None: scores are given as they are written." in (tmp_path / "plain" / "README.md").read_text()


@pytest.mark.parametrize("name", ["interior-written-v1", "perception-v1"])
def test_shipped_written_rubrics_go_by_their_name_unless_they_are_decoded_otherwise(name: str, tmp_path: Path) -> None:
    rubric = load_any_rubric(name)
    assert isinstance(rubric, WrittenRubric)
    assert _rubric_name(rubric, tmp_path) == name
    other = rubric.model_copy(update={"decoding": rubric.decoding.model_copy(update={"max_new_tokens": 9})})
    assert _rubric_name(other, tmp_path) == RUBRIC_FILE
    assert load_any_rubric(str(tmp_path / RUBRIC_FILE)) == other
