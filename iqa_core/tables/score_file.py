"""Rows and their metadata <-> the bytes of a score file, under a seal: a digest of all bytes, in the footer.

The seal is SHA-256 over the file with 64 zeros in its place. So every changed byte is found when the file is read, also
in the footer's statistics, which no checksum of a Parquet page covers. Files of outputs that were begun before seals
have none, and are taken as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.columns import plain
from iqa_core.errors import CallerError

METADATA_KEY = b"iqa"
SEAL_KEY = b"iqa.seal"

SEALED = "sealed"
"""Key in the metadata, which other programs keep when they rewrite a file; they do not keep the seal itself."""

_BLANK = b"0" * 64

_MARK = SEAL_KEY + b"\x18\x40"
"""What stands before the seal: its key, and by Thrift's compact protocol a string of 64 bytes. Text before it in the
metadata is JSON, which has no such bytes."""

ROW_GROUP_ROWS = 131_072
"""Rows in a row group of a pack: enough for an engine to scan at full speed."""


THREADED_BYTES = 2**20
"""Size above which Arrow decodes a file in several threads: a chunk's file takes less time than they take to start."""


SHOWN = 200
"""Characters of Arrow's error in a message: it lists whole schemas."""

ROWS_AT_ONCE = 8192
"""Rows decoded at once of a file that is checked and not kept."""


class Damaged(CallerError):
    """A score file is not what was committed: it was cut, changed, or is another one.

    Only the output's owner can tell whether it may go, so it is named and left.
    """

    def __init__(self, uri: str, what: object) -> None:
        why = " ".join(str(what).split())[:SHOWN] or type(what).__name__
        super().__init__(
            f"{uri}: it is no whole score file of this output ({why}); remove it, and the same command as before "
            "scores its images anew"
        )


class LaterVersion(ValueError):
    """A score file is of a table version that this program does not know."""


def metadata_of(rows: pa.Table | pa.Schema) -> dict[str, Any]:
    """Metadata that were committed with the rows. Raises ValueError for metadata that no ledger wrote."""
    schema = rows if isinstance(rows, pa.Schema) else rows.schema
    found = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    if not isinstance(found, dict):
        raise ValueError("its metadata is no JSON object")
    return found


def described(rows: pa.Table, metadata: Mapping[str, Any]) -> pa.Table:
    """The rows with these metadata in the schema, where `metadata_of` finds them."""
    return rows.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def serialised(rows: pa.Table, metadata: Mapping[str, Any]) -> tuple[bytes, str]:
    """Bytes of a score file, and its seal."""
    table, buffer = described(rows, {**metadata, SEALED: True}), io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table, ROW_GROUP_ROWS)
        writer.add_key_value_metadata({SEAL_KEY: _BLANK})
    data = bytearray(buffer.getvalue())
    begin = data.rindex(_MARK + _BLANK) + len(_MARK)
    seal = _digest(data, begin)
    data[begin : begin + len(_BLANK)] = seal.encode()
    return bytes(data), seal


def seal_of(data: bytes) -> str | None:
    """The seal in a score file's bytes; None where they have none.

    Raises ValueError where it is not the seal of these bytes, or they are no Parquet file.
    """
    try:
        told = pq.ParquetFile(io.BytesIO(data)).metadata.metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error
    if (seal := told.get(SEAL_KEY)) is None:
        return None
    place = data.rfind(_MARK + seal)
    if place < 0 or _digest(data, place + len(_MARK)).encode() != seal:
        raise ValueError("its bytes are not those that were written")
    return seal.decode()


def deserialised(
    data: bytes,
    columns: list[str] | None,
    schema: pa.Schema | None = None,
    *,
    table_version: int | None = None,
    is_whole: bool = False,
) -> pa.Table:
    """Rows of a score file's bytes, as `described` made them. columns: those that are read; None is all.

    schema: columns that it must have, dictionary-encoded ones as their value type; table_version: the latest that is
    known, None where files say none; is_whole: all of a file without a seal is looked at.
    Raises LaterVersion, ValueError, and what else Arrow and Python raise of anything but a score file.
    """
    file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
    known = metadata_of(file.schema_arrow)
    check_version(known, table_version)
    is_sealed = SEAL_KEY in (file.metadata.metadata or {})
    if known.get(SEALED) and not is_sealed:
        raise ValueError("another program has written it anew")
    if schema is not None:
        _check_columns(plain(file.schema_arrow), schema)
    if is_whole and not is_sealed:
        for _ in file.iter_batches(ROWS_AT_ONCE):
            pass
    rows = file.read(columns, use_threads=len(data) > THREADED_BYTES)
    if metadata_of(rows) != known:  # Parquet keeps two copies, and Arrow reads either one
        raise ValueError("its two copies of its metadata differ")
    known.pop(SEALED, None)
    return described(rows if columns is None else rows.select(columns), known)  # reading `a` also reads `a.b`


def check_version(known: Mapping[str, Any], latest: int | None) -> None:
    """Raises LaterVersion for metadata of a later table version; to be asked before anything else is checked."""
    if latest is not None and (version := known.get("table_version", latest)) not in range(latest + 1):
        raise LaterVersion(f"it is of table version {version}, up to {latest} is known")


def _check_columns(found: pa.Schema, planned: pa.Schema) -> None:
    """Raises ValueError that names the first column that differs."""
    if absent := [name for name in planned.names if name not in found.names]:
        raise ValueError(f"it has no column {absent[0]}")
    if strange := [name for name in found.names if name not in planned.names]:
        raise ValueError(f"it has a column {strange[0]}, which this table does not have")
    for kind in planned:
        if found.field(kind.name).type != kind.type:
            raise ValueError(f"its column {kind.name} is {found.field(kind.name).type}, not {kind.type}")


def _digest(data: bytes | bytearray, begin: int) -> str:
    """SHA-256, hex, of the file with zeros in the place of its seal, which begins here."""
    view = memoryview(data)
    digest = hashlib.sha256(view[:begin])
    digest.update(_BLANK)
    digest.update(view[begin + len(_BLANK) :])
    return digest.hexdigest()
