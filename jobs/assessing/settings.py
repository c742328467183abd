"""The flags of every job that takes images through an assessor; light to import, so that --help is quick."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from iqa_core.assessor.config import AssessorConfig
from iqa_core.slots import MAX_CHARS
from jobs.command import JobSettings, Lasting


class AssessSettings(JobSettings):
    """Which images, which assessor, on which cluster."""

    input: list[Lasting] = Field(min_length=1)
    """Folder, prefix, image, .tar, .parquet, saved data set, .csv / .jsonl list of URIs, or rows of a score table as
    scores:OUTPUT?where=CONDITION; may be repeated."""
    output: Lasting
    """Folder or prefix for the job's tables, plan/ and run.json; the same output resumes."""
    rubric: str | None = None
    """Name, path of a TOML, or sa-bench:<annotations>?prompt=4; default: the one that the checkpoint was trained on."""
    assessor: AssessorConfig = AssessorConfig()

    report: bool = True
    """Write report.html at the end; --no-report leaves it out."""
    check: bool = True
    """Look for silent faults of the checkpoint on a few bundled images first; --no-check saves some seconds."""
    strict_check: bool = False
    """Refuse to start when that finds a fault, instead of a warning."""

    image_column: str | None = None
    """Column with image bytes, or a struct of bytes and path."""
    uri_column: str | None = None
    """Column with URIs of images."""
    id_column: str | None = None
    """Column that becomes `key`."""
    carry: list[str] = Field(default_factory=list)
    """name:type of a JSON sidecar's field, or of a list's column, to carry along typed; may be repeated."""
    slot: list[str] = Field(default_factory=list)
    """slot=column whose text fills a slot of the rubric, by default the column of its own name; may be repeated."""
    slot_too_long: Literal["refuse", "cut"] = "refuse"
    """What to do with a text of more than --slot-chars: reject its image, or ask about the text's beginning."""
    slot_chars: int = Field(default=MAX_CHARS, ge=1)
    """Characters of a slot's text at most."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """JSON object passed to fsspec for URIs that are not local."""
    on_changed: Literal["stop", "ignore", "rescore"] = "stop"
    """What to do when a planned source was replaced or vanished."""
    scan: bool = True
    """--no-scan trusts the plan as it is, without listing the input again."""

    chunk_images: int = Field(default=1024, ge=1)
    """Images per chunk, which is one file of a table; fixed for the life of an output."""
    limit: int | None = Field(default=None, ge=1)
    """Take whole chunks up to at least this many images; a later run goes on."""
    min_side: int | None = Field(default=None, ge=1)
    """Pixels of the shorter side below which an image is rejected; default: the checkpoint's, else 8."""
    max_image_pixels: int | None = Field(default=None, ge=1)
    """Width x height above which an image is rejected; default: the checkpoint's, else 100 million."""
    max_image_bytes: int | None = Field(default=None, ge=1)
    """Encoded size above which an image is rejected; default: the checkpoint's, else 256 MiB."""
    max_reject_rate: float = Field(default=0.5, ge=0, le=1)
    """Share of rejected images above which the run stops; looked at after 1,000 images and at the end."""
    retry_rejected: bool = False
    """Try again what was missing, forbidden, not fetched, or failed in the assessor."""

    num_actors: int | None = Field(default=None, ge=1)
    """Processes that hold the assessor; default: one per GPU, or one per CPU where there is none."""
    max_actors: int | None = Field(default=None, ge=1)
    """So many where nodes join during the run; back to --num-actors where there is little to do. Default: fixed."""
    actor_cpus: float | None = Field(default=None, gt=0)
    """CPUs reserved per actor; default: 1 beside a GPU, 0.75 without."""
    reader_cpus: float = Field(default=0.25, gt=0)
    """CPUs reserved per reading task."""
    decode_timeout_s: float = Field(default=60, gt=0)
    """Seconds that decoding one image may take."""
    stall_timeout_s: float = Field(default=1800, gt=0)
    """Seconds without any result after which the run ends, resumable; never less than written answers may take."""
    wave_chunks: int = Field(default=50_000, ge=1)
    """Chunks per stream of Ray Data, which keeps 13 kB of each on the driver; actors start anew for the next stream."""
    wait_for_resources_s: float = Field(default=0, ge=0)
    """How long to wait for the cluster to hold the work."""
    ray_address: str | None = None
    """Ray cluster to run on; default: RAY_ADDRESS, else a Ray started for this run."""
    code_on_nodes: bool = False
    """Every node of that cluster has this checkout at the same path (an image, a shared disk): nothing is uploaded."""

    dry_run: bool = False
    """Print the resolved configuration and the plan; write nothing."""
    estimate: bool = False
    """With --dry-run: time 64 images here, and print hours and cost."""
    price_per_hour: float | None = Field(default=None, gt=0)
    """Price of the share of a machine that one actor takes, for --estimate."""
