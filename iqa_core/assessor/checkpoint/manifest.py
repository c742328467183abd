"""assessor.toml beside a checkpoint's weights <-> what the checkpoint was trained for, and which scores it gives."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.errors import CallerError
from iqa_core.records import RATING, ImageLimits, ScoreRange

FILE = "assessor.toml"

LimitName = Literal["min_side", "max_pixels", "max_bytes"]


GOLDEN_STEP = 1e-4
"""Golden scores are rounded to four decimals, which may lift one over an end of its range that has more."""


class GoldenScores(BaseModel):
    """Expected scores of one bundled image."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    image: str
    """One of `iqa_core.assessor.samples.SAMPLES`."""
    scores: dict[str, float]
    """Dimension -> expected score."""
    text_sha256: Annotated[str, Field(min_length=64, max_length=64)] | None = None
    """SHA-256, hex, of the text in UTF-8, where the rubric is written."""


class CheckpointManifest(BaseModel):
    """assessor.toml, beside a checkpoint's weights: what it was trained for, and which scores it gives."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rubric: str
    """Name of a rubric, or the name of a .toml file in the checkpoint's folder."""
    prompt_version: int
    """Prompt version of that rubric; a rubric of another version is refused."""
    dtype: Literal["float32", "bfloat16"]
    """What the model computes in."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Pixels of the prepared image; None is the processor's own bound."""
    domain: Annotated[str, Field(min_length=1)] | None = None
    """Which images the checkpoint knows, in one line, where that is less than its rubric is meant for. For people."""
    trained_on: Literal["sentence", "level"] = "sentence"
    """Whether the model was trained on the whole answer sentence or on the level word alone, behind a sentence that is
    begun for it; `check` expects no more of its own answers."""
    limits: dict[LimitName, Annotated[int, Field(ge=1)]] = {}
    """Bounds on the encoded image where they are not the default ones (`iqa_core.records.ImageLimits`)."""
    fingerprint: dict[str, str] = {}
    """Parts of the checkpoint's fingerprint when this was written; loading compares those of its files and rubric."""
    ranges: dict[str, tuple[float, float]] = {}
    """Worst and best end of the dimensions that have others than 1 and 5; golden scores lie between them."""
    calibration: Calibration | None = None
    """What becomes of scores that are written under its rubric; golden scores are those that are given."""
    golden: tuple[GoldenScores, ...] = ()
    """Expected scores; loading compares them unless a flag changes a part of the fingerprint."""

    @model_validator(mode="after")
    def _golden_scores_have_an_origin(self) -> Self:
        if self.golden and not self.fingerprint:
            raise ValueError("golden scores need the [fingerprint] that they were made with")
        return self

    @model_validator(mode="after")
    def _golden_scores_are_possible(self) -> Self:
        for entry in self.golden:
            for name, score in entry.scores.items():
                ends = ScoreRange(*self.ranges[name]) if name in self.ranges else RATING
                if not ends.low - GOLDEN_STEP <= score <= ends.high + GOLDEN_STEP:
                    raise ValueError(
                        f"golden score {score:g} of {name} in {entry.image} should be greater than or equal to "
                        f"{ends.low:g} and less than or equal to {ends.high:g}"
                    )
        return self

    @property
    def image_limits(self) -> ImageLimits:
        """The default limits with those of `limits` in their place."""
        return ImageLimits(**self.limits)

    def to_toml(self) -> str:
        """The text of assessor.toml."""
        return "\n".join(_lines(self)) + "\n"


def read_manifest(folder: Path) -> CheckpointManifest | None:
    """A checkpoint's assessor.toml, or None when it has none. Raises CallerError when it is malformed."""
    path = folder / FILE
    try:
        return CheckpointManifest.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CallerError(f"{path}: {faults}") from None
    except (ValueError, RecursionError) as error:
        raise CallerError(f"{path} is not TOML: {error}") from None


def save_manifest(folder: Path, manifest: CheckpointManifest) -> None:
    """Write assessor.toml in one step: a reader sees the old file or the new one."""
    temporary = folder / f"{FILE}.{os.getpid()}"
    temporary.write_text(manifest.to_toml(), encoding="utf-8")
    temporary.replace(folder / FILE)


def _lines(manifest: CheckpointManifest) -> Iterator[str]:
    """Lines of the file, without values that are at their defaults; a JSON string is a TOML string."""
    values = manifest.model_dump(mode="json", exclude_defaults=True)
    tables = {name: values.pop(name, None) for name in ("limits", "fingerprint", "ranges")}
    calibration, golden = values.pop("calibration", None), values.pop("golden", [])
    yield from (f"{name} = {json.dumps(value)}" for name, value in values.items())
    for name, table in tables.items():
        if table:
            yield from ("", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()))
    if calibration:
        curves = calibration.pop("curves")
        yield from ("", "[calibration]", *(f"{name} = {json.dumps(value)}" for name, value in calibration.items()))
        yield from ("", "[calibration.curves]", *(f"{name} = {json.dumps(points)}" for name, points in curves.items()))
    for entry in golden:
        scores = ", ".join(f"{name} = {score:.4f}" for name, score in entry["scores"].items())
        yield from ("", "[[golden]]", f"image = {json.dumps(entry['image'])}", f"scores = {{ {scores} }}")
        if digest := entry.get("text_sha256"):
            yield f"text_sha256 = {json.dumps(digest)}"
