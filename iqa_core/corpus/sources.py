"""`--input` values -> one sorted stream of sources: what there is to score, and which reader it needs.

A source is one file or object. What a folder holds beside images (tables of annotations, logs) is counted as ignored.
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
"""Extensions of what is decoded."""

UNSUPPORTED_IMAGE_EXTENSIONS = frozenset(
    """heic heif jxl jp2 j2k svg psd ico icns tga pcx ppm pgm pbm pnm exr hdr dds eps
    raw cr2 cr3 nef arw dng orf rw2""".split()
)
"""Extensions of what is an image, but not decoded: such a file gets its row (`unsupported_format`), not silence."""


LIST_EXTENSIONS = frozenset({"csv", "jsonl", "ndjson"})
"""Of lists of images, which are taken only where an input names them."""

METADATA_NAMES = frozenset({"metadata.csv", "metadata.jsonl"})
"""Lists that may describe the files beside them, by the names that Hugging Face's imagefolder gives them."""


class Kind(StrEnum):
    """Which reader a source needs."""

    IMAGE = "image"
    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    ARROW = "arrow"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Metadata:
    """A table that describes files beside it."""

    uri: str
    size: int | None
    etag: str
    column: str
    """Whose values name the files."""


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
    """It is itself an input, not found in a folder: what cannot be read in it is an error, and not passed over."""
    metadata: Metadata | None = None
    """The table that describes it, or members of it."""


def is_image_name(name: str) -> bool:
    return extension(name) in IMAGE_EXTENSIONS or extension(name) in UNSUPPORTED_IMAGE_EXTENSIONS


def extension(name: str) -> str:
    """Lower-case extension without its dot; empty where there is none."""
    file = name[name.rfind("/") + 1 :]
    dot = file.rfind(".")
    return file[dot + 1 :].lower() if 0 < dot < len(file) - 1 else ""


@dataclass(slots=True)
class Listing:
    """What was found while listing beside sources."""

    ignored: Counter[str]
    """Extension -> number of files that were passed over."""
    tables: int = 0
    """That describe the files beside them."""
    rows_without_file: int = 0
    """Of these tables."""

    def describe_tables(self) -> str:
        return f"tables that describe files: {self.tables:,}; rows of them without a file: {self.rows_without_file:,}"


Telling = Callable[[str, Iterator[Source]], Iterator[Source]]
"""An input's folder and its sources, tables of metadata among them as lists -> those that hold images, see `beside`."""


def list_sources(
    storage: Storage, inputs: Sequence[str], listing: Listing, tell: Telling | None = None
) -> Iterator[Source]:
    """All sources of all inputs, sorted by URI, each once: of overlapping inputs the first that has it names its key.

    tell: tells tables that describe files from tables that hold images; without it, each is taken for the latter.
    Raises CallerError for an input that is not there or cannot be read as anything.
    """
    streams = [
        ((source.uri, position, source) for source in _sources_of(storage, absolute(given), listing, tell))
        for position, given in enumerate(inputs)
    ]
    previous = None
    for uri, _, source in heapq.merge(*streams, key=lambda item: item[:2]):
        if uri != previous:
            yield source
        previous = uri


def _sources_of(storage: Storage, given: str, listing: Listing, tell: Telling | None) -> Iterator[Source]:
    entry = storage.stat(given)
    if entry is not None:
        yield _explicit(entry)
        return
    is_empty = True
    sources = (
        Source(found.uri, kind, relative(found.uri, given) or found.uri, found.size, found.etag)
        for found, kind in _scorable(storage, storage.walk(given), listing, tell is not None)
    )
    for source in sources if tell is None else tell(given, sources):
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
    """A file that was named by the user: lists are taken only so, since a folder of images often holds other tables."""
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
    """Entries with the reader they need; with tables of metadata among them as lists, if these are asked for.

    An `.arrow` file counts where a saved data set's `state.json` names it: others are caches.
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
    state = join(folder, "state.json")
    if storage.stat(state) is None:
        return frozenset()
    try:
        return frozenset(file["filename"] for file in json.loads(storage.read(state))["_data_files"])
    except (ValueError, KeyError, TypeError) as error:
        raise CallerError(f"{state}: not the state of a saved Hugging Face data set ({error!r})") from error


def relative(uri: str, folder: str) -> str | None:
    """Path of what lies in a folder, also of a name that had to be percent-encoded; None if it does not lie there."""
    if uri.startswith(folder.rstrip("/") + "/"):
        return uri.removeprefix(folder).lstrip("/")
    if uri.startswith("file://") and uri.startswith((encoded := "file://" + quote(folder)).rstrip("/") + "/"):
        return uri.removeprefix(encoded).lstrip("/")
    return None
