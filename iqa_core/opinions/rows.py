"""An annotation file -> its rows, each with its place in the file, and cells checked for their type."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iqa_core.errors import CallerError

NO_OPINION = "no opinion"
"""Why a row whose mean opinion is empty gives none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, by column."""

    place: str
    """File and line (or number of the item), for messages."""
    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        """The text of a cell. Raises CallerError when there is no such column, or nothing in it."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value:
            raise CallerError(f"{self.place}: {name} is {value!r}; a text is wanted")
        return value

    def number(self, name: str) -> float | None:
        """The number of a cell; None where it is empty or NaN. Raises CallerError when it is no number."""
        return to_number(self.values.get(name), f"{self.place}: {name}")

    def name(self, column: str | None, default: str = "") -> str | None:
        """The text of a column, or of the default one where none is asked for; None for an empty cell.

        Raises CallerError when the column that is asked for is not there.
        """
        if column is not None and column not in self.values:
            raise CallerError(f"{self.place}: no column {column}; there are {', '.join(self.values)}")
        value = self.values.get(column or default)
        return None if value in (None, "") else str(value)


def to_number(value: Any, place: str) -> float | None:
    """A number, also one written as text; None for nothing or NaN. Raises CallerError on anything else."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise CallerError(f"{place} is {value!r}; a number is wanted") from None
    if isinstance(value, bool) or math.isinf(number):
        raise CallerError(f"{place} is {value!r}; a finite number is wanted")
    return None if math.isnan(number) else number


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a .csv, .jsonl, .json (a list of objects) or .parquet file.

    Raises CallerError when the file is missing, of another kind, or malformed; the message has the line.
    """
    reader = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _json_rows, ".parquet": _parquet_rows}.get(path.suffix)
    if reader is None:
        raise CallerError(f"{path}: annotations are .csv, .jsonl, .json or .parquet files")
    try:
        yield from reader(path)
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError(f"{path} cannot be read: {error}") from None


def _csv_rows(path: Path) -> Iterator[Row]:
    header: list[str] | None = None
    for place, cells in csv_cells(path):
        if header is None:
            header = cells
            if doubled := sorted(name for name, times in Counter(header).items() if times > 1):
                raise CallerError(f"{path}: its header has {', '.join(doubled)} more than once; rename all but one")
            continue
        if len(cells) != len(header):
            raise CallerError(f"{place}: {len(cells)} fields, but the header has {len(header)}")
        yield Row(place, dict(zip(header, cells, strict=True)))


def csv_cells(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of each line that is not blank, the header among them. Raises CallerError where it is no CSV."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            for cells in lines:
                if cells:
                    yield f"{path}, line {lines.line_num}", cells
        except csv.Error as error:
            raise CallerError(f"{path}, line {lines.line_num}: no CSV ({error})") from None


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _object(_parsed(line, f"{path}, line {number}"), f"{path}, line {number}")


def _json_rows(path: Path) -> Iterator[Row]:
    items = _parsed(path.read_text(encoding="utf-8-sig"), str(path))
    if not isinstance(items, list):
        raise CallerError(f"{path} is no JSON list of objects")
    for number, item in enumerate(items, start=1):
        yield _object(item, f"{path}, item {number}")


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CallerError(f"{place} is not JSON: {error}") from None


def _object(item: Any, place: str) -> Row:
    if not isinstance(item, dict):
        raise CallerError(f"{place} is no JSON object")
    return Row(place, item)


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=4096):
                for item in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", item)
    except pa.ArrowInvalid as error:
        raise CallerError(f"{path} is no Parquet file: {error}") from None
