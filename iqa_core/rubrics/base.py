"""What a rubric of any kind has: an id, slots for texts, columns of scores, and a digest of what reaches the model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from iqa_core.questions import STATEMENT, Column, placeholders

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


def _slot_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == STATEMENT:
        raise ValueError(f"{name!r} is not a lower-case identifier, or is {STATEMENT!r}")
    return name


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


Text = Annotated[str, AfterValidator(_text)]
ColumnName = Annotated[str, AfterValidator(_free_column_name)]


class Model(BaseModel):
    """A part of a rubric's file: a frozen value without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BaseRubric(Model):
    """What every kind of rubric has."""

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
    slots: tuple[Annotated[str, AfterValidator(_slot_name)], ...] = ()
    """Names of texts that come with each image: `{prompt}` in a query is replaced by the text called prompt.

    Without any, braces in the queries of level words are asked as they stand."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The rubric with other values, not validated; what is made of them once, such as its digest, is its own.

        pydantic would keep what was made of the original.
        """
        copied = super().model_copy(update=update, deep=deep)
        for made in vars(copied).keys() - type(self).model_fields.keys():
            del vars(copied)[made]
        return copied

    @property
    def asked_texts(self) -> tuple[tuple[str, str], ...]:
        """Each query, with its placeholders in it, and the beginning of its answer."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of scores, in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What becomes of the answers, in order."""
        raise NotImplementedError

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, over what reaches the model or names a score; descriptions and weights do not count."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        """What the digest is over, as JSON values."""
        raise NotImplementedError

    def _check_slots(self, found: set[str], is_verbatim: bool) -> None:
        """Raises ValueError for slots that are not the placeholders found in what is asked behind the image."""
        if len(set(self.slots)) != len(self.slots):
            raise ValueError(f"slots must differ: {self.slots}")
        if in_system := sorted(set(self.slots) & set(placeholders(self.system or ""))):
            raise ValueError(f"system has {{{in_system[0]}}} in it: a text stands behind the image, in a query")
        if unused := sorted(set(self.slots) - found):
            raise ValueError(f"slots: no query has {{{unused[0]}}} in it")
        if not is_verbatim and (unknown := sorted(found - set(self.slots))):
            raise ValueError(
                f"a query has {{{unknown[0]}}} in it, which is no slot: add it to slots, or correct it; "
                "slots = [] asks it as it stands"
            )
