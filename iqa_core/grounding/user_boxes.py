"""A user's file of boxes -> one sorted table of them, from which readers of any chunk find those of its images.

The table is a Parquet file whose metadata have the first image of each row group: few rows are read for few images,
however many boxes there are.
"""

from __future__ import annotations

import hashlib
import io
import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqa_core.corpus.column_values import utf8
from iqa_core.errors import CallerError
from iqa_core.grounding.boxes import Box, UserBox
from iqa_core.opinions.rows import Row, read_rows
from iqa_core.storage.failures import Missing
from iqa_core.storage.range_file import RangeFile
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute

SIDES = ("x", "y", "width", "height")

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("key", pa.string()),
        ("box_id", pa.string()),
        ("label", pa.string()),
        *((side, pa.float64()) for side in SIDES),
    ]
)
"""A box of one image, which `source` and `key` name as a score table does."""

ROWS_PER_GROUP = 4096

MOST_BOXES = 1024
"""Of one image: it goes through the model once for every 64, and the time limit of a batch grows with that."""

_FIRST = b"iqa.first"
"""Key of the metadata: source and key of the first row of each row group."""

Image = tuple[str, str]
"""Source and key."""


@dataclass(frozen=True, slots=True)
class UserBoxes:
    """Boxes of a file, sorted by image; those of one image in the file's order."""

    rows: tuple[tuple[str, str, str, str | None, Box], ...]
    """Source, key, id, label, box."""

    @property
    def digest(self) -> str:
        """16 hex digits over all of them."""
        digest = hashlib.sha256()
        for *names, box in self.rows:
            digest.update(json.dumps([*names, *box]).encode())
        return digest.hexdigest()[:16]

    @property
    def most(self) -> tuple[Image, int]:
        """The image with the most boxes, and how many it has."""
        [found] = Counter(map(_image, self.rows)).most_common(1)
        return found

    def of_images(self, images: Sequence[Image]) -> list[list[UserBox]]:
        """Boxes of each image, in the order of the user's file."""
        spans = [
            (bisect_left(self.rows, image, key=_image), bisect_right(self.rows, image, key=_image)) for image in images
        ]
        return [[UserBox(*row[2:]) for row in self.rows[begin:end]] for begin, end in spans]

    def to_parquet(self) -> bytes:
        """The table that `BoxTable` reads."""
        columns = [*zip(*((*names, *box) for *names, box in self.rows), strict=True)]
        table = pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
        first = [self.rows[begin][:2] for begin in range(0, len(self.rows), ROWS_PER_GROUP)]
        buffer = io.BytesIO()
        metadata = {_FIRST: json.dumps(first).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), buffer, row_group_size=ROWS_PER_GROUP)
        return buffer.getvalue()


def read_boxes(path: Path) -> UserBoxes:
    """Boxes of a .jsonl, .parquet, .csv or .json file with the columns of SCHEMA; `label` may be absent or empty.

    A relative `source` is relative to the current folder, as that of an input is.
    Raises CallerError with the row at fault: a column that is missing, a box without an area, an id that its image has
    already; for an image with more than MOST_BOXES, and for a file without boxes.
    """
    if path.parts and path.parts[0].endswith(":"):  # `s3://bucket/…`, as a path has it
        raise CallerError(f"--boxes {path}: boxes are read from this machine; copy the file here and give its path")
    rows = sorted((_box_of(row) for row in read_rows(path)), key=_image)
    if not rows:
        raise CallerError(f"--boxes {path}: it has no boxes; leave it out")
    seen: set[tuple[str, str, str]] = set()
    for source, key, box_id, *_ in rows:
        if (source, key, box_id) in seen:
            raise CallerError(f"--boxes {path}: image {key} of {source} has two boxes with the id {box_id}; rename one")
        seen.add((source, key, box_id))
    boxes = UserBoxes(tuple(rows))
    (source, key), most = boxes.most
    if most > MOST_BOXES:
        raise CallerError(
            f"--boxes {path}: image {key} of {source} has {most:,} boxes; give at most {MOST_BOXES:,}, and the others "
            "in a run with another --output"
        )
    return boxes


def _image(row: Sequence[Any]) -> Image:
    source, key = row[:2]
    return source, key


def _box_of(row: Row) -> tuple[str, str, str, str | None, Box]:
    names = {name: row.name(name) for name in ("source", "key", "box_id")}
    sides = {side: row.number(side) for side in SIDES}
    if absent := [name for name, value in {**names, **sides}.items() if value is None]:
        raise CallerError(f"{row.place}: a box has no {', '.join(absent)}; it takes {', '.join(SCHEMA.names)}")
    try:
        box = Box(*(float(side) for side in sides.values() if side is not None))
    except ValueError as error:
        raise CallerError(f"{row.place}: {error}") from None
    source, key, box_id = (utf8(str(name)) for name in names.values())
    label = row.name(None, "label")
    return absolute(source), key, box_id, None if label is None else utf8(label), box


class BoxTable:
    """The table that `UserBoxes.to_parquet` made, in a folder or store; small, picklable, opened when first asked."""

    def __init__(self, storage: Storage, uri: str) -> None:
        self._storage = storage
        self._uri = uri
        self._file: pq.ParquetFile | None = None
        self._latest: tuple[Sequence[Image], list[list[UserBox]]] = ((), [])
        """A batch's boxes are asked for twice: when its images are assessed, and when their rows are made."""

    def of_images(self, images: Sequence[Image]) -> list[list[UserBox]]:
        """Boxes of each image, in the order of the user's file. Raises Missing where the table is gone."""
        if images != self._latest[0]:
            self._latest = images, self._found(images)
        return self._latest[1]

    def _found(self, images: Sequence[Image]) -> list[list[UserBox]]:
        found: dict[Image, list[UserBox]] = {image: [] for image in images}
        for source, key, box_id, label, *sides in self._rows(sorted(found)):
            if (source, key) in found:
                found[source, key].append(UserBox(box_id, label, Box(*sides)))
        return [found[image] for image in images]

    def _rows(self, images: Sequence[Image]) -> Iterator[Any]:
        """Rows of all row groups that may have boxes of these images, which are sorted."""
        file = self._opened()
        first = [(source, key) for source, key in json.loads(file.schema_arrow.metadata[_FIRST])]
        sources = pa.array(sorted({source for source, _ in images}))
        for group in sorted(_groups(first, images)):
            table = file.read_row_group(group, SCHEMA.names, use_threads=False)
            mask = pc.is_in(table.column("source"), sources)
            yield from zip(*(column.to_pylist() for column in table.filter(mask).columns), strict=True)

    def _opened(self) -> pq.ParquetFile:
        if self._file is None:
            entry = self._storage.stat(self._uri)
            if entry is None or entry.size is None:
                raise Missing(f"{self._uri}: the boxes of this output are gone; put the file back")
            self._file = pq.ParquetFile(RangeFile(self._storage, self._uri, entry.size))
        return self._file


def _groups(first: Sequence[Image], images: Iterable[Image]) -> set[int]:
    """Numbers of the row groups that may have these images. first: of each group the image of its first row."""
    return {
        group for image in images for group in range(max(0, bisect_left(first, image) - 1), bisect_right(first, image))
    }
