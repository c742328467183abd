"""Rows and what is known of them <-> the bytes of a score file, under a seal: a digest of all of them in their footer.

The seal is SHA-256 over the file with 64 zeros in its place. So every change of a byte is found when the file is read,
in the footer's statistics too, which no checksum of a Parquet page covers. Files of outputs that were begun before have
none, and are taken as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.storage import FetchFailed

METADATA_KEY = b"iqa"
SEAL_KEY = b"iqa.seal"

_BLANK = b"0" * 64

_MARK = SEAL_KEY + b"\x18\x40"
"""What stands before the seal: its key, and by Thrift's compact protocol a string of 64 bytes. Text in the metadata is
JSON, which has no such bytes, and the metadata stands last in a file."""

ROW_GROUP_ROWS = 131_072
"""Of a pack: large enough for an engine to scan at full speed."""


THREADED_BYTES = 2**20
"""Of a file that Arrow decodes by several threads: a chunk's is read in less time than they take to start."""


class Damaged(FetchFailed):
    """A score file is not what was committed: it was cut, changed, or is another one."""


def metadata_of(rows: pa.Table) -> dict[str, Any]:
    """What was committed beside the rows. Raises ValueError for what no ledger wrote."""
    found = json.loads((rows.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    if not isinstance(found, dict):
        raise ValueError("it does not say what it holds")
    return found


def described(rows: pa.Table, metadata: Mapping[str, Any]) -> pa.Table:
    """The rows with their metadata in the schema, where `metadata_of` finds it."""
    return rows.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def serialised(rows: pa.Table, metadata: Mapping[str, Any]) -> tuple[bytes, str]:
    """A score file and its seal."""
    table, buffer = described(rows, metadata), io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        writer.write_table(table, ROW_GROUP_ROWS)
        writer.add_key_value_metadata({SEAL_KEY: _BLANK})
    data = bytearray(buffer.getvalue())
    begin = data.rindex(_MARK + _BLANK) + len(_MARK)
    seal = _digest(data, begin)
    data[begin : begin + len(_BLANK)] = seal.encode()
    return bytes(data), seal


def seal_of(data: bytes) -> str | None:
    """Of a score file's bytes; None where they have none. Raises ValueError where they are not those that it was made
    for."""
    place = data.rfind(_MARK)
    if place < 0:
        return None
    begin = place + len(_MARK)
    seal = data[begin : begin + len(_BLANK)]
    if _digest(data, begin).encode() != seal:
        raise ValueError("its bytes are not those that were written")
    return seal.decode()


def rows_of(data: bytes, columns: list[str] | None) -> pa.Table:
    """Rows of a score file's bytes, these columns of them, as `described` made them. Raises ValueError."""
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        lacking = [name for name in columns or () if name not in file.schema_arrow.names]
        if lacking:
            raise ValueError(f"it has no column {lacking[0]}")
        rows = file.read(columns, use_threads=len(data) > THREADED_BYTES)
        rows = rows if columns is None else rows.select(columns)
        return described(rows, metadata_of(rows))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error


def _digest(data: bytes | bytearray, begin: int) -> str:
    """Of the file with zeros where its seal is."""
    view = memoryview(data)
    digest = hashlib.sha256(view[:begin])
    digest.update(_BLANK)
    digest.update(view[begin + len(_BLANK) :])
    return digest.hexdigest()
