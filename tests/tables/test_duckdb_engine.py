"""The engine reads the folders that it was given, and nothing else of the machine."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.tables.duckdb_engine import engine, file_list, literal, quoted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("given", "given-not", "other"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"it's": [1, 2]}), tmp_path / name / "it's.parquet")
    return tmp_path


def test_it_reads_what_lies_in_the_given_folder(folder: Path) -> None:
    files = [folder / "given" / "it's.parquet"]
    with engine([folder / "given"]) as connection:
        query = f"""SELECT sum({quoted("it's")}), {literal("it's")} FROM read_parquet({file_list(files)})"""
        assert connection.execute(query).fetchall() == [(3, "it's")]


@pytest.mark.parametrize(
    "statement",
    [
        "FROM read_parquet('{folder}/other/*.parquet')",
        "FROM read_parquet('{folder}/given-not/*.parquet')",
        "FROM read_parquet('{folder}/given/../other/*.parquet')",
        "FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '{folder}/other/x.parquet'",
        "ATTACH '{folder}/other/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET memory_limit = '1TB'",
    ],
)
def test_it_does_nothing_outside(folder: Path, statement: str) -> None:
    with engine([folder / "given"]) as connection, pytest.raises(duckdb.Error):
        connection.execute(statement.format(folder=folder)).fetchall()
    assert sorted(path.name for path in (folder / "other").iterdir()) == ["it's.parquet"]


def test_variables_of_the_program_are_no_tables() -> None:
    secret = pa.table({"x": [1]})
    with engine() as connection, pytest.raises(duckdb.Error, match="secret"):
        connection.execute("FROM secret").fetchall()
    assert secret.num_rows == 1
