"""The flags of the selection job, documented where they are defined; light to import, so that --help is quick."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from jobs.command import JobSettings, Lasting


class SelectSettings(JobSettings):
    """Choose images by their scores: one decision per image, exports of what is kept, and a report."""

    scores: list[str] = Field(min_length=1)
    """Output of a scoring run; repeatable, as name=URI where tables are joined."""
    output: Lasting
    """Folder or prefix for decisions/, selection.json, report/ and exports; the same output resumes."""
    combine: Literal["stack", "join"] | None = None
    """Several tables: one below the other, or joined on (source, key)."""
    grounding: str | None = None
    """Output of ground_corpus.py over these images: columns for --where and rules, regions for some exports; default:
    what score_corpus.py --ground put beside the scores."""
    fusion: Path | None = None
    """TOML with weights to compute the reward with anew; default: the reward of the table."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """JSON object passed to fsspec for URIs that are not local."""

    where: str | None = None
    """SQL condition over the columns, as reward > 3.5 AND distortion > 2."""
    dedup: bool = False
    """Keep the best of images with the same bytes, and the same texts where the rubric has slots."""
    quantile: list[str] = Field(default_factory=list)
    """column=q: keep what is at least the q-quantile of that column; may be repeated."""
    best_of: int | None = Field(default=None, ge=1)
    """Keep the n best of each group (--per)."""
    top_fraction: Decimal | None = Field(default=None, gt=0, le=1)
    """Keep this share of the best, rounded up to whole images."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep this many of the best."""
    balance: str | None = None
    """Keep as many of each value of this column as its rarest has."""
    per: list[str] = Field(default_factory=list)
    """Column to group by, for every rule that ranks; or rule=column (best-of=prompt) for one; may be repeated."""
    seed: int = Field(default=0, ge=0)
    """Which images --balance leaves out."""
    sampling_weights: bool = False
    """Write a soft weight per image: exp((reward - best) / temperature)."""
    temperature: float = Field(default=0.5, gt=0)
    """Temperature of --sampling-weights, in units of the reward; lower favours the best more."""

    export: list[str] = Field(default_factory=list)
    """What to write of what is kept: webdataset, imagefolder, parquet, list, coco or label-studio; may be
    repeated."""
    caption_column: str | None = None
    """Carried column that is the caption: .txt of webdataset, `caption` of list."""
    shard_images: int = Field(default=1000, ge=1)
    """Images of one exported file or folder."""
    allow_missing: bool = False
    """Export without the originals that were moved, deleted or changed since they were scored."""
    ray_address: str | None = None
    """Ray cluster to export on; default: RAY_ADDRESS, else a Ray started for this run."""
    code_on_nodes: bool = False
    """Every node of that cluster has this checkout at the same path (an image, a shared disk): nothing is uploaded."""
    stall_timeout_s: float = Field(default=1800, gt=0)
    """Seconds without any shard after which an export ends, resumable."""

    report: bool = True
    """Write report.html; --no-report leaves it out."""
    memory_gib: float = Field(default=4.0, gt=0)
    """Memory of the engine; beyond, it spills to the temporary folder."""
    dry_run: bool = False
    """Print the policy and the counts; write nothing."""
