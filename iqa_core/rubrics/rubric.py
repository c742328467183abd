"""What a rubric is: the questions an assessor asks, and the rules that they keep."""

from __future__ import annotations

import hashlib
import json
import re
import string
from functools import cached_property
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from iqa_core.records import FIVE_LEVELS

RESERVED_NAMES = frozenset(
    "key source sha256 offset length row width height format frames status reason detail reward json txt".split()
)
"""Columns of the score table that a dimension may not be called."""

RESERVED_AFFIXES = re.compile(r"input_.*|.*_(std|probs)")
"""Names that the score table derives from others: `input_<carried>`, `<dimension>_std`, `<dimension>_probs`."""


def _free_column_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"{name!r} is not a lower-case identifier")
    if name in RESERVED_NAMES or RESERVED_AFFIXES.fullmatch(name):
        raise ValueError(f"{name!r} clashes with a column of the score table; choose another name")
    return name


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _answer_prefix(template: str) -> str:
    """A level word follows after one space, so the template itself ends without one."""
    fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template)]
    if any(field not in {(None, None, None), ("dimension", "", None)} for field in fields):
        raise ValueError("{dimension} is the only placeholder; write { as {{")
    if template != template.rstrip():
        raise ValueError("must not end with white space: the level word brings its own")
    return _text(template)


Text = Annotated[str, AfterValidator(_text)]

TAG = re.compile(r"<\w+>")
"""Such as `<lighting>`: part of a format, not a word."""


class RubricDimension(BaseModel):
    """One quality that is judged."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, AfterValidator(_free_column_name)]
    """Column of the score table, and what `{dimension}` stands for in the answer prefix."""
    query: Text
    """What the model is asked, verbatim; any tag such as `<lighting>` is part of it."""
    paraphrases: tuple[Text, ...] = ()
    """Other wordings of the query, which training may draw from; scoring never does."""
    description: str = ""
    """One sentence for people; not shown to the model."""

    @model_validator(mode="after")
    def _other_words(self) -> Self:
        wordings = (self.query, *self.paraphrases)
        if len(set(wordings)) != len(wordings):
            raise ValueError(f"paraphrases of {self.name} must differ from its query and from one another")
        if any(TAG.findall(wording) != TAG.findall(self.query) for wording in wordings):
            raise ValueError(f"paraphrases of {self.name} must have the tags of its query: {TAG.findall(self.query)}")
        return self


class Rubric(BaseModel):
    """Dimensions, the questions about them, and the beginning of the answer that a level word completes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    id: Text
    """Travels with every score."""
    domain: Text
    """Which images the rubric is meant for, in one line."""
    prompt_version: int = Field(ge=1)
    """Version of the wording within a family of rubrics."""
    description: Text
    """What the rubric is and where it comes from."""
    system: str | None = None
    """System prompt; None leaves it to the model's chat template."""
    answer_prefix: Annotated[str, AfterValidator(_answer_prefix)]
    """Beginning of the answer, up to the level word; `{dimension}` is replaced by the dimension's name."""
    levels: tuple[Text, ...]
    """Five words, worst to best, worth 1 to 5."""
    dimensions: tuple[RubricDimension, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        wanted = FIVE_LEVELS.num_levels
        if len(self.levels) != wanted or len(set(self.levels)) != wanted:
            raise ValueError(f"levels must be {wanted} distinct words, worst to best, not {self.levels}")
        if any(word != word.strip() for word in self.levels):
            raise ValueError(f"levels must have no white space around them: {self.levels}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"dimension names must differ: {self.names}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Dimension names, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    def answer_start(self, dimension: RubricDimension) -> str:
        """The forced beginning of the answer; a space and a level word complete it."""
        return self.answer_prefix.format(dimension=dimension.name)

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, over what reaches the model or names a score; descriptions and paraphrases do not count."""
        content = {
            "system": self.system,
            "answer_prefix": self.answer_prefix,
            "levels": self.levels,
            "dimensions": [(dimension.name, dimension.query) for dimension in self.dimensions],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
