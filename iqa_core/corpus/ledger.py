"""Complete chunks -> one Parquet file each; which files exist is all there is to know about what is done."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.storage import Storage, join

METADATA_KEY = b"iqa"

_CHUNK_FILE = re.compile(r"(\d{6}-\d{6})\.parquet")


def chunk_name(segment: int, index: int) -> str:
    return f"{segment:06d}-{index:06d}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The folder `<output>/scores`. Any number of writers may commit to it: equal chunks have equal rows."""

    storage: Storage
    output: str
    folder: str = "scores"
    """Another one for chunks of another kind: exports have one per format."""

    def finished(self) -> set[str]:
        """Names of the chunks that are committed."""
        matches = (_CHUNK_FILE.fullmatch(name) for name in self.storage.names(join(self.output, self.folder)))
        return {match[1] for match in matches if match}

    def commit(self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any]) -> None:
        """Serialised first, then put in place in one atomic step; a file that is there is replaced whole."""
        buffer = io.BytesIO()
        described = rows.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True)})
        pq.write_table(described, buffer, compression="zstd")
        self.storage.put(self._uri(chunk), buffer.getvalue(), scratch=join(self.output, ".tmp"))

    def read(self, chunk: str, columns: list[str] | None = None) -> pa.Table:
        """Rows of a committed chunk in ordinal order: row i is ordinal i."""
        return pq.read_table(io.BytesIO(self.storage.read(self._uri(chunk))), columns=columns)

    def metadata(self, rows: pa.Table) -> dict[str, Any]:
        """What was committed beside the rows."""
        found: dict[str, Any] = json.loads((rows.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        return found

    def remove(self, chunk: str) -> None:
        """Take back a chunk that the plan no longer has."""
        self.storage.delete(self._uri(chunk))

    def _uri(self, chunk: str) -> str:
        return join(join(self.output, self.folder), f"{chunk}.parquet")
