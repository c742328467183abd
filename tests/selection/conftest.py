"""A selection as a user makes it, without a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.command import parse
from jobs.selection.flow import select
from jobs.selection.settings import SelectSettings
from tests.selection.score_tables import write_score_table

Chosen = Callable[..., dict[str, str | None]]


@pytest.fixture
def chosen(tmp_path: Path) -> Chosen:
    """Rows and flags -> key -> reason (None: kept)."""

    def run(
        rows: Sequence[Mapping[str, Any]], *flags: object, carried: pa.Schema | None = None
    ) -> dict[str, str | None]:
        scores = tmp_path / f"scores{len(list(tmp_path.iterdir()))}"
        write_score_table(scores, rows, carried)
        output = scores.with_name(scores.name + "-chosen")
        given = ["--scores", str(scores), "--output", str(output), "--no-report"]
        assert select(parse(SelectSettings, [*given, *map(str, flags)])) == 0
        return {row["key"]: row["reason"] for row in decisions(output).to_pylist()}

    return run


def decisions(output: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted((output / "decisions").glob("*.parquet"))])


def record(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "selection.json").read_text())
    return found
