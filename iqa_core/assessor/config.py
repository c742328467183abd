"""Which assessor, and how it runs: the settings that jobs and the endpoint have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class AssessorConfig(BaseModel):
    """Settings of an assessor. The rubric is not among them: it belongs to the job."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    checkpoint: str = "demo"
    """Local folder, hub id (org/name[/folder]), fsspec URI (copied once per node), `demo`, `demo-written`, or `fake:`
    (no model)."""
    engine: str = "transformers"
    """What computes answers: transformers here, or openai:URL, a server of chat completions (vLLM, SGLang) that serves
    the checkpoint; written rubrics only."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the model computes in; auto is what assessor.toml says, else config.json, never what the hardware likes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is cuda where torch sees one, else cpu."""
    num_gpus: float | None = Field(default=None, gt=0)
    """GPUs of one assessor, on one node: 0.5 shares one between two, 2 spreads the model over two; None is one."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Pixels of the prepared image; larger ones are scaled down. None is what assessor.toml or the processor says."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Tokens of one batch, all dimensions together: 8192 is 16 images of the demo checkpoint. GPUs want more."""
    decode_rows: int | None = Field(default=None, ge=1)
    """Samples of a written rubric that are written at once; None is what fits into memory, up to 256."""
    timeout_s: float = Field(default=300, gt=0)
    """Seconds that one batch may take before its process is ended and its images are tried one by one."""
    timeout_per_image_s: float = Field(default=5, ge=0)
    """Seconds more for each image of a batch that a written rubric is asked about."""
    timeout_per_100_tokens_s: float = Field(default=60, ge=0)
    """Seconds more for each 100 tokens that an answer to a written rubric may have."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch per actor; None is the number of usable CPUs."""

    @field_validator("engine")
    @classmethod
    def _known(cls, given: str) -> str:
        if given != "transformers" and not given.startswith("openai:"):
            raise ValueError("transformers, or openai:URL of a server such as openai:http://localhost:8000/v1")
        return given

    @property
    def is_served(self) -> bool:
        """Whether a server computes the answers, and nothing is loaded here."""
        return self.engine != "transformers"

    @field_validator("num_gpus")
    @classmethod
    def _whole_above_one(cls, given: float | None) -> float | None:
        if given is not None and given > 1 and given != int(given):
            raise ValueError("a share of one GPU, or a whole number of them")
        return given
