"""What travels between the processes of a cluster: tables as values of a column, a chunk's failure as data."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass

import pyarrow as pa

from iqa_core.errors import IqaError, RunError


@dataclass(frozen=True, slots=True)
class ChunkFailure:
    """A chunk whose source could not be read; it stays unfinished."""

    chunk: str
    message: str
    is_fatal: bool
    """Nothing else can be read either (credentials): the run stops."""

    def to_json(self) -> str:
        """The fields by name."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ChunkFailure:
        """The failure that `to_json` wrote."""
        return cls(**json.loads(text))


def failure_of(chunk: str, error: Exception) -> ChunkFailure:
    """A reader's exception as data. Bad credentials stop the run; any other costs the chunk."""
    known = isinstance(error, IqaError)
    message = str(error) if known else f"reading it failed with {type(error).__name__}: {error}"
    return ChunkFailure(chunk, message, is_fatal=isinstance(error, RunError))


def to_ipc(table: pa.Table) -> bytes:
    """A table as one value of a column."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def from_ipc(scalar: pa.Scalar) -> pa.Table:
    """The table that `to_ipc` made a value of; its rows are not copied."""
    return pa.ipc.open_stream(scalar.as_buffer()).read_all()
