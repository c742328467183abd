"""The golden checkpoint in tests/data -> itself loaded, its images, and what the upstream definition makes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iqa_core.assessor.ovis2_5.registration import register_ovis2_5

FOLDER = Path(__file__).resolve().parents[2] / "data" / "ovis2_5"

RUBRIC = """
id = "golden"
domain = "Tests."
prompt_version = 1
description = "What the golden cases ask, word for word."
system = "You are a helpful assistant."
answer_prefix = "The spatial aesthetic {dimension} quality level of this image is"
levels = ["bad", "poor", "fair", "good", "excellent"]
"""
DIMENSIONS = ("layout", "harmony", "lighting", "distortion")


def rubric_toml() -> str:
    """The golden cases' questions as a rubric."""
    query = "<{0}>Please evaluate the spatial aesthetic {0} quality level of this image."
    return RUBRIC + "".join(f'[[dimensions]]\nname = "{name}"\nquery = "{query.format(name)}"\n' for name in DIMENSIONS)


@dataclass
class Golden:
    """Loaded once; nobody changes it."""

    model: Any
    processor: Any

    @classmethod
    def load(cls) -> Golden:
        from transformers import AutoModelForImageTextToText

        from iqa_core.assessor.model.processors import load_processor

        register_ovis2_5()
        return cls(AutoModelForImageTextToText.from_pretrained(FOLDER).eval(), load_processor(FOLDER))

    @cached_property
    def cases(self) -> list[dict[str, Any]]:
        return list(json.loads((FOLDER / "expected.json").read_text())["cases"])

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        with np.load(FOLDER / "expected_tensors.npz") as file:
            return dict(file)

    @cached_property
    def pictures(self) -> list[Image.Image]:
        return [Image.open(FOLDER / case["image"]).convert("RGB") for case in self.cases]

    @cached_property
    def prompts(self) -> list[str]:
        """Written out by hand, as the description of the cases has them."""
        return [
            f"<|im_start|>system\n{case['system']}<|im_end|>\n<|im_start|>user\n{case['user']}<|im_end|>\n"
            f"<|im_start|>assistant\n{case['answer_prefix']}"
            for case in self.cases
        ]

    def inputs(self, *cases: int) -> Any:
        """What the model takes for these cases, in one batch."""
        return self.processor(
            text=[self.prompts[i] for i in cases],
            images=[[self.pictures[i]] for i in cases],
            padding=True,
            return_tensors="pt",
        )
