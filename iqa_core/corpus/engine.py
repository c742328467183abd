"""Parquet files of this machine -> a DuckDB connection that can read them, and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_core.errors import CallerError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_GIB = 4.0
"""What the engine may hold; beyond, it spills to its temporary folder."""


@contextmanager
def engine(folders: Sequence[Path] = (), memory_gib: float = MEMORY_GIB) -> Iterator[DuckDBPyConnection]:
    """An empty database in memory. Files outside of `folders`, extensions and further settings are closed to its SQL.

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
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            yield connection
        finally:
            connection.close()


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string as SQL."""
    return "'" + text.replace("'", "''") + "'"


def file_list(files: Sequence[Path]) -> str:
    """Paths as a SQL list."""
    return "[" + ", ".join(literal(str(file)) for file in files) + "]"
