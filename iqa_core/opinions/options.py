"""What stands behind the question mark of `--annotations` -> checked options of a reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import NumberRange

Options = TypeVar("Options", bound="FileOptions")


class FileOptions(BaseModel):
    """Options of every format."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    images: Path | None = None
    """Folder that relative image paths are relative to; default: see the format."""
    dataset: str | None = None
    """Name of the data set; default: the file's."""
    group: str | None = None
    """Column that says what must not be split; default: see the format."""


class ScaleOptions(FileOptions):
    """Options of formats that do not say what their numbers mean."""

    worst: float | None = None
    best: float | None = None
    """Below `worst` where lower is better."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.worst is None) != (self.best is None) or (self.worst is not None and self.worst == self.best):
            raise ValueError("worst and best are two different numbers, given together")
        return self

    @property
    def scale(self) -> NumberRange | None:
        """The range of the file's numbers; None where it was not given."""
        return None if self.worst is None or self.best is None else NumberRange(self.worst, self.best)


def parsed(kind: type[Options], options: Mapping[str, str], address: str) -> Options:
    """The options, checked. Raises CallerError, which names an option that is unknown or of no use."""
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors())
        raise CallerError(f"annotations {address}: {faults}; options are {', '.join(kind.model_fields)}") from None
