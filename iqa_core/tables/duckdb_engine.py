"""Parquet files of this machine -> a DuckDB connection that can read them, and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from iqa_core.errors import CallerError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_GIB = 4.0
"""Memory that the engine may use; beyond it, DuckDB spills to its temporary folder."""


@contextmanager
def engine(folders: Sequence[Path] = (), memory_gib: float = MEMORY_GIB) -> Iterator[DuckDBPyConnection]:
    """A connection to an empty database in memory; its SQL reaches no files outside `folders`, extensions or settings.

    Raises CallerError where DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise CallerError("this needs DuckDB: pip install 'iqa-ray[select]'") from error
    with tempfile.TemporaryDirectory(prefix="iqa-engine-") as scratch:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": scratch,
            "memory_limit": f"{memory_gib * 1024:.0f}MiB",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
        connection = duckdb.connect(":memory:", config=settings)
        allowed = ", ".join(literal(f"{folder}/") for folder in folders)
        connection.execute(f"SET allowed_directories = [{allowed}]")
        connection.execute("SET enable_progress_bar = false")
        # Arrow leaves NaN out of Parquet's statistics, from which DuckDB would conclude that isnan() is never true
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        connection.execute("SET TimeZone = 'UTC'")  # a text without a zone is compared the same on every machine
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            yield connection
        finally:
            connection.close()


PLAIN_TYPES = {
    pa.null(): "INTEGER",
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    **dict.fromkeys([pa.string(), pa.large_string(), pa.string_view()], "VARCHAR"),
    **dict.fromkeys([pa.binary(), pa.large_binary(), pa.binary_view()], "BLOB"),
    **dict.fromkeys([pa.date32(), pa.date64()], "DATE"),
    **dict.fromkeys([pa.time32("s"), pa.time32("ms"), pa.time64("us")], "TIME"),
    pa.time64("ns"): "TIME_NS",
    pa.timestamp("ns"): "TIMESTAMP_NS",
    **dict.fromkeys([pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us")], "TIMESTAMP"),
    pa.uuid(): "UUID",
    pa.json_(): "JSON",
}
"""Arrow type without parameters -> DuckDB type."""


def engine_type(kind: pa.DataType) -> str | None:
    """DuckDB type of a Parquet column; None where DuckDB would read other values than the file has.

    None for decimals of more than 38 digits (read as float64), durations (as whole numbers), and the rarer types.
    """
    if kind in PLAIN_TYPES:
        return PLAIN_TYPES[kind]
    if pa.types.is_dictionary(kind):
        return engine_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE"
    if pa.types.is_decimal(kind) and 0 <= kind.scale <= kind.precision <= 38:
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_fixed_size_binary(kind):
        return "BLOB"
    if pa.types.is_struct(kind):
        parts = {field.name: engine_type(field.type) for field in kind}
        is_whole = parts and len({name.lower() for name in parts}) == kind.num_fields and all(parts.values())
        is_named = is_whole and all(parts)
        return f"STRUCT({', '.join(f'{quoted(name)} {part}' for name, part in parts.items())})" if is_named else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        part = engine_type(kind.value_type)
        return None if part is None else f"{part}[]"
    return None


def quoted(name: str) -> str:
    """A column's name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def file_list(files: Sequence[Path]) -> str:
    """Paths as a SQL list."""
    return "[" + ", ".join(literal(str(file)) for file in files) + "]"
