"""`--input` values -> one sorted stream of sources: files and objects that hold images, each with its kind of reader.

Other files of a folder (tables of annotations, logs) are counted as ignored.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from iqa_core.errors import CallerError
from iqa_core.storage.entries import Entry
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute, join

IMAGE_EXTENSIONS = frozenset("jpg jpeg jpe jfif png webp gif bmp dib tif tiff avif avifs apng".split())
"""Extensions of images that are decoded."""

UNSUPPORTED_IMAGE_EXTENSIONS = frozenset(
    """heic heif jxl jp2 j2k svg psd ico icns tga pcx ppm pgm pbm pnm exr hdr dds eps
    raw cr2 cr3 nef arw dng orf rw2""".split()
)
"""Extensions of images that are not decoded: such a file gets a row with the reason `unsupported_format`."""


LIST_EXTENSIONS = frozenset({"csv", "jsonl", "ndjson"})
"""Extensions of lists of images, which are read only where an input names them."""

METADATA_NAMES = frozenset({"metadata.csv", "metadata.jsonl"})
"""Lists that may describe the files beside them: the names that Hugging Face's imagefolder gives them."""


class Kind(StrEnum):
    """Kind of a source: which reader it needs."""

    IMAGE = "image"
    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    ARROW = "arrow"
    LIST = "list"
    SCORES = "scores"
    """Selected rows of a chunk of a score table: `iqa_core.corpus.scored`."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """A table that describes files beside it."""

    uri: str
    size: int | None
    etag: str
    column: str
    """Name of the column whose values name the files."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file or object that holds one or many images."""

    uri: str
    kind: Kind
    key: str
    """Path relative to the input it was found under; the file's name for an input that is a file."""
    size: int | None
    etag: str
    is_named: bool = False
    """Whether an input names it itself: then it is an error if it cannot be read. One in a folder is passed over."""
    metadata: Metadata | None = None
    """The table that describes it, or its members."""


def is_image_name(name: str) -> bool:
    """Whether a file's extension is that of an image, decoded or not."""
    return extension(name) in IMAGE_EXTENSIONS or extension(name) in UNSUPPORTED_IMAGE_EXTENSIONS


def extension(name: str) -> str:
    """Lower-case extension without its dot; empty where there is none."""
    file = name[name.rfind("/") + 1 :]
    dot = file.rfind(".")
    return file[dot + 1 :].lower() if 0 < dot < len(file) - 1 else ""


@dataclass(slots=True)
class Listing:
    """Counts of what a listing found beside sources; the listing fills them in."""

    ignored: Counter[str]
    """Extension -> number of files that were passed over."""
    tables: int = 0
    """Tables that describe the files beside them."""
    rows_without_file: int = 0
    """Rows of these tables whose file is not there."""

    def describe_tables(self) -> str:
        """One line for people."""
        return f"tables that describe files: {self.tables:,}; rows of them without a file: {self.rows_without_file:,}"


TableMatching = Callable[[str, Iterator[Source]], Iterator[Source]]
"""A folder and its sources, among them tables that may describe files -> those that hold images: `beside.Beside`."""


def list_sources(
    storage: Storage, inputs: Sequence[str], listing: Listing, match_tables: TableMatching | None = None
) -> Iterator[Source]:
    """All sources of all inputs, sorted by URI, each once; where inputs overlap, the first gives a source its key.

    match_tables: finds the tables that describe files; without it, every table is taken to hold images.
    Raises CallerError for an input that does not exist, holds no images, or is of no kind that can be read.
    """
    streams = [
        ((source.uri, position, source) for source in _sources_of(storage, absolute(given), listing, match_tables))
        for position, given in enumerate(inputs)
    ]
    previous = None
    for uri, _, source in heapq.merge(*streams, key=lambda item: item[:2]):
        if uri != previous:
            yield source
        previous = uri


def _sources_of(storage: Storage, given: str, listing: Listing, match_tables: TableMatching | None) -> Iterator[Source]:
    entry = storage.stat(given)
    if entry is not None:
        yield _explicit(entry)
        return
    is_empty = True
    sources = (
        Source(found.uri, kind, relative(found.uri, given) or found.uri, found.size, found.etag)
        for found, kind in _scorable(storage, storage.walk(given), listing, match_tables is not None)
    )
    for source in sources if match_tables is None else match_tables(given, sources):
        is_empty = False
        yield source
    if is_empty:
        passed = ", ".join(f"{count} {name}" for name, count in listing.ignored.most_common(3))
        raise CallerError(
            f"--input {given}: nothing to score there"
            + (f" (passed over: {passed})" if passed else "")
            + "; it may be a folder or prefix with images, tars, Parquet or a saved data set, one such file or a list"
        )


def _explicit(entry: Entry) -> Source:
    """The source of an input that is a file. Only here are lists read: a folder of images often has other tables."""
    name = entry.uri.rsplit("/", 1)[1]
    kinds = {**dict.fromkeys(LIST_EXTENSIONS, Kind.LIST), "arrow": Kind.ARROW}
    kind = kinds.get(extension(name)) or _kind_of(name)
    if kind is None:
        raise CallerError(
            f"--input {entry.uri}: a .{extension(name)} file is none of the inputs that can be read: an image, .tar, "
            ".parquet, .arrow, or a list of URIs as .csv or .jsonl"
        )
    return Source(entry.uri, kind, name, entry.size, entry.etag, is_named=True)


def _kind_of(name: str) -> Kind | None:
    if is_image_name(name):
        return Kind.IMAGE
    return {"tar": Kind.WEBDATASET, "parquet": Kind.PARQUET}.get(extension(name))


def _scorable(
    storage: Storage, entries: Iterable[Entry], listing: Listing, has_metadata: bool
) -> Iterator[tuple[Entry, Kind]]:
    """Entries with their kinds; the others are counted as ignored.

    has_metadata: lists of METADATA_NAMES are returned too. An `.arrow` file is returned where the `state.json` of a
    saved data set names it: others are caches.
    """
    named: dict[str, frozenset[str]] = {}
    for entry in entries:
        folder, name = entry.uri.rsplit("/", 1)
        kind = _kind_of(name)
        if extension(name) == "arrow":
            if folder not in named:
                named[folder] = _arrow_files(storage, folder)
            kind = Kind.ARROW if name in named[folder] else None
        if has_metadata and name in METADATA_NAMES:
            kind = Kind.LIST
        if kind is None:
            listing.ignored[extension(name) or "without extension"] += 1
        else:
            yield entry, kind


def _arrow_files(storage: Storage, folder: str) -> frozenset[str]:
    """File names of the data set that was saved in a folder; none where there is no `state.json`."""
    state = join(folder, "state.json")
    if storage.stat(state) is None:
        return frozenset()
    try:
        return frozenset(file["filename"] for file in json.loads(storage.read(state))["_data_files"])
    except (ValueError, KeyError, TypeError) as error:
        raise CallerError(f"{state}: not the state of a saved Hugging Face data set ({error!r})") from error


def relative(uri: str, folder: str) -> str | None:
    """Path of a URI below a folder, also where the URI is percent-encoded; None if it does not lie there."""
    if uri.startswith(folder.rstrip("/") + "/"):
        return uri.removeprefix(folder).lstrip("/")
    if uri.startswith("file://") and uri.startswith((encoded := "file://" + quote(folder)).rstrip("/") + "/"):
        return uri.removeprefix(encoded).lstrip("/")
    return None
