"""Configuration -> validated settings of the endpoint.

The keys stand under `args:` of an application in a Serve config file, or behind `serve run serve.app:app` as
`key=value` (`assessor.checkpoint=…` for nested ones). Unknown keys are errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iqa_core.assessor.config import AssessorConfig
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits
from iqa_core.slots import TextLimits, TooLong
from serve.uri_rules import UriRule

MAX_TEXT = 16_384
"""Characters of a prompt, and of all texts of one image: far more than any text encoder reads."""

RENAMED = {
    "decode_threads": "give decoders, the number of processes that decode",
    "max_pending_pixels": "give max_decode_bytes: about 7 bytes for each pixel that is decoded at once",
}
"""Names that settings had, and what to give instead."""


class ServeSettings(BaseModel):
    """Everything about an endpoint but its secrets, its address, and how it scales (`deployments:` in config.yaml)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    assessor: AssessorConfig = AssessorConfig(timeout_s=60)
    rubric: str | None = None
    """Name of a rubric or path of its TOML; default: the one that the checkpoint was trained on."""
    rubrics: tuple[str, ...] = ()
    """Several instead, all on one model in memory: a request's `rubric` chooses one by its id, and a request without is
    asked by the first. On a command line with commas between them."""
    fusion: Path | dict[str, Path] | None = None
    """TOML with fusion weights, with several rubrics one for each that has any, by id: `{interior-v4: weights.toml}`;
    default: the rubric's own weights, which are equal unless it says otherwise."""
    min_side: int = Field(default=ImageLimits().min_side, ge=1)
    max_image_pixels: int = Field(default=ImageLimits().max_pixels, ge=1)
    max_image_bytes: int = Field(default=ImageLimits().max_bytes, ge=1)
    """The three limits of the scoring job: other values are another fingerprint."""
    slot_chars: int = Field(default=TextLimits().max_chars, ge=1, lt=MAX_TEXT)
    """Characters of a text that a rubric's slot takes, such as a prompt."""
    slot_too_long: TooLong = TextLimits().too_long
    """What happens to a longer one: its image is `too_large` (refuse), or its beginning is asked about (cut)."""

    open: bool = False
    """Answers whoever reaches it, without tokens and on any address: for where something in front asks who may."""
    replicas: int = Field(default=1, ge=1)
    """Processes with the assessor under `serve run`; in a config file `deployments:` says it, with bounds."""
    max_images: int = Field(default=64, ge=1)
    """Images of one request."""
    max_body_bytes: int = Field(default=64 * 2**20, ge=1024)
    """Bytes of one request's body; a larger one is refused before it is read. Half of max_pending_bytes at most."""
    max_requests: int = Field(default=256, ge=1)
    """Requests that one ingress answers at once, as many again whose bodies are on their way, as many without a body;
    more are told to come back (429). Half of these, and of all that follows, is the most that one caller has."""
    body_grace_s: float = Field(default=10, gt=0)
    """Seconds for a body, and one more for each 16 KiB of it that has come; then it is given up (408)."""
    max_pending_bytes: int = Field(default=512 * 2**20, ge=2048)
    """Bytes of bodies that one ingress holds at once, as far as they have come; more are told to come back (429)."""
    max_decode_bytes: int = Field(default=768 * 2**20, ge=1)
    """Memory for decoding images and for the pixels that the assessor is to see, in one ingress; images wait for their
    turn."""
    decoders: int = Field(default=4, ge=1)
    """Processes that decode, of one ingress; an image has one for itself."""
    decode_timeout_s: float = Field(default=5, gt=0)
    """Seconds of the CPU that decoding an image may take, for each 25 million of its pixels, and six times as many by
    the clock; what takes longer is `corrupt`."""
    max_waiting_images: int = Field(default=1024, ge=1)
    """Images queued in front of one replica; more are told to come back (429)."""
    request_timeout_s: float = Field(default=120, gt=0)
    """Seconds after which an answer is given up (503)."""
    retry_after_s: int = Field(default=1, ge=1)
    """Seconds after which a caller who is turned away is told to come back."""
    dialects: tuple[Literal["flow_grpo"], ...] = ()
    """Dialects that are spoken beside those of UniRL and Flow-Factory: flow_grpo reads and writes pickles of plain
    values (`POST /flow_grpo`)."""
    uri_allow: tuple[str, ...] = ()
    """Prefixes of the URIs that may be fetched for a caller, such as https://images.example.org/ or s3://bucket/made/."""
    uri_timeout_s: float = Field(default=20, gt=0)
    """Seconds that one of them may take, from the look-up of its name to its last byte."""
    max_fetches: int = Field(default=16, ge=1)
    """URIs that one ingress fetches at once, half of them at most for one caller; others wait for their turn."""

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, given: Any) -> Any:
        """`assessor.checkpoint=demo`, as a command line has it."""
        if not isinstance(given, Mapping):
            return given
        nested: dict[str, Any] = {key: value for key, value in given.items() if "." not in key}
        for key, value in given.items():
            head, dot, tail = key.partition(".")
            if dot:
                inner = nested.get(head, {})
                nested[head] = {**(inner if isinstance(inner, dict) else inner.model_dump()), tail: value}
        return nested

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        for old, now in RENAMED.items():
            if isinstance(given, Mapping) and old in given:
                raise ValueError(f"{old} is no setting; {now}")
        return given

    @field_validator("rubrics", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_or_several_rubrics(self) -> ServeSettings:
        if self.rubric is not None and self.rubrics:
            raise ValueError("give either rubric or rubrics: among rubrics, the first is the default")
        return self

    @model_validator(mode="after")
    def _a_body_fits(self) -> ServeSettings:
        if 2 * self.max_body_bytes > self.max_pending_bytes:
            raise ValueError(
                f"max_body_bytes of {self.max_body_bytes} is more than half of max_pending_bytes, which is what one "
                f"caller may hold; raise max_pending_bytes to {2 * self.max_body_bytes} or lower max_body_bytes"
            )
        return self

    @field_validator("uri_allow")
    @classmethod
    def _rules(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in given:
            UriRule.parse(prefix)
        return given

    @property
    def limits(self) -> ImageLimits:
        """The limits on an image, which are part of the fingerprint."""
        return ImageLimits(self.min_side, self.max_image_pixels, self.max_image_bytes)

    @property
    def text_limits(self) -> TextLimits:
        """The limits on a text of an image."""
        return TextLimits(self.slot_chars, self.slot_too_long)


def parse(given: Mapping[str, Any]) -> ServeSettings:
    """Settings from the keys of a config file or command line. Raises CallerError that names the key and its bound."""
    try:
        return ServeSettings.model_validate(given)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise CallerError(f"settings of the endpoint: {faults}") from None
