"""What a task of the cluster does for an export: kept rows -> original bytes -> one shard's files, then its manifest.

The manifest is what the ledger of scores is to scoring: it is put last, in one atomic step, so its existence means that
the shard is whole. A task that is done twice puts the same bytes twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.originals import locators, originals
from iqa_core.records import ImageLimits, Rejection
from iqa_core.selection.exports import coco, imagefolder, label_studio, parquet, webdataset
from iqa_core.selection.exports.samples import samples_of
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join, scratch_of
from iqa_core.tables.ledger import Ledger
from jobs.on_ray.transport import failure_of, from_ipc, to_ipc

WRITERS: dict[str, ModuleType] = {"webdataset": webdataset, "imagefolder": imagefolder, "parquet": parquet}

MARKED: dict[str, ModuleType] = {"coco": coco, "label-studio": label_studio}
"""Formats of regions, which touch no image and are written by the driver."""

MANIFEST = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("sha256", pa.string()),
        ("stem", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""One row per kept image: where it lies in the export, or why it is not there."""

SHARD_ROW = pa.schema(
    [
        ("shard", pa.string()),
        ("images", pa.int64()),
        ("missing", pa.binary()),
        ("failure", pa.string()),
        ("is_fatal", pa.bool_()),
    ]
)
"""A tried shard as it travels to the driver; `missing`: rows of MANIFEST that have a reason."""

TERMS = {"decisions": str, "shard_images": int, "caption_column": str | None}
"""What an export notes when it is begun."""


@dataclass(frozen=True, slots=True)
class ExportWork:
    """All that a task needs to know; the same for every shard of an export."""

    storage: Storage
    output: str
    format: str
    options: ReadOptions
    limits: ImageLimits
    caption: str | None
    allow_missing: bool
    shard_images: int

    @property
    def terms(self) -> dict[str, Any]:
        """What may not change during the life of an export, beside the decisions."""
        return {"shard_images": self.shard_images, "caption_column": self.caption}

    @property
    def begun_uri(self) -> str:
        """Where the terms of the export are laid down."""
        return join(join(join(self.output, "manifests"), self.format), "export.json")

    def begun(self) -> dict[str, Any] | None:
        """The terms that the export was begun with; None where none was begun."""
        if self.storage.stat(self.begun_uri) is None:
            return None
        return self.storage.read_object(self.begun_uri, TERMS)

    @property
    def ledger(self) -> Ledger:
        """The manifests of the shards that are written."""
        return Ledger(self.storage, join(self.output, "manifests"), self.format)


@dataclass(frozen=True, slots=True)
class TriedShard:
    """A shard that was tried; it is committed where nothing failed, and nothing is missing that must be there."""

    shard: str
    images: int
    missing: pa.Table
    failure: str | None = None
    is_fatal: bool = False


def export_shard(shard: str, rows: pa.Table, work: ExportWork) -> TriedShard:
    """Fetch a shard's originals, write its files, commit its manifest; a failure is returned."""
    try:
        return _exported(shard, rows, work)
    except Exception as error:  # whatever a source or the output makes a task raise is that shard's failure
        failure = failure_of(shard, error)
        return TriedShard(shard, 0, MANIFEST.empty_table(), failure.message, failure.is_fatal)


def _exported(shard: str, rows: pa.Table, work: ExportWork) -> TriedShard:
    found = list(originals(work.storage, locators(rows), work.options, work.limits))
    is_there = [not isinstance(data, Rejection) for data in found]
    data = [data for data in found if not isinstance(data, Rejection)]
    samples = samples_of(shard, rows.filter(pa.array(is_there)), data, work.caption)
    manifest = _manifest(rows, found, [sample.stem for sample in samples.images])
    missing = manifest.filter(pa.array([not there for there in is_there]))
    if missing.num_rows and not work.allow_missing:
        return TriedShard(shard, len(samples.images), missing)
    folder = join(work.output, work.format)
    for name, content in WRITERS[work.format].files(shard, samples).items():
        work.storage.put(join(folder, name), content, scratch=scratch_of(work.output))
    work.ledger.commit(shard, manifest, {})
    return TriedShard(shard, len(samples.images), missing)


def _manifest(rows: pa.Table, found: Sequence[bytes | Rejection], stems: Sequence[str]) -> pa.Table:
    waiting = iter(stems)
    columns = {
        "stem": [None if isinstance(data, Rejection) else next(waiting) for data in found],
        "reason": [str(data.reason) if isinstance(data, Rejection) else None for data in found],
        "detail": [data.detail if isinstance(data, Rejection) else None for data in found],
    }
    known = {name: rows.column(name) for name in ("key", "source", "sha256")}
    return pa.table({**known, **columns}, schema=MANIFEST)


@dataclass(frozen=True, slots=True)
class EncodedShard:
    """A shard as it travels to its task."""

    name: str
    rows: bytes


class ExportShards:
    """The tasks' side of an export: a shard in, one row of SHARD_ROW out."""

    def __init__(self, work: ExportWork) -> None:
        self._work = work

    def __call__(self, shard: EncodedShard) -> list[pa.Table]:
        done = export_shard(shard.name, from_ipc(pa.scalar(shard.rows)), self._work)
        row = {
            "shard": done.shard,
            "images": done.images,
            "missing": to_ipc(done.missing),
            "failure": done.failure,
            "is_fatal": done.is_fatal,
        }
        return [pa.Table.from_pylist([row], SHARD_ROW)]
