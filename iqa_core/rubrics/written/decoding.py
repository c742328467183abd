"""How a model writes its answers: every setting, since none is taken from a checkpoint's generation_config.json."""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from iqa_core.rubrics.base import Model, Text


class Decoding(Model):
    """Settings of decoding. A value that turns a setting off is its default, and what would be ignored is refused."""

    samples: int = Field(default=1, ge=1, le=64)
    """Answers per image; scores are their mean."""
    temperature: float = Field(default=0, ge=0, le=10)
    """0 takes the likeliest token at each step."""
    top_k: int = Field(default=0, ge=0)
    """Tokens that are drawn from at each step, the likeliest ones; 0: all."""
    top_p: float = Field(default=1, gt=0, le=1)
    """Share of probability of the likeliest tokens, which are drawn from; 1: all."""
    min_p: float = Field(default=0, ge=0, lt=1)
    """Probability below which a token is not drawn, as a share of the likeliest token's; 0: none."""
    repetition_penalty: float = Field(default=1, gt=0, le=10)
    """Logits of tokens of prompt and answer are divided by it where positive, else multiplied; 1: neither."""
    presence_penalty: float = Field(default=0, ge=-10, le=10)
    """Taken off the logits of tokens that the answer has already; 0: nothing."""
    max_new_tokens: int = Field(default=512, ge=1, le=32768)
    """Tokens after which an answer is cut."""
    stop: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    """Texts that end an answer, and stay in it."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Part of the key of the noise that samples are drawn by."""
    suppress_image: bool = True
    """Never write the placeholder of an image."""
    readout: Literal["parsed", "expected"] = "parsed"
    """How a number is read: as it is written, or as the mean of the distribution over digits at its place."""

    @model_validator(mode="after")
    def _none_is_ignored(self) -> Self:
        if self.temperature:
            return self
        if self.samples > 1:
            raise ValueError(f"samples = {self.samples} at temperature 0 are all the same; set a temperature")
        for name in ("top_k", "top_p", "min_p", "seed"):
            if getattr(self, name) != Decoding.model_fields[name].default:
                raise ValueError(f"{name} would be ignored at temperature 0; set a temperature, or leave it out")
        return self

    def describe(self) -> str:
        """All settings in one line, as the fingerprint has them."""
        return " ".join(f"{name}={_shown(value)}" for name, value in self.model_dump(mode="json").items())


def _shown(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)
