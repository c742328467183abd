"""Two score tables of the same images -> how the second one's scores differ, and which images moved most."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_core.corpus.originals import LOCATOR
from iqa_core.errors import CallerError, listed
from iqa_core.report.gathered import SHEET_IMAGES
from iqa_core.report.page import Moved
from iqa_core.tables.duckdb_engine import engine, file_list, quoted
from iqa_core.tables.scores.columns import SCORED
from iqa_core.tables.scores.score_table import ScoreTable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def compare_tables(here: ScoreTable, there: ScoreTable) -> Moved:
    """How scores differ, joined on (source, key): in the dimensions that both tables have, and in the reward.

    A dimension whose range is another there is left out.

    Raises CallerError where the tables have no dimension or no image in common.
    """
    names = [name for name in here.contract.dimensions if name in there.contract.dimensions]
    if not names:
        raise CallerError(
            f"{there.uri} has the dimensions {listed(there.contract.dimensions)}, and none of "
            f"{listed(here.contract.dimensions)}: there is nothing to compare"
        )

    def is_alike(name: str) -> bool:
        return here.contract.scale_of(name).range == there.contract.scale_of(name).range

    with tempfile.TemporaryDirectory(prefix="iqa-compare-") as scratch:
        files = [table.local_files(Path(scratch) / str(i)) for i, table in enumerate((here, there))]
        with engine(sorted({file.parent for paths in files for file in paths})) as connection:
            for view, paths in zip(("here", "there"), files, strict=True):
                connection.execute(
                    f"CREATE VIEW {view} AS SELECT * FROM read_parquet({file_list(paths)}) WHERE status = '{SCORED}'"
                )
            return _compared(connection, there.uri, [*filter(is_alike, names), "reward"])


def _compared(connection: DuckDBPyConnection, uri: str, names: list[str]) -> Moved:
    both = "here JOIN there ON here.source = there.source AND here.key = there.key"
    figures = ", ".join(_figures(name) for name in names)
    [(images, *values)] = connection.execute(f"SELECT count(*), {figures} FROM {both}").fetchall()
    if not images:
        raise CallerError(f"{uri} has scored none of these images: there is nothing to compare")
    keys = ("mean_here", "mean_there", "drift", "spread", "correlation")
    rows: list[dict[str, Any]] = [
        {"name": name, **dict(zip(keys, values[5 * i : 5 * i + 5], strict=True))} for i, name in enumerate(names)
    ]
    columns = ["key", *LOCATOR]
    most = connection.execute(
        f"SELECT {', '.join(f'here.{quoted(name)}' for name in columns)}, here.reward, there.reward FROM {both} "
        "WHERE isfinite(here.reward) AND isfinite(there.reward) "
        f"ORDER BY abs(here.reward - there.reward) DESC, here.source, here.key LIMIT {SHEET_IMAGES}"
    ).fetchall()
    names = [*columns, "reward_here", "reward_there"]
    return Moved(uri, images, rows, [dict(zip(names, row, strict=True)) for row in most])


def _figures(name: str) -> str:
    """SQL of means, drift, standard deviation of the change, and correlation (null where a side does not vary)."""
    a, b = (_finite(f"{side}.{quoted(name)}") for side in ("here", "there"))
    varies = f"stddev_pop({a}) > 1e-6 AND stddev_pop({b}) > 1e-6"
    return f"avg({a}), avg({b}), avg({a} - {b}), stddev_pop({a} - {b}), CASE WHEN {varies} THEN corr({a}, {b}) END"


def _finite(value: str) -> str:
    """SQL of a value as float64; null where it is NaN or infinite."""
    return f"CASE WHEN isfinite({value}) THEN {value}::DOUBLE END"
