"""Checkpoints without views are refused by their files alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe
from iqa_core.assessor.viewed import require_views
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits


def test_a_model_is_refused_by_its_family_its_layers_or_its_rubric(tmp_path: Path) -> None:
    demo = describe(AssessorConfig(checkpoint="demo"), None, ImageLimits())
    require_views(demo, "demo")
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text("{}")
    for config, said in (
        ({"model_type": "internvl"}, "a question to internvl cannot be kept"),
        ({"model_type": "qwen2_5_vl", "use_sliding_window": True}, "qwen2_5_vl with sliding windows"),
        ({"model_type": "qwen2_5_vl", "text_config": {"layer_types": ["sliding_attention"]}}, "sliding windows"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CallerError, match=said):
            require_views(demo, str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    require_views(demo, str(tmp_path))
    fake = describe(AssessorConfig(checkpoint="fake:"), None, ImageLimits())
    with pytest.raises(CallerError, match="cannot be kept"):
        require_views(replace(demo, preparer=fake.preparer), str(tmp_path))
    with pytest.raises(CallerError, match=r"fake:\?view_px=8"):
        require_views(fake, "fake:")
    require_views(fake, "fake:?view_px=8")
    written = describe(AssessorConfig(checkpoint="fake:"), "interior-written-v1", ImageLimits())
    with pytest.raises(CallerError, match="interior-written-v1 is written"):
        require_views(written, "fake:?view_px=8")
