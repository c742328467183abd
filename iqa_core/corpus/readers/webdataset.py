"""WebDataset tars -> images with their sidecars; a damaged tail costs only what cannot be read.

A member is an image by its extension, whatever it is (several images may share a stem). The sidecars `<stem>.json` and
`<stem>.txt`, before or after the image, are carried as text. A tar is cut between stems, never within one, so files of
one stem must lie side by side in a tar that is large enough to be cut.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, Content, Encoded, ReadOptions, Stretch, Survey
from iqa_core.corpus.columns import TYPE_NAMES, cast_value
from iqa_core.corpus.range_file import RangeFile
from iqa_core.corpus.sources import Source, is_image_name
from iqa_core.corpus.storage import FetchFailed, Storage, is_local
from iqa_core.records import ImageLimits, Reason, Rejection

SAMPLE_BYTES = 2**20
"""Read of a remote tar to estimate how many images it holds; an index costs a request per member or block."""

SIDECARS = ("json", "txt")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a tar; offsets count from the beginning of what was scanned."""

    name: str
    header: int
    offset: int
    size: int

    @property
    def stem(self) -> str:
        """Path up to the first dot of the file name: what WebDataset groups by."""
        folder, _, name = self.name.rpartition("/")
        return f"{folder}/{name.split('.', 1)[0]}"


@dataclass(frozen=True, slots=True)
class Damage:
    offset: int
    what: str


def survey(storage: Storage, source: Source, options: ReadOptions, exact: bool) -> Survey:
    schema = pa.schema(
        [(name, pa.string()) for name in SIDECARS] + [(name, TYPE_NAMES[kind]) for name, kind in options.carry.items()]
    )
    size = source.size or 0
    if not exact and not is_local(source.uri) and not _is_worth_cutting(storage, source, size, options):
        return Survey((Stretch(source.uri, source.key, size, source.etag, 0, size, None),), schema)
    members, damage = scan(cast(BinaryIO, RangeFile(storage, source.uri, size)), size)
    if damage is not None and not members:
        return Survey((Stretch(source.uri, source.key, size, source.etag, 0, size, None),), schema)
    return Survey(tuple(_cut(source, size, members, options)), schema)


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    (stretch,) = chunk.stretches
    data = storage.read_large(stretch.source, stretch.begin, stretch.end)
    members, damage = scan(io.BytesIO(data), len(data))
    images = [member for member in members if is_image_name(member.name)]
    if damage is not None and not images:
        raise FetchFailed(
            f"{stretch.source}: {damage.what} at byte {stretch.begin + damage.offset}; nothing is readable"
        )
    return Content(
        keys=tuple(member.name for member in images),
        carried=_sidecars(memoryview(data), members, images, options.carry),
        images=lambda ordinals: _images(memoryview(data), [images[ordinal] for ordinal in ordinals], stretch),
        damage=None if damage is None else f"{stretch.source}: {damage.what} at byte {stretch.begin + damage.offset}",
    )


def scan(file: BinaryIO, size: int) -> tuple[list[Member], Damage | None]:
    """Regular members in order, up to the end or to the first damage. Archives that were concatenated are read on.

    A member whose data are cut is the last of the list; its `offset + size` then lies beyond `size`.
    """
    members: list[Member] = []
    position = 0
    while position < size:
        file.seek(position)
        try:
            with tarfile.open(fileobj=file, mode="r:", format=tarfile.PAX_FORMAT) as tar:
                for info in tar:
                    if info.isreg():
                        members.append(Member(_text(info.name), info.offset, info.offset_data, info.size))
                position = tar.offset
        except tarfile.TarError as error:
            return members, _damage(members, size, error, position)
        position = _next_content(file, position, size)
    if size == 0:
        return members, Damage(0, "a tar of 0 bytes")
    return members, None


def _text(name: str) -> str:
    """The name with bytes that are no UTF-8 written as \\xNN, since tables hold UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _damage(members: Sequence[Member], size: int, error: Exception, archive: int) -> Damage:
    last_end = archive
    if members and members[-1].header >= archive:
        last = members[-1]
        if last.offset + last.size > size:
            return Damage(last.offset, f"member {last.name} is cut")
        last_end = last.offset + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return Damage(last_end, f"not a tar header ({error})")


def _next_content(file: BinaryIO, position: int, size: int) -> int:
    """Where the next archive begins behind an end-of-archive mark, or `size` if only zeros follow."""
    while position < size:
        file.seek(position)
        block = file.read(min(2**16, size - position))
        found = re.search(rb"[^\0]", block)
        if found:
            return position + found.start() // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        position += len(block)
    return size


def _is_worth_cutting(storage: Storage, source: Source, size: int, options: ReadOptions) -> bool:
    """Whether the tar is over the byte bound, or a sample of its beginning promises half more images than a chunk's."""
    if size > options.chunk_bytes:
        return True
    sample = min(size, SAMPLE_BYTES)
    members, _ = scan(io.BytesIO(storage.read(source.uri, 0, sample)), sample)
    images = sum(is_image_name(member.name) for member in members)
    return images * size > 1.5 * options.chunk_images * sample


def _cut(source: Source, size: int, members: Sequence[Member], options: ReadOptions) -> Iterator[Stretch]:
    """Stretches of about chunk_images images and at most chunk_bytes bytes (or one stem), cut where the stem changes."""
    begin = 0
    images = 0
    stem = None
    for member in members:
        is_full = images >= options.chunk_images or member.offset + member.size - begin > options.chunk_bytes
        if is_full and member.stem != stem and images:
            yield Stretch(source.uri, source.key, size, source.etag, begin, member.header, images)
            begin, images = member.header, 0
        images += is_image_name(member.name)
        stem = member.stem
    yield Stretch(source.uri, source.key, size, source.etag, begin, size, images)


def _images(data: memoryview, images: Sequence[Member], stretch: Stretch) -> Iterator[Encoded]:
    for member in images:
        encoded: memoryview | Rejection = data[member.offset : member.offset + member.size]
        if member.offset + member.size > len(data):
            have = len(data) - member.offset
            encoded = Rejection(Reason.TRUNCATED, f"the tar ends {have} bytes into a member of {member.size}")
        yield Encoded(stretch.source, encoded, offset=stretch.begin + member.offset, length=member.size)


def _sidecars(
    data: memoryview, members: Sequence[Member], images: Sequence[Member], carry: Mapping[str, str]
) -> pa.Table:
    texts: dict[str, dict[str, str]] = {}
    for member in members:
        kind = member.name.rpartition("/")[2].partition(".")[2].lower()
        if kind in SIDECARS and member.offset + member.size <= len(data):
            text = bytes(data[member.offset : member.offset + member.size]).decode("utf-8", errors="replace")
            texts.setdefault(member.stem, {})[kind] = text
    rows = [texts.get(member.stem, {}) for member in images]
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in SIDECARS}
    fields = [_json_object(row.get("json")) for row in rows]
    for name, type_name in carry.items():
        wanted = TYPE_NAMES[type_name]
        columns[name] = pa.array([cast_value(values.get(name), wanted) for values in fields], wanted)
    return pa.table(columns)


def _json_object(text: str | None) -> Mapping[str, object]:
    """The sidecar's fields; none where it is no JSON object (its text is carried all the same)."""
    try:
        parsed = json.loads(text) if text is not None else {}
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
