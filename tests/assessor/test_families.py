"""The names in the tables of families against those of the installed transformers: a wrong one would be no error."""

from __future__ import annotations

import pytest
import transformers
from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES

from iqa_core.assessor.families import OVIS2_5, PACKED_DECODERS, QWEN2_VL, TILED

pytestmark = pytest.mark.slow


def test_every_model_type_is_one_of_transformers() -> None:
    assert {*QWEN2_VL, *TILED, *PACKED_DECODERS} - CONFIG_MAPPING_NAMES.keys() == set()


def test_every_image_processor_is_one_of_transformers() -> None:
    assert [name for family in TILED.values() if not hasattr(transformers, name := family.image_processor)] == []


def test_ovis2_5_is_ours_because_transformers_has_none() -> None:
    assert OVIS2_5 not in CONFIG_MAPPING_NAMES
