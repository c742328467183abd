"""A base and the weights of a training checkpoint -> a checkpoint folder that `--assessor.checkpoint` takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.assessor.checkpoint.files import TOKENIZER, materialise
from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, read_manifest
from iqa_core.assessor.manifest_writing import write_manifest
from iqa_core.errors import RunError
from iqa_core.rubrics import AnyRubric, WrittenRubric, load_any_rubric, rubric_names, written_names
from iqa_core.training.card import CARD, model_card
from iqa_core.training.parts import apply_part_modes, merge_adapters, trainable
from iqa_core.training.ranking.calibrating import Change, calibrated
from iqa_core.training.task import PROGRESS, SCORES, WEIGHTS, TrainingTask

Dtype = Literal["float32", "bfloat16"]

RUBRIC_FILE = "rubric.toml"
"""File of the exported folder: a rubric that is not a shipped one."""
CONFIG_FILE = "training.json"
"""File of the exported folder: all settings of the training."""
SHARD = "4GB"
"""Largest file of weights."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What lies in an exported folder beside its files' names."""

    manifest: CheckpointManifest
    changes: tuple[Change, ...] = ()
    """What the calibration does to each attribute, where there was to be one."""


def export(
    task: TrainingTask, checkpoint: Path, output: Path, config: Mapping[str, Any], weights: Dtype | None = None
) -> Exported:
    """Write the trained weights, in the layout of the base, and all that scoring needs into an empty folder.

    checkpoint: folder of a training checkpoint. config: resolved settings, for people. weights: dtype of the stored
    weights, by default that of the training. The model will compute in the dtype of the base's assessor.toml, else in
    that of the weights. assessor.toml is written last: its existence means that the folder is complete.
    Raises CallerError when the base cannot be loaded, RunError when the weights are not those of this base, or the
    model gives no score.
    """
    base = materialise(task.base)
    model = _trained_model(task, base, checkpoint)
    dtype = weights or task.recipe.weights_dtype
    output.mkdir(parents=True, exist_ok=True)
    _save(model, dtype, output)
    _copy_texts(base, output)
    figures = json.loads((checkpoint / PROGRESS).read_text())
    calibration, changes = _calibration(task, checkpoint)
    (output / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (output / CARD).write_text(model_card(task, figures, changes), encoding="utf-8")
    manifest = read_manifest(base)
    written = write_manifest(
        output,
        _rubric_name(task.rubric, output),
        manifest.dtype if manifest else dtype,
        max_pixels=getattr(task.preparer, "max_pixels", None),
        limits=task.preparer.limits,
        calibration=calibration,
        device="cpu",
        threads=task.threads,
    )
    return Exported(written, changes)


def _calibration(task: TrainingTask, checkpoint: Path) -> tuple[Calibration | None, tuple[Change, ...]]:
    """What becomes of the export's scores, by what the checkpoint's model wrote about the rated images."""
    if not task.is_calibrated:
        return None, ()
    assert isinstance(task.rubric, WrittenRubric)
    return calibrated(task.rubric, task.rated, json.loads((checkpoint / SCORES).read_text()))


def _trained_model(task: TrainingTask, base: Path, checkpoint: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    from iqa_core.assessor.model.loading import load_model

    model = load_model(base, task.recipe.weights_dtype, "cpu", task.threads)
    apply_part_modes(model, task.recipe)
    parameters, values = trainable(model), load_file(checkpoint / WEIGHTS)
    if parameters.keys() != values.keys():
        differing = sorted(parameters.keys() ^ values.keys())
        raise RunError(
            f"checkpoint {checkpoint} was not trained from {task.base}: {differing[0]} is only in one of them"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
    merge_adapters(model)
    return model


def _save(model: Any, dtype: Dtype, output: Path) -> None:
    import torch

    model.to(getattr(torch, dtype)).save_pretrained(output, max_shard_size=SHARD)


def _copy_texts(base: Path, output: Path) -> None:
    """Copy the files of tokenizer, chat template and image processor unchanged."""
    for file in sorted(base.iterdir()):
        if file.is_file() and any(fnmatch(file.name, pattern) for pattern in TOKENIZER):
            shutil.copyfile(file, output / file.name)


def _rubric_name(rubric: AnyRubric, output: Path) -> str:
    """Name of a shipped rubric, or of the file into which any other one is written, with its system prompt."""
    if rubric.id in (*rubric_names(), *written_names()) and _is_same(rubric, load_any_rubric(rubric.id)):
        return rubric.id
    (output / RUBRIC_FILE).write_text("\n".join(_toml_lines(rubric)) + "\n", encoding="utf-8")
    return RUBRIC_FILE


def _is_same(rubric: AnyRubric, shipped: AnyRubric) -> bool:
    """Whether both ask the same, and have what is written decoded in the same way."""
    return rubric.digest == shipped.digest and getattr(rubric, "decoding", None) == getattr(shipped, "decoding", None)


def _toml_lines(rubric: AnyRubric) -> Iterator[str]:
    """Lines of a rubric's TOML file: what is set, values before tables."""
    values = rubric.model_dump(mode="json", exclude_defaults=True)
    if "slots" in rubric.model_fields_set:  # also none: braces in its queries are asked as they stand
        values["slots"] = list(rubric.slots)
    lists = {name: values.pop(name, []) for name in ("dimensions", "statements", "attributes", "opposites")}
    single = {name: values.pop(name, None) for name in ("checklist", "output", "decoding")}
    yield from (f"{name} = {_toml(value)}" for name, value in values.items())
    tables = [(f"[{name}]", table) for name, table in single.items() if table]
    tables += [(f"[[{name}]]", one) for name, rows in lists.items() for one in rows]
    for head, content in tables:
        yield from ("", head)
        yield from (f"{name} = {_toml(value)}" for name, value in content.items())


def _toml(value: Any) -> str:
    """Text of a value: JSON strings and numbers, and lists of them, are TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(name)} = {_toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
