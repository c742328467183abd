"""WebDataset tars -> images with their sidecars; damage costs only what cannot be read.

A member is an image by its extension, whatever it is (several images may share a stem); a link is the member that it
points to. The sidecars `<stem>.json` and `<stem>.txt`, before or after the image, are carried as text. A tar is cut
between stems, never within one, so files of one stem must lie side by side in a tar that is large enough to be cut.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import BinaryIO, cast

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, Content, Encoded, ReadOptions, Stretch, Survey
from iqa_core.corpus.columns import TYPE_NAMES, cast_value
from iqa_core.corpus.range_file import RangeFile
from iqa_core.corpus.readers.tar import BLOCK, Damage, Member, follow_links, scan, walk
from iqa_core.corpus.sources import Source, is_image_name
from iqa_core.corpus.storage import FetchFailed, Storage, is_local
from iqa_core.records import ImageLimits, Reason, Rejection

SAMPLE_BYTES = 2**20
"""Read of a remote tar to estimate how many images it holds; an index costs a request per member or block."""

SIDECARS = ("json", "txt")


def survey(storage: Storage, source: Source, options: ReadOptions, exact: bool) -> Survey:
    schema = pa.schema(
        [(name, pa.string()) for name in SIDECARS] + [(name, TYPE_NAMES[kind]) for name, kind in options.carry.items()]
    )
    size = source.size or 0
    whole = (Stretch(source.uri, source.key, size, source.etag, 0, size, None),)
    if not exact and not is_local(source.uri) and not _is_worth_cutting(storage, source, size, options):
        return Survey(whole, schema)
    damage: list[Damage] = []
    members = _members(walk(_file(storage, source.uri, size), size), damage)
    runs = list(_runs(members, options))
    if damage and not any(run.images for run in runs):
        return Survey(whole, schema)
    return Survey(tuple(_cut(source, size, runs, damage)), schema)


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    (stretch,) = chunk.stretches
    tar = _open(storage, stretch)
    images = [member for member in tar.members if is_image_name(member.name)]
    if tar.damage is not None and not images and stretch.begin == 0:
        raise FetchFailed(f"{tar.damage}; nothing is readable")
    return Content(
        keys=tuple(member.name for member in images),
        carried=_sidecars(tar, images, options.carry),
        images=lambda ordinals: (tar.image(images[ordinal]) for ordinal in ordinals),
        damage=tar.damage,
    )


@dataclass(frozen=True, slots=True)
class _Tar:
    """A stretch of a tar in memory."""

    storage: Storage
    stretch: Stretch
    data: memoryview
    members: Sequence[Member]
    """Links followed, where they lead to something."""
    damage: str | None

    def image(self, member: Member) -> Encoded:
        if member.link is not None:
            return Encoded(self.stretch.source, Rejection(Reason.MISSING, "a link to what is not in the tar"))
        return Encoded(
            self.stretch.source, self.content(member), offset=self.stretch.begin + member.offset, length=member.size
        )

    def content(self, member: Member) -> memoryview | Rejection:
        """The member's bytes; only what a link points to may lie outside of the stretch."""
        if member.is_sparse:
            return Rejection(Reason.UNSUPPORTED_FORMAT, "the tar holds it as a sparse file")
        begin, end = self.stretch.begin + member.offset, self.stretch.begin + member.end
        if end > (self.stretch.size or 0):
            have = (self.stretch.size or 0) - begin
            return Rejection(Reason.TRUNCATED, f"the tar ends {have} bytes into a member of {member.size}")
        if begin < self.stretch.begin or end > self.stretch.end:
            return memoryview(self.storage.read_large(self.stretch.source, begin, end))
        return self.data[member.offset : member.end]


def _open(storage: Storage, stretch: Stretch) -> _Tar:
    size = stretch.size or 0
    data = storage.read_large(stretch.source, stretch.begin, stretch.end)
    members, damage = scan(io.BytesIO(data), len(data), has_end=stretch.end == size)
    members = follow_links(members, members)
    if len(data) < size and any(member.link is not None for member in members):
        everything, _ = scan(_file(storage, stretch.source, size), size)
        shifted = [replace(member, offset=member.offset - stretch.begin) for member in everything]
        members = follow_links(members, shifted)
    return _Tar(storage, stretch, memoryview(data), members, _damage_text(stretch, damage))


def _file(storage: Storage, uri: str, size: int) -> BinaryIO:
    return cast(BinaryIO, RangeFile(storage, uri, size))


def _damage_text(stretch: Stretch, damage: Sequence[Damage]) -> str | None:
    if not damage:
        return None
    more = f" (and at {len(damage) - 1} places behind it)" if len(damage) > 1 else ""
    return f"{stretch.source}: {damage[0].what} at byte {stretch.begin + damage[0].offset}{more}"


def _stem(member: Member) -> str:
    """Path up to the first dot of the file name: what WebDataset groups by."""
    folder, _, name = member.name.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}"


def _is_worth_cutting(storage: Storage, source: Source, size: int, options: ReadOptions) -> bool:
    """Whether the tar is over the byte bound, or a sample of its beginning promises half more images than a chunk's."""
    if size > options.chunk_bytes:
        return True
    sample = min(size, SAMPLE_BYTES)
    members, _ = scan(io.BytesIO(storage.read(source.uri, 0, sample)), sample)
    images = sum(is_image_name(member.name) for member in members)
    return images * size > 1.5 * options.chunk_images * sample


def _members(found: Iterable[Member | Damage], damage: list[Damage]) -> Iterator[Member]:
    """The members as they pass by, damage put aside: the index of a tar of millions is never held."""
    for item in found:
        if isinstance(item, Member):
            yield item
        else:
            damage.append(item)


@dataclass(frozen=True, slots=True)
class _Run:
    """Members side by side that fit into one chunk, or a single stem."""

    begin: int
    end: int
    images: int


def _runs(members: Iterator[Member], options: ReadOptions) -> Iterator[_Run]:
    """Whole stems, as many as a chunk holds: at most chunk_images images and chunk_bytes bytes."""
    run: _Run | None = None
    for _, group in groupby(members, key=_stem):
        files = list(group)
        stem = _Run(files[0].header, files[-1].end, sum(is_image_name(member.name) for member in files))
        if run is None:
            run = stem
        elif run.images + stem.images > options.chunk_images or stem.end - run.begin > options.chunk_bytes:
            yield run
            run = stem
        else:
            run = _Run(run.begin, stem.end, run.images + stem.images)
    if run is not None:
        yield run


def _cut(source: Source, size: int, runs: Sequence[_Run], damage: Sequence[Damage]) -> Iterator[Stretch]:
    """Stretches that together hold all images, one per run that has any.

    What lies between them holds no images. Garbage is read no further than to see that it is there.
    """
    edges = [0, *(run.begin for run in runs[1:]), size]
    for run, (begin, edge) in zip(runs, pairwise(edges), strict=False):
        behind = [found.offset for found in damage if run.end <= found.offset < edge]
        end = min(edge, behind[0] + BLOCK) if behind else edge
        if run.images or any(begin <= found.offset < end for found in damage):
            yield Stretch(source.uri, source.key, size, source.etag, begin, end, run.images)


def _sidecars(tar: _Tar, images: Sequence[Member], carry: Mapping[str, str]) -> pa.Table:
    texts: dict[str, dict[str, str]] = {}
    for member in tar.members:
        kind = member.name.rpartition("/")[2].partition(".")[2].lower()
        if kind in SIDECARS and member.link is None:
            content = tar.content(member)
            if not isinstance(content, Rejection):
                texts.setdefault(_stem(member), {})[kind] = _text(bytes(content))
    rows = [texts.get(_stem(member), {}) for member in images]
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in SIDECARS}
    fields = [_json_object(row.get("json")) for row in rows]
    for name, type_name in carry.items():
        wanted = TYPE_NAMES[type_name]
        columns[name] = pa.array([cast_value(values.get(name), wanted) for values in fields], wanted)
    return pa.table(columns)


def _text(data: bytes) -> str:
    """A sidecar's text, without a byte order mark; UTF-8, or UTF-16 where the mark says so."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return data.decode(encoding, errors="replace")


def _json_object(text: str | None) -> Mapping[str, object]:
    """The sidecar's fields; none where it is no JSON object (its text is carried all the same)."""
    try:
        parsed = json.loads(text) if text is not None else {}
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
