"""A folder's sources -> those that hold images, each with the table beside it that describes it, if there is one.

A table describes files when at least half of its rows name files of its folder, or members of the tar of the same name.
One in which two rows name the same file is refused. Which tables describe files is known only once the whole folder is
listed, so the listing waits in a temporary file. Memory: 8 bytes per row and naming column, for the tables in the
folders above the file that is being looked up.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iqa_core.corpus.carried_types import unwrapped
from iqa_core.corpus.chunks import ReadOptions, Survey
from iqa_core.corpus.readers import lists, parquet, webdataset
from iqa_core.corpus.readers.metadata import column_names, named, names_of_file, names_of_member
from iqa_core.corpus.readers.tabular import holds_images
from iqa_core.corpus.sources import Kind, Listing, Metadata, Source, extension
from iqa_core.errors import CallerError
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute, is_local

NAMES = (
    *("file_name", "filename", "member_name", "file_path", "image_path", "path", "image", "file"),
    *("key", "__key__", "image_id", "id"),
)
"""Columns that may name files, in any case. Of several, the one that names most files counts; of equals the first."""

ROWS_PER_IMAGE = 32
"""A table with more rows per image is not read: its names would fill the memory, and so many downloads do not fail."""

STATUS, SUCCESS = "status", "success"
"""Column and value with which img2dataset marks a row whose image was downloaded."""

TAR_THREADS = 16
"""Remote tars read at once, since each costs round trips."""

SPOOLED = 4096
"""Sources per line of the temporary file."""

_Named = tuple[Source, tuple[str, ...]]
"""A source, and the URIs of tables that name it, the closest first."""


@dataclass(slots=True)
class _Column:
    """The file names in a column of a table, as hashes."""

    name: str
    hashes_N: NDArray[np.int64]
    """Sorted hashes of its values but null."""
    is_hit_N: NDArray[np.bool_]
    """Whether the file was seen; set at the first of equal hashes alone."""

    @classmethod
    def of(cls, name: str, hashes: array[int]) -> _Column:
        hashes_N = np.sort(np.asarray(hashes, np.int64))
        return cls(name, hashes_N, np.zeros(len(hashes_N), np.bool_))

    def has(self, names: Iterable[str]) -> bool:
        """Whether the column has one of a file's names; if so, note that the file was seen."""
        for name in names:
            place = int(np.searchsorted(self.hashes_N, hash(name)))
            if place < len(self.hashes_N) and self.hashes_N[place] == hash(name):
                self.is_hit_N[place] = True
                return True
        return False

    @property
    def names_file_N(self) -> NDArray[np.bool_]:
        """For each row that names something: whether that file was seen."""
        return self.is_hit_N[np.searchsorted(self.hashes_N, self.hashes_N)]

    @property
    def doubled(self) -> frozenset[int]:
        """Hashes of names that stand in several rows and whose file was seen."""
        is_again_N = np.append(False, self.hashes_N[1:] == self.hashes_N[:-1])[: len(self.hashes_N)]
        return frozenset(self.hashes_N[is_again_N & self.names_file_N].tolist())


@dataclass(slots=True)
class _Table:
    """A table that may describe files."""

    source: Source
    tar: Source | None = None
    """The tar of the same name, whose members it may describe."""
    scope: str = ""
    """Folder of the files that it may describe."""
    images: int = 0
    """Number of images in that folder."""
    rows: int = 0
    absent: int = 0
    """Rows that say themselves that they have no file: a failed download."""
    columns: list[_Column] = field(default_factory=list)
    """Columns that may name files; empty before the table is read and after it is settled."""
    survey: Survey | None = None
    is_readable: bool = True
    """False for a file that is no list at all."""
    chosen: Metadata | None = None
    """How it describes files; None where it does not."""

    @property
    def folder(self) -> str:
        return self.source.uri.rsplit("/", 1)[0]

    @property
    def stem(self) -> str:
        return self.source.uri.rpartition(".")[0]


@dataclass(slots=True)
class Beside:
    """Finds the tables that describe files; called for each folder among the inputs of one listing."""

    storage: Storage
    options: ReadOptions
    listing: Listing
    named: frozenset[str]
    """URIs of the inputs: a table that is an input itself holds images, and describes none."""
    surveys: dict[str, Survey] = field(default_factory=dict)
    """URI of a table that describes files -> its columns."""

    @classmethod
    def of(cls, storage: Storage, options: ReadOptions, listing: Listing, inputs: Iterable[str]) -> Beside:
        """An instance for these inputs, with nothing found so far."""
        return cls(storage, options, listing, frozenset(map(absolute, inputs)))

    def __call__(self, folder: str, sources: Iterator[Source]) -> Iterator[Source]:
        """The folder's sources that hold images, with their tables; see `iqa_core.corpus.sources.TableMatching`.

        Raises CallerError where two rows of a table name the same file.
        """
        with _Spool((source, ()) for source in sources) as spool:
            tables = {
                source.uri: _Table(source)
                for source, _ in spool
                if source.kind in (Kind.PARQUET, Kind.LIST) and source.uri not in self.named
            }
            if not tables:
                yield from (source for source, _ in spool if source.kind is not Kind.LIST)
                return
            self._give_scopes(tables.values(), spool)
            self._match_tars([table for table in tables.values() if table.tar is not None], folder)
            with _Spool(self._matched(tables.values(), spool)) as matched:
                for table in tables.values():
                    self._settle(table)
                yield from self._told(tables, matched)

    def _give_scopes(self, tables: Iterable[_Table], sources: Iterable[_Named]) -> None:
        """Set what each table may describe: the tar or folder of its name, if that has images, else its own folder."""
        by_stem = {table.stem: table for table in tables}
        images = dict.fromkeys((*by_stem, *(table.folder for table in tables)), 0)
        for source, _ in sources:
            if source.kind is Kind.WEBDATASET and (stem := source.uri.rpartition(".")[0]) in by_stem:
                by_stem[stem].tar = source
            elif source.kind is Kind.IMAGE:
                for ancestor in _ancestors(source.uri):
                    if ancestor in images:
                        images[ancestor] += 1
        for table in tables:
            table.scope = table.stem if images[table.stem] or table.tar else table.folder
            table.images = images[table.scope]

    def _matched(self, tables: Iterable[_Table], sources: Iterable[_Named]) -> Iterator[_Named]:
        """The sources, each image with the tables that name it."""
        by_scope: dict[str, list[_Table]] = defaultdict(list)
        for table in tables:
            if table.tar is None and table.images:
                by_scope[table.scope].append(table)
        loaded: dict[str, list[_Table]] = {}
        for source, _ in sources:
            for left in [around for around in loaded if not source.uri.startswith(around + "/")]:
                for table in loaded.pop(left):
                    self._settle(table)
            found: list[str] = []
            for around in _ancestors(source.uri) if source.kind is Kind.IMAGE else ():
                if around in by_scope and around not in loaded:
                    loaded[around] = [table for table in by_scope[around] if self._load(table)]
                found += [table.source.uri for table in loaded.get(around, ()) if _names(table, source.uri)]
            yield source, tuple(found)

    def _match_tars(self, tables: Sequence[_Table], folder: str) -> None:
        """Match tables with the tars of their names, a few at a time: each costs round trips."""
        with ThreadPoolExecutor(1 if is_local(folder) else TAR_THREADS) as pool:
            for begin in range(0, len(tables), TAR_THREADS):
                for table in pool.map(self._match_members, tables[begin : begin + TAR_THREADS]):
                    self._settle(table)

    def _match_members(self, table: _Table) -> _Table:
        tar = table.tar
        if tar is None or not self._load(table):
            return table
        size = tar.size or 0
        seen = webdataset.SAMPLE_BYTES if not is_local(tar.uri) else size
        try:
            members = webdataset.image_names(self.storage, tar, min(seen, size))
        except (Missing, Forbidden, FetchFailed):
            members = []
        hits = sum(_has(table, names_of_member(name)) for name in members)
        if seen < size and hits and 2 * hits >= len(members) and table.rows <= ROWS_PER_IMAGE * hits * size / seen:
            for column in table.columns:  # the beginning of a remote tar stands for all of it
                if column.is_hit_N.any():
                    column.is_hit_N[:] = True
        return table

    def _load(self, table: _Table) -> bool:
        """Read the table's names; False where it has none, or holds images itself."""
        try:
            is_read = self._read_names(table)
        except (Missing, Forbidden, FetchFailed):
            return False
        except CallerError:
            table.is_readable = False
            return False
        return is_read and bool(table.columns)

    def _read_names(self, table: _Table) -> bool:
        read = self._read_parquet if table.source.kind is Kind.PARQUET else self._read_list
        hashes: dict[str, array[int]] = defaultdict(lambda: array("q"))
        statuses: Counter[str] = Counter()
        if not read(table, hashes, statuses):
            return False
        if SUCCESS in statuses:
            table.absent = statuses.total() - statuses[SUCCESS]
        table.columns = [_Column.of(column, values) for column, values in hashes.items()]
        return True

    def _read_parquet(self, table: _Table, hashes: dict[str, array[int]], statuses: Counter[str]) -> bool:
        source = table.source
        file = parquet.opened(self.storage, source.uri, source.size or 0)
        schema = file.schema_arrow
        table.rows = file.metadata.num_rows
        is_many = table.tar is None and table.rows > ROWS_PER_IMAGE * table.images
        if is_many or holds_images(schema, self.options) or len(set(schema.names)) < len(schema.names):
            return False
        table.survey = parquet.columns_of(file, schema.names)
        with parquet.faults_named(source.uri):
            for column in _may_name(schema):
                for names in column_names(file, _metadata(source, column)):
                    hashes[column].extend(hash(name) for name in names if name is not None)
            for column in {STATUS} & set(schema.names):
                for names in column_names(file, _metadata(source, column)):
                    statuses.update(name for name in names if name is not None)
        return True

    def _read_list(self, table: _Table, hashes: dict[str, array[int]], statuses: Counter[str]) -> bool:
        source = table.source

        def note(values: Mapping[str, Any]) -> None:
            table.rows += 1
            for column, value in values.items():
                if isinstance(value, str | int) and (name := named(value, source.uri)) is not None:
                    if column.lower() in NAMES:
                        hashes[column].append(hash(name))
                    if column == STATUS:
                        statuses[name] += 1

        table.survey = lists.columns_of(self.storage, source.uri, source.size or 0, self.options, note)
        return True

    def _settle(self, table: _Table) -> None:
        """Decide whether the table describes files, and free its names.

        Raises CallerError where two of its rows name the same file.
        """
        columns, table.columns = table.columns, []
        ranked = [(-int(column.names_file_N.sum()), NAMES.index(column.name.lower()), column) for column in columns]
        hits, _, best = min(ranked, key=lambda item: item[:2], default=(0, 0, None))
        if best is None or not hits or -2 * hits < table.rows - table.absent:
            return
        if best.doubled:
            self._refuse(table.source, best)
        table.chosen = _metadata(table.source, best.name)
        assert table.survey is not None
        self.surveys[table.source.uri] = table.survey
        self.listing.tables += 1
        self.listing.rows_without_file += max(table.rows + hits, table.absent)

    def _refuse(self, source: Source, column: _Column) -> None:
        if source.kind is Kind.PARQUET:
            file = parquet.opened(self.storage, source.uri, source.size or 0)
            names = (name for some in column_names(file, _metadata(source, column.name)) for name in some)
        else:
            _, _, records = lists.opened(self.storage, source.uri, source.size or 0)
            names = (named(record.values.get(column.name), source.uri) for record in records)
        doubled = column.doubled
        first = next(name for name in names if name is not None and hash(name) in doubled)
        raise CallerError(
            f"{source.uri}: {len(doubled):,} of the files beside it have several rows each ({first} is one, in column "
            f"{column.name}); leave one row per file, or move the table elsewhere and name it as an --input of its own"
        )

    def _told(self, tables: Mapping[str, _Table], sources: Iterable[_Named]) -> Iterator[Source]:
        """The sources without the tables that describe files; what these describe refers to them."""
        by_tar = {table.tar.uri: table.chosen for table in tables.values() if table.tar is not None}
        for source, named_by in sources:
            table = tables.get(source.uri)
            is_list = source.kind is Kind.LIST
            if is_list and table is not None and table.chosen is None:
                kind = extension(source.uri)
                self.listing.ignored[kind if table.is_readable else f"{kind} that cannot be read"] += 1
            if is_list or (table is not None and table.chosen is not None):
                continue
            found = (by_tar.get(source.uri), *(tables[uri].chosen for uri in named_by))
            yield replace(source, metadata=next(filter(None, found), None))


class _Spool:
    """Sources in an unnamed temporary file, to be iterated several times."""

    def __init__(self, sources: Iterator[_Named]) -> None:
        self._sources = sources
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed on leaving)

    def __enter__(self) -> _Spool:
        try:
            while some := [
                (s.uri, s.kind, s.key, s.size, s.etag, found) for s, found in islice(self._sources, SPOOLED)
            ]:
                self._file.write(json.dumps(some).encode() + b"\n")
        except BaseException:  # an input that cannot be listed; __exit__ is not called where __enter__ raised
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[_Named]:
        self._file.seek(0)
        for line in self._file:
            for uri, kind, key, size, etag, found in json.loads(line):
                yield Source(uri, Kind(kind), key, size, etag), tuple(found)


def _names(table: _Table, uri: str) -> bool:
    """Whether the table names this file."""
    return _has(table, names_of_file(uri, table.source.uri))


def _has(table: _Table, names: Sequence[str]) -> bool:
    """Whether a column has one of these names; every column that has notes it."""
    return sum(column.has(names) for column in table.columns) > 0


def _metadata(source: Source, column: str) -> Metadata:
    return Metadata(source.uri, source.size, source.etag, column)


def _may_name(schema: pa.Schema) -> list[str]:
    """Columns whose names and types are those of file names."""
    kinds = {field.name: unwrapped(field.type) for field in schema if field.name.lower() in NAMES}
    return [name for name, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_integer(kind)]


def _ancestors(uri: str) -> Iterator[str]:
    """Folders above a file, the closest first."""
    while (cut := uri.rfind("/")) > 0:
        uri = uri[:cut]
        yield uri
