"""The flags of training by ranking, documented where they are defined, over the settings of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from iqa_core.training.ranking.recipe import PRESETS, RankingRecipe
from jobs.training.settings import RunSettings

Preset = Literal["attributes", "perception"]


class RankingSettings(RankingRecipe, RunSettings):  # type: ignore[misc]  # two dictionaries of one kind
    """Train an assessor that writes by the order of its own answers. Resumable; exports what --assessor.checkpoint
    takes."""

    text: list[Path] = Field(default_factory=list)
    """JSONL with query, response and image: what people wrote about images of --train, as answers to the rubric's
    question, for the reward `words`; may be repeated."""
    preset: Preset = "attributes"
    """Settings to begin with; what is given besides takes the place of theirs."""

    @property
    def recipe(self) -> RankingRecipe:
        """The preset with what was given in its place. Raises pydantic's ValidationError where that does not fit."""
        given = self.model_dump(exclude_unset=True, include=set(RankingRecipe.model_fields))
        return RankingRecipe.model_validate(_over(PRESETS[self.preset], given))

    def resolved(self) -> RankingSettings:
        """The same settings, with those of the preset among them. Raises as `recipe` does."""
        return self.model_copy(update={name: getattr(self.recipe, name) for name in RankingRecipe.model_fields})


def _over(known: BaseModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a model with those that were given in their place, settings inside of settings one by one."""
    found = dict(known)
    for name, value in given.items():
        inner = getattr(known, name)
        found[name] = _over(inner, value) if isinstance(inner, BaseModel) and isinstance(value, Mapping) else value
    return found
