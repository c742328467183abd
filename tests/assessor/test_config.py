"""The settings under --assessor."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from iqa_core.assessor.config import AssessorConfig


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in AssessorConfig.model_fields.values())


@pytest.mark.parametrize(
    "values",
    [
        {"chekpoint": "demo"},
        {"dtype": "float16"},
        {"device": "tpu"},
        {"max_pixels": 0},
        {"batch_tokens": 0},
        {"timeout_s": 0},
        {"threads": 0},
    ],
)
def test_a_wrong_setting_is_an_error(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AssessorConfig(**values)
