"""Released settings -> the model's, and back in the released words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iqa_core.assessor.ovis2_5.configuration import Ovis2_5Config, Ovis2_5VisionConfig
from tests.assessor.ovis2_5.golden import FOLDER

pytestmark = pytest.mark.slow

RELEASED = json.loads((FOLDER / "config.json").read_text())


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Keys of `expected` that `found` lacks or has another value for, at any depth."""
    if not isinstance(expected, dict):
        return [] if expected == found else [f"{where}: {expected!r} != {found!r}"]
    return [
        fault
        for key, value in expected.items()
        for fault in (differences(value, found[key], f"{where}.{key}") if key in found else [f"{where}.{key} is lost"])
    ]


def test_a_saved_configuration_has_every_released_key_and_value() -> None:
    """Also those that only other readers use: auto_map, rope_theta, torch_dtype, the architecture's name."""
    saved = json.loads(Ovis2_5Config(**json.loads(json.dumps(RELEASED))).to_json_string())
    assert differences(RELEASED, saved) == []
    assert "rope_parameters" not in saved["llm_config"]
    assert "dtype" not in saved


def test_what_was_saved_is_read_alike() -> None:
    first = Ovis2_5Config(**json.loads(json.dumps(RELEASED)))
    again = Ovis2_5Config(**json.loads(first.to_json_string()))
    assert again.to_json_string() == first.to_json_string()
    assert again.llm_config.rope_parameters["rope_theta"] == 1_000_000


def test_another_kind_of_rotary_positions_survives() -> None:
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 20480}
    config = Ovis2_5Config(**{**RELEASED, "llm_config": {**RELEASED["llm_config"], "rope_scaling": dict(yarn)}})
    saved = json.loads(config.to_json_string())["llm_config"]
    assert saved["rope_theta"] == 1_000_000
    assert differences(yarn, saved["rope_scaling"]) == []


def test_the_language_model_is_found_as_in_other_models() -> None:
    config = Ovis2_5Config(**json.loads(json.dumps(RELEASED)))
    assert config.get_text_config().vocab_size == 448
    assert config.image_token_id < 0


@pytest.mark.parametrize(("indexes", "full"), [(None, {0, 1, 2, 3}), ("", {0, 1, 2, 3}), ("3", {3}), ("0|2", {0, 2})])
def test_full_layers_are_listed_with_bars(indexes: str | None, full: set[int]) -> None:
    assert Ovis2_5VisionConfig(num_hidden_layers=4, fullatt_block_indexes=indexes).full_layers == full


@pytest.mark.parametrize(
    ("name", "value"), [("patch_size", 14), ("hidden_stride", 1), ("use_rope", False), ("temporal_patch_size", 2)]
)
def test_a_setting_that_would_be_ignored_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"vit_config.{name} is {value}"):
        Ovis2_5VisionConfig(**{name: value})


def test_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size is 65"):
        Ovis2_5Config(**{**RELEASED, "hidden_size": 65})
