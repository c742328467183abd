"""The flags of the training jobs, documented where they are defined; light to import, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from iqa_core.training.recipe import Recipe
from iqa_core.training.split import SplitBy
from jobs.command import Lasting
from jobs.opinion_texts import OpinionTexts


class RunSettings(OpinionTexts):
    """Settings of every training: data, base, output and machines."""

    train: list[str] = Field(default_factory=list)
    """Annotations to learn from, as in jobs/evaluate_assessor.py; may be repeated. Never a test set."""
    validation: list[str] = Field(default_factory=list)
    """Annotations that choose the best checkpoint; default: a part carved out of what is learnt from."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the images that is carved out."""
    split_by: SplitBy = "image"
    """What lies whole in one part: an image, or all images of a group."""
    min_raters: int | None = Field(default=None, ge=1)
    """Leave out opinions of fewer raters."""
    max_std: float | None = Field(default=None, gt=0)
    """Leave out opinions whose standard deviation, on 1..5, is larger."""

    base: str = "demo"
    """Checkpoint to begin with: what --assessor.checkpoint takes."""
    rubric: str | None = None
    """Questions to train on; default: the ones that the base was trained on."""
    output: Lasting
    """Folder or prefix for checkpoints, figures and checkpoint/, the export; the same output resumes."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """JSON object passed to fsspec where the output is not local."""
    export_dtype: Literal["float32", "bfloat16"] | None = None
    """What the exported weights are stored in; default: what they were trained in."""

    max_pixels: int | None = Field(default=None, ge=1)
    """Pixels of the prepared image; default: what the base's processor says."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of a sample at most; a longer one is left out, or its image shrunk."""
    too_long: Literal["drop", "shrink"] = "drop"
    """What happens to a sample above --max-tokens; counted either way."""
    skip_unreadable: bool = False
    """Leave out samples whose image cannot be read, counted, instead of stopping before the start."""

    num_workers: int = Field(default=1, ge=1)
    """Processes that train together; a run goes on with the same number only."""
    worker_cpus: float = Field(default=1, gt=0)
    """CPUs reserved per worker."""
    worker_gpus: float = Field(default=0, ge=0)
    """GPUs reserved per worker: 0 or 1."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch per worker; default: --worker-cpus."""
    max_failures: int = Field(default=3, ge=0)
    """How often the workers are started anew from the last checkpoint before the run gives up."""
    ray_address: str | None = None
    """Ray cluster to run on; default: RAY_ADDRESS, else a Ray started for this run."""
    code_on_nodes: bool = False
    """Every node of that cluster has this checkout at the same path (an image, a shared disk): nothing is uploaded."""
    dry_run: bool = False
    """Print the resolved configuration and what would be trained; write nothing."""

    @property
    def torch_threads(self) -> int:
        """CPU threads of torch per worker."""
        return self.threads or max(1, int(self.worker_cpus))


class TrainSettings(Recipe, RunSettings):  # type: ignore[misc]  # two dictionaries of one kind
    """Fine-tune an assessor on people's opinions. Resumable at any point; exports what --assessor.checkpoint takes."""

    text: list[Path] = Field(default_factory=list)
    """JSONL with query, response and image: answers of any text to learn, beside --train or, with a written --rubric,
    in its place; may be repeated."""
    weight: list[str] = Field(default_factory=list)
    """name=number: how much a data set or a dimension counts in the loss; may be repeated."""
