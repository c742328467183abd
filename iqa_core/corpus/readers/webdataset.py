"""WebDataset tars -> images with their sidecars; damage costs only the members that it hits.

A member with an image's extension is an image; several may share a stem. A link is the member that it points to. The
sidecars `<stem>.json` and `<stem>.txt`, before or after the image, are carried as text. Neighbouring files of one stem
are a sample, as in WebDataset; a tar is cut between samples. In reading 1 all files of one stem in a chunk are one.
"""

from __future__ import annotations

import codecs
import io
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iqa_core.corpus.chunks import Chunk, Content, Encoded, ReadOptions, Span, Survey
from iqa_core.corpus.columns import TYPE_NAMES, cast_value
from iqa_core.corpus.readers import metadata
from iqa_core.corpus.readers.tar import BLOCK, Damage, Member, follow_links, scan, walk
from iqa_core.corpus.sources import Source, is_image_name
from iqa_core.records import ImageLimits, Reason, Rejection
from iqa_core.storage.failures import FetchFailed
from iqa_core.storage.range_file import RangeFile
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import is_local

SAMPLE_BYTES = 2**20
"""Bytes of a remote tar from which its number of images is estimated; an index costs a request per member or block."""

SIDECARS = ("json", "txt")
"""Endings of the members that are carried as text; also the names of their columns."""


def survey(storage: Storage, source: Source, options: ReadOptions, exact: bool) -> Survey:
    """Spans and columns. A local tar is walked; a remote one only if it is to be cut, or `exact` asks for its count."""
    schema = pa.schema(
        [(name, pa.string()) for name in SIDECARS] + [(name, TYPE_NAMES[kind]) for name, kind in options.carry.items()]
    )
    size = source.size or 0
    whole = (Span(source.uri, source.key, size, source.etag, 0, size, None),)
    if not exact and not is_local(source.uri) and not _is_worth_cutting(storage, source, size, options):
        return Survey(whole, schema)
    damage: list[Damage] = []
    names = array("q")
    members = _members(walk(_file(storage, source.uri, size), size), damage, names)
    runs = list(_runs(members, options))
    if damage and not any(run.images for run in runs):
        return Survey(whole, schema)
    spans = tuple(_cut(source, size, runs, damage))
    return Survey(spans if options.reading == 1 else tuple(_numbered(spans, names)), schema)


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    """Images of the chunk's span, which is read whole. Raises FetchFailed when damage leaves none of a tar."""
    (span,) = chunk.spans
    tar = _open(storage, span)
    images = [member for member in tar.members if is_image_name(member.name)]
    if tar.damage is not None and not images and span.begin == 0:
        raise FetchFailed(f"{tar.damage}; nothing is readable")
    keys = _keys(images, span.occurrences, options.reading)
    sidecars = _sidecars(tar, options)
    described = metadata.columns_of(storage, [(span.metadata, metadata.names_of_member(key)) for key in keys], options)
    for name, column in zip(beside_sidecars(described.column_names, options), described.columns, strict=True):
        sidecars = sidecars.append_column(name, column)
    return Content(
        keys=keys,
        carried=sidecars,
        images=lambda ordinals: (tar.image(images[ordinal]) for ordinal in ordinals),
        damage=tar.damage,
    )


def image_names(storage: Storage, source: Source, size: int) -> list[str]:
    """Names of the images in the first `size` bytes of a tar; one read where it is remote."""
    file = _file(storage, source.uri, size) if is_local(source.uri) else io.BytesIO(storage.read(source.uri, 0, size))
    members, _ = scan(file, size)
    return [member.name for member in members if is_image_name(member.name)]


def beside_sidecars(names: Sequence[str], options: ReadOptions) -> list[str]:
    """Columns of a table that describes a tar, `input_<name>` where a sidecar's column has that name."""
    return [f"input_{name}" if name in SIDECARS or name in options.carry else name for name in names]


@dataclass(frozen=True, slots=True)
class _Tar:
    """A span of a tar in memory."""

    storage: Storage
    span: Span
    data: memoryview
    members: Sequence[Member]
    """Its members; links are followed where they point to one."""
    damage: str | None

    def image(self, member: Member) -> Encoded:
        """A member with its bytes, or why there are none."""
        if member.link is not None:
            return Encoded(self.span.source, Rejection(Reason.MISSING, "a link to what is not in the tar"))
        return Encoded(
            self.span.source, self.content(member), offset=self.span.begin + member.offset, length=member.size
        )

    def content(self, member: Member) -> memoryview | Rejection:
        """A member's bytes; those of a link's target may lie outside the span, and are read then."""
        if member.is_sparse:
            return Rejection(Reason.UNSUPPORTED_FORMAT, "the tar holds it as a sparse file")
        begin, end = self.span.begin + member.offset, self.span.begin + member.end
        if end > (self.span.size or 0):
            have = (self.span.size or 0) - begin
            return Rejection(Reason.TRUNCATED, f"the tar ends {have} bytes into a member of {member.size}")
        if begin < self.span.begin or end > self.span.end:
            return memoryview(self.storage.read_large(self.span.source, begin, end))
        return self.data[member.offset : member.end]


def _open(storage: Storage, span: Span) -> _Tar:
    size = span.size or 0
    data = storage.read_large(span.source, span.begin, span.end)
    members, damage = scan(io.BytesIO(data), len(data), has_end=span.end == size)
    members = follow_links(members, members)
    if len(data) < size and any(member.link is not None for member in members):
        everything, _ = scan(_file(storage, span.source, size), size)
        shifted = [replace(member, offset=member.offset - span.begin) for member in everything]
        members = follow_links(members, shifted)
    return _Tar(storage, span, memoryview(data), members, _damage_text(span, damage))


def _file(storage: Storage, uri: str, size: int) -> BinaryIO:
    return cast(BinaryIO, RangeFile(storage, uri, size))


def _damage_text(span: Span, damage: Sequence[Damage]) -> str | None:
    if not damage:
        return None
    more = f" (and at {len(damage) - 1} places behind it)" if len(damage) > 1 else ""
    return f"{span.source}: {damage[0].what} at byte {span.begin + damage[0].offset}{more}"


def _stem(member: Member) -> str:
    """Path up to the first dot of the file name, by which WebDataset groups."""
    folder, _, name = member.name.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}"


def _ending(member: Member) -> str:
    """Lower-case text behind the first dot of the file name; empty where there is no dot or nothing before it."""
    stem, _, ending = member.name.rpartition("/")[2].partition(".")
    return ending.lower() if stem else ""


def _samples(members: Iterable[Member], reading: int) -> Iterator[tuple[int | str, Member]]:
    """Each member with its sample: a number, in reading 1 the stem.

    A new sample begins where the stem changes, and where an ending returns: in concatenated tars the last stem of one
    may be the first of the next. A member without stem or ending (`._1.jpg`, which macOS adds) ends no sample.
    """
    number, stem, endings = 0, None, set[str]()
    for member in members:
        if reading == 1:
            yield _stem(member), member
            continue
        ending = _ending(member)
        if ending and (_stem(member) != stem or ending in endings):
            number, stem, endings = number + 1, _stem(member), set()
        endings.add(ending)
        yield number, member


def _is_worth_cutting(storage: Storage, source: Source, size: int, options: ReadOptions) -> bool:
    """Whether a tar is larger than a chunk, or holds half more images than one, estimated from its first bytes."""
    if size > options.chunk_bytes:
        return True
    sample = min(size, SAMPLE_BYTES)
    members, _ = scan(io.BytesIO(storage.read(source.uri, 0, sample)), sample)
    images = sum(is_image_name(member.name) for member in members)
    return images * size > 1.5 * options.chunk_images * sample


def _members(found: Iterable[Member | Damage], damage: list[Damage], names: array[int]) -> Iterator[Member]:
    """The members as a stream, since the index of a tar of millions would fill the memory.

    damage: gets the damage among them. names: gets a hash (8 bytes) of each image's name.
    """
    for item in found:
        if isinstance(item, Member):
            if is_image_name(item.name):
                names.append(hash(item.name))
            yield item
        else:
            damage.append(item)


def _numbered(spans: Sequence[Span], names: array[int]) -> Iterator[Span]:
    """The spans of one tar, with `occurrences` where a name returns: a reader sees its own span alone."""
    numbers = _occurrences(np.asarray(names, np.int64))
    first = 0
    for span in spans:
        of_span = numbers[first : first + (span.images or 0)]
        first += len(of_span)
        is_known = len(spans) == 1 or not (of_span > 1).any()
        yield span if is_known else replace(span, occurrences=tuple(of_span.tolist()))


def _occurrences(names_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each value how often it has occurred so far, itself included, shape (N,)."""
    order = np.argsort(names_N, kind="stable")
    positions = np.arange(len(order))
    is_first = np.append(True, np.diff(names_N[order]) != 0)[: len(order)]
    numbers = np.empty_like(positions)
    numbers[order] = positions - np.maximum.accumulate(np.where(is_first, positions, 0)) + 1
    return numbers


def _keys(images: Sequence[Member], numbers: Sequence[int] | None, reading: int) -> tuple[str, ...]:
    """Keys of the images: their names; the second image of a name in a tar has `#2` behind it, and so on.

    numbers: occurrences in the whole tar, where the plan has them; None where the span alone tells.
    """
    names = [member.name for member in images]
    if reading == 1:
        return tuple(names)
    if numbers is None or len(numbers) != len(
        names
    ):  # another length: the tar was replaced, which `open_chunk` reports
        seen: Counter[str] = Counter()
        numbers = []
        for name in names:
            seen[name] += 1
            numbers.append(seen[name])
    return tuple(name if number == 1 else f"{name}#{number}" for name, number in zip(names, numbers, strict=True))


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive samples that fit into one chunk, at least one."""

    begin: int
    end: int
    images: int


def _runs(members: Iterator[Member], options: ReadOptions) -> Iterator[_Run]:
    """Runs of whole samples, each of at most chunk_images images and chunk_bytes bytes, or of a single sample."""
    run: _Run | None = None
    for _, group in groupby(_samples(members, options.reading), key=lambda pair: pair[0]):
        files = [member for _, member in group]
        sample = _Run(files[0].header, files[-1].end, sum(is_image_name(member.name) for member in files))
        if run is None:
            run = sample
        elif run.images + sample.images > options.chunk_images or sample.end - run.begin > options.chunk_bytes:
            yield run
            run = sample
        else:
            run = _Run(run.begin, sample.end, run.images + sample.images)
    if run is not None:
        yield run


def _cut(source: Source, size: int, runs: Sequence[_Run], damage: Sequence[Damage]) -> Iterator[Span]:
    """Spans that together hold all images and all damage, one per run that has any.

    A span ends at the first block of damage behind its run: the garbage behind that is not read.
    """
    edges = [0, *(run.begin for run in runs[1:]), size]
    for run, (begin, edge) in zip(runs, pairwise(edges), strict=False):
        behind = [found.offset for found in damage if run.end <= found.offset < edge]
        end = min(edge, behind[0] + BLOCK) if behind else edge
        if run.images or any(begin <= found.offset < end for found in damage):
            yield Span(source.uri, source.key, size, source.etag, begin, end, run.images)


def _sidecars(tar: _Tar, options: ReadOptions) -> pa.Table:
    """Sidecar columns, one row per image, in the images' order."""
    texts: dict[int | str, dict[str, str]] = {}
    samples: list[int | str | None] = []
    for sample, member in _samples(tar.members, options.reading):
        if is_image_name(member.name):
            samples.append(sample if _ending(member) or options.reading == 1 else None)
        kind = member.name.rpartition("/")[2].partition(".")[2].lower()
        if kind in SIDECARS and member.link is None:
            content = tar.content(member)
            if not isinstance(content, Rejection):
                texts.setdefault(sample, {})[kind] = _text(bytes(content))
    rows = [{} if sample is None else texts.get(sample, {}) for sample in samples]
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in SIDECARS}
    fields = [_json_object(row.get("json")) for row in rows]
    for name, type_name in options.carry.items():
        wanted = TYPE_NAMES[type_name]
        columns[name] = pa.array([cast_value(values.get(name), wanted) for values in fields], wanted)
    return pa.table(columns)


def _text(data: bytes) -> str:
    """A sidecar's text without byte order mark: UTF-8, or UTF-16 where the mark says so."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return data.decode(encoding, errors="replace")


def _json_object(text: str | None) -> Mapping[str, object]:
    """Fields of a JSON sidecar; none where it is no JSON object. Its text is carried in any case."""
    try:
        parsed = json.loads(text) if text is not None else {}
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
