"""A model -> parts by name, frozen, with low-rank updates, or in full; merged back it is one of its own kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from iqa_core.assessor.model.loading import load_model
from iqa_core.errors import CallerError
from iqa_core.training.parts import (
    ADAPTER,
    apply_part_modes,
    merge_adapters,
    part_of,
    require_trainable,
    set_training,
    trainable,
)
from iqa_core.training.recipe import Recipe

pytestmark = pytest.mark.slow


def prepared(folder: Path, **modes: Any) -> Any:
    model = load_model(folder, "float32", "cpu", 1)
    apply_part_modes(model, Recipe.model_validate(modes))
    return model


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.visual.blocks.0.attn.qkv.weight", "vision"),
        ("model.visual.merger.mlp.0.weight", "aligner"),
        ("model.visual.deepstack_merger_list.0.linear_fc1.weight", "aligner"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "language"),
        ("lm_head.weight", "language"),
        ("visual_tokenizer.vit.encoder.layers.0.mlp.fc1.weight", "vision"),
        ("vte.weight", "aligner"),
        ("llm.model.embed_tokens.weight", "language"),
        ("model.vision_model.encoder.layers.0.mlp.fc1.weight", "vision"),
        ("model.connector.modality_projection.proj.weight", "aligner"),
        ("model.vision_tower.encoder.layers.0.mlp.fc1.weight", "vision"),
        ("model.multi_modal_projector.linear_1.weight", "aligner"),
    ],
)
def test_parts_are_told_by_name(name: str, part: str) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize("checkpoint", ["qwen", "qwen3", "ovis", "idefics"])
def test_by_default_the_language_model_alone_learns(checkpoint: str, request: pytest.FixtureRequest) -> None:
    model = prepared(request.getfixturevalue(checkpoint))
    assert {part_of(name) for name in trainable(model)} == {"language"}
    assert {part_of(name) for name, _ in model.named_parameters()} == {"vision", "aligner", "language"}


def test_low_rank_updates_leave_the_model_as_it_was_and_merge_into_it(qwen: Path) -> None:
    plain = load_model(qwen, "float32", "cpu", 1)
    model = prepared(qwen, language="lora", vision="lora", lora_rank=2)
    assert trainable(model)
    assert all(ADAPTER in name for name in trainable(model))
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, plain(input_ids=ids).logits)
        for parameter in trainable(model).values():
            parameter.normal_(0, 0.2)
        taught = model(input_ids=ids).logits
        merge_adapters(model)
        assert not torch.allclose(taught, plain(input_ids=ids).logits)
        assert torch.allclose(model(input_ids=ids).logits, taught, atol=1e-4)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_the_output_matrix_gets_no_update(qwen: Path) -> None:
    assert not any("lm_head" in name for name in trainable(prepared(qwen, language="lora")))


def test_frozen_modules_stay_in_scoring_mode(qwen: Path) -> None:
    model = prepared(qwen)
    set_training(model)
    assert not model.model.visual.training
    assert model.model.language_model.layers[0].training


def test_nothing_to_train_is_refused(qwen: Path) -> None:
    with pytest.raises(CallerError, match="all parts are frozen"):
        prepared(qwen, language="frozen")
    with pytest.raises(CallerError, match="all parts are frozen"):
        require_trainable(qwen, Recipe(language="frozen"))


def test_a_base_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(CallerError, match="no model that could be trained"):
        require_trainable(tmp_path, Recipe())
