"""Score tables -> one view `scores` in the engine: their rows in order, with a position, and whether they pass.

A carried column is in the view only where a condition, a rule or the report looks at it, and under a number for a
name: the engine never meets the other columns' types and names. A NaN is null in it: no number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.columns import repeated
from iqa_core.errors import CallerError, RunError
from iqa_core.fusion import FusionWeights, fuse
from iqa_core.questions import ColumnScale
from iqa_core.selection.condition import Condition
from iqa_core.selection.grounded import GroundedTable
from iqa_core.tables.duckdb_engine import engine_type, file_list, quoted
from iqa_core.tables.scores.columns import REJECTED, SCORED
from iqa_core.tables.scores.score_table import ScoreTable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

POSITION, PASSES, EARLIER = "iqa_position", "iqa_passes", "iqa_rejected_elsewhere"
"""Columns of the view beside those of the tables: order of the rows; the condition; rejected in a joined table."""

OWN = frozenset({POSITION, PASSES, EARLIER})

FUSE = "iqa_fuse"
"""Name of `fuse` in the engine."""

WHITE = "".join(letter for letter in map(chr, range(0x3001)) if letter.isspace())
"""What `str.strip` takes off, as the texts of slots have it taken off."""

FILE_BITS = ROW_BITS = 26
"""A position is table, file and row: 67 million of the latter each."""


@dataclass(frozen=True, slots=True)
class Given:
    """A score table and the name that the caller gave it (`name=uri`), empty where there is none."""

    name: str
    table: ScoreTable


@dataclass(frozen=True, slots=True)
class Combined:
    """Several score tables taken for one; made by `combined`."""

    given: tuple[Given, ...]
    is_join: bool
    dimensions: tuple[str, ...]
    """Dimensions of the first table, then `<name>_<dimension>` of those that are joined to it."""
    schema: pa.Schema
    """Columns that a rule or condition can name."""
    carried: tuple[str, ...] = ()
    """Names of the columns that came with the input, as they stand in the score files."""
    grounded: GroundedTable | None = None
    """What is known of parts of the images; its columns stand behind the others."""

    def engine_name(self, name: str) -> str:
        """The column's name in the view; a carried column gets a number, since SQL does not take every name."""
        return f"iqa_carried_{self.carried.index(name)}" if name in self.carried else name

    @property
    def slot_columns(self) -> dict[str, int]:
        """Columns with the texts that images were asked about with -> characters of a text that were asked about."""
        found: dict[str, int] = {}
        for slots in (given.table.contract.slots for given in self.given):
            for name in slots.columns.values():
                if name in self.carried:
                    found[name] = max(found.get(name, 0), slots.limits.max_chars)
        return found

    @property
    def score_names(self) -> tuple[str, ...]:
        """Columns of the decision table that hold scores, the reward last."""
        extra = tuple(f"{given.name}_reward" for given in self.given[1:]) if self.is_join else ()
        return (*self.dimensions, *extra, "reward")

    @property
    def scales(self) -> dict[str, ColumnScale]:
        """Of the dimensions that are not five levels worth 1 to 5."""
        found = dict(self.given[0].table.contract.scales)
        for item in self.given[1:] if self.is_join else ():
            found |= {f"{item.name}_{name}": scale for name, scale in item.table.contract.scales.items()}
        return found


def combined(
    given: Sequence[Given],
    combine: str | None,
    fusion: FusionWeights | None,
    grounded: GroundedTable | None = None,
) -> Combined:
    """The tables as one. combine: `stack`, `join`, or None for a single table. grounded: joined to them.

    Raises CallerError where the tables do not go together, or two columns would have one name.
    """
    if len(given) > 1 and combine is None:
        raise CallerError(
            f"--scores: {len(given)} tables; say how they go together: --combine stack (one below the other) or "
            "--combine join (the same images, scored by several assessors)"
        )
    if len(given) == 1 and combine is not None:
        raise CallerError(f"--combine {combine}: there is only one --scores")
    is_join = combine == "join"
    found = _joined(given) if is_join else _stacked(given, fusion)
    if fusion is not None:
        first = given[0].table.contract
        fusion.ordered_as(first.dimensions, first.scales)  # raises where it is for others
    if grounded is not None:
        found = replace(found, schema=pa.schema([*found.schema, *grounded.schema]), grounded=grounded)
    _check_names(found)
    return found


def _stacked(given: Sequence[Given], fusion: FusionWeights | None) -> Combined:
    first = given[0].table
    for other in (item.table for item in given[1:]):
        if other.contract.fingerprint != first.contract.fingerprint:
            places = ("in the first", "in the second")
            shown = "".join(f"\n  {text}" for text in first.contract.differences(other.contract, places))
            raise CallerError(
                f"--combine stack: {first.uri} and {other.uri} were scored by different assessors (fingerprints "
                f"{first.contract.fingerprint} and {other.contract.fingerprint}); their scores cannot be ranked "
                f"together:{shown}"
            )
        if other.contract.slots != first.contract.slots:
            raise CallerError(
                f"--combine stack: {first.uri} and {other.uri} have the texts of their slots from other columns, or "
                f"cut otherwise ({first.contract.slots.describe()}; {other.contract.slots.describe()}); their scores "
                "cannot be ranked together"
            )
        if fusion is None and other.contract.fusion != first.contract.fusion:
            raise CallerError(
                f"--combine stack: the rewards of {first.uri} and {other.uri} have different weights; give --fusion"
            )
    schema = _unified([item.table for item in given])
    carried = dict.fromkeys(name for item in given for name in item.table.contract.carried.names)
    return Combined(tuple(given), False, first.contract.dimensions, schema, tuple(carried))


def _unified(tables: Sequence[ScoreTable]) -> pa.Schema:
    """The columns of all, each in one type. Raises CallerError, which names the table, where there is none."""
    together = pa.schema([])
    for table in tables:
        try:
            together = pa.unify_schemas([together, table.schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise CallerError(
                f"--combine stack: {table.uri} has a column of another type than the tables before it ({error}); "
                "select from it into an output of its own"
            ) from error
    return together


def _joined(given: Sequence[Given]) -> Combined:
    names = [item.name for item in given[1:]]
    if not all(names) or len(set(names)) < len(names):
        raise CallerError("--combine join: give each table but the first a name of its own: --scores other=URI")
    fields = list(given[0].table.schema)
    dimensions = list(given[0].table.contract.dimensions)
    for item in given[1:]:
        own = item.table.schema
        added = _added_columns(item.table)
        fields += [own.field(name).with_name(f"{item.name}_{name}") for name in added]
        dimensions += [f"{item.name}_{name}" for name in item.table.contract.dimensions]
    carried = tuple(given[0].table.contract.carried.names)
    return Combined(tuple(given), True, tuple(dimensions), pa.schema(fields), carried)


def _added_columns(table: ScoreTable) -> list[str]:
    """Columns that a joined table adds: scores and spreads."""
    dimensions = table.contract.dimensions
    return [*dimensions, *(f"{name}_std" for name in dimensions), "reward"]


def _check_names(found: Combined) -> None:
    """Raises CallerError where two columns would have one name; SQL does not tell upper from lower case."""
    own = (name.lower() for name in [*found.schema.names, *OWN] if name not in found.carried)
    if doubled := sorted({*repeated(own), *repeated(found.schema.names)}):
        raise CallerError(f"--scores: {', '.join(doubled)} would be the name of more than one column")


@contextmanager
def engine_faults(rows: Combined) -> Iterator[None]:
    """Inside, the engine reads these tables.

    Raises RunError for whatever the engine raises, which is about the data, and CallerError that names a score file
    which is damaged.
    """
    import duckdb

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        if not isinstance(error, duckdb.OutOfMemoryException):
            for given in rows.given:
                given.table.require_whole()
        if not isinstance(error, duckdb.Error):
            raise
        message = re.sub(r"iqa_carried_(\d+)", lambda found: rows.carried[int(found[1])], str(error))
        message = re.split(r"\n\n|\nLINE", message)[0].replace("\n", " ")
        way = "; TRY_CAST makes it null" if isinstance(error, duckdb.ConversionException) else ""
        raise RunError(f"the engine stopped: {message}{way}") from error


def make_view(
    connection: DuckDBPyConnection,
    rows: Combined,
    files: Sequence[Sequence[Path]],
    condition: Condition | None,
    fusion: FusionWeights | None,
    looked_at: Iterable[str] = (),
) -> None:
    """Create the view `scores`. files: local score files of each table, in order; looked_at: carried columns to have.

    Raises CallerError when a joined table has a key of a source twice.
    """
    needed = [name for name in dict.fromkeys(looked_at) if name in rows.carried]
    parts = [
        _table_sql(rows, item.table, index, paths, needed)
        for index, (item, paths) in enumerate(zip(rows.given, files, strict=True))
    ]
    if rows.is_join:
        _materialise_join(connection, rows, parts)
        source = "SELECT * FROM joined"
    else:
        source = " UNION ALL BY NAME ".join(f"SELECT *, false AS {EARLIER} FROM ({part})" for part in parts)
    if rows.grounded is not None:
        source = _grounded(connection, rows.grounded, source)
    replaced = f"REPLACE ({_fused(connection, fusion)} AS reward)" if fusion else ""
    asked = "".join(
        _asked(rows.engine_name(name), chars) for name, chars in rows.slot_columns.items() if name in needed
    )
    passes = condition.as_item(PASSES) if condition else f"true AS {PASSES}"
    connection.execute(f"CREATE VIEW fused AS SELECT * {replaced}{asked} FROM ({source})")
    connection.execute(f"CREATE VIEW judged AS SELECT *, {passes} FROM fused")
    # a null is not true; in a further view, since the condition is run in the very SELECT in which it was checked
    connection.execute(
        f"CREATE VIEW scores AS SELECT * REPLACE (coalesce({PASSES}, false) AS {PASSES}, "
        f"CASE WHEN {EARLIER} THEN '{REJECTED}' ELSE status END AS status) FROM judged"
    )


def asked_name(column: str) -> str:
    """Name in the view of a carried column's texts as images were asked about with them."""
    return f"{column}_asked"


def _asked(column: str, chars: int) -> str:
    """An item for a SELECT: a column's texts without white space around them, cut as they were."""
    return f", left(trim({column}::VARCHAR, '{WHITE}'), {chars}) AS {asked_name(column)}"


def _fused(connection: DuckDBPyConnection, fusion: FusionWeights) -> str:
    """An expression for rewards by these weights; null where a score is missing.

    They are computed by `fuse` itself: as SQL, 64 curves of 20 lines take the engine 10 s of planning in each query.
    """
    from duckdb.func import ARROW, SPECIAL

    def rewards(scores: pa.ChunkedArray) -> pa.Array:
        return pa.array(fuse(scores.combine_chunks().flatten(), fusion), from_pandas=True)

    connection.create_function(FUSE, rewards, ["FLOAT[]"], "FLOAT", type=ARROW, null_handling=SPECIAL)
    return f"{FUSE}([{', '.join(map(quoted, fusion.dimensions))}])"


def _table_sql(rows: Combined, table: ScoreTable, index: int, files: Sequence[Path], needed: Sequence[str]) -> str:
    """SELECT of one table's own columns, of the carried ones that are needed, and of the position."""
    base = index << (FILE_BITS + ROW_BITS)
    names, own = pq.read_schema(files[0]).names, table.schema
    places = [f"c{place}" for place in range(len(names))]  # columns are named by their number: the engine renames some
    selected = []
    for place, name in zip(places, names, strict=True):
        wanted = rows.schema.field(name).type if name in rows.schema.names else own.field(name).type
        kind = engine_type(wanted)
        if kind is None or (name in table.contract.carried.names and name not in needed):
            continue
        value = place if engine_type(own.field(name).type) == kind else f"CAST({place} AS {kind})"
        selected.append(f"{_without_nan(value, kind)} AS {quoted(rows.engine_name(name))}")
    return (
        f"SELECT {', '.join(selected)}, {base} + (file_index::BIGINT << {ROW_BITS}) + file_row_number AS {POSITION} "
        f"FROM read_parquet({file_list(files)}) AS files({', '.join(places)})"
    )


def _without_nan(value: str, kind: str) -> str:
    """The value with null in place of a NaN; in lists as well. Structs are left: a condition sees to their parts."""
    if kind in {"FLOAT", "DOUBLE"}:
        return f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END"
    if kind in {"FLOAT[]", "DOUBLE[]"}:
        return f"list_transform({value}, lambda v: CASE WHEN isnan(v) THEN NULL ELSE v END)"
    return value


def _materialise_join(connection: DuckDBPyConnection, rows: Combined, parts: Sequence[str]) -> None:
    """A table `joined`: rows of the first table in its order, with the scores that the others have for them."""
    selected, joins, rejected = ["base.*"], [], []
    for index, (item, part) in enumerate(zip(rows.given[1:], parts[1:], strict=True), start=1):
        connection.execute(f"CREATE VIEW other{index} AS {part}")
        _check_unique(connection, item, f"other{index}")
        selected += [
            f"other{index}.{quoted(name)} AS {quoted(f'{item.name}_{name}')}" for name in _added_columns(item.table)
        ]
        joins.append(f"LEFT JOIN other{index} ON base.source = other{index}.source AND base.key = other{index}.key")
        rejected.append(f"coalesce(other{index}.status <> '{SCORED}', false)")
    selected.append(f"({' OR '.join(rejected)}) AS {EARLIER}")
    connection.execute(f"CREATE VIEW base AS {parts[0]}")
    _check_unique(connection, rows.given[0], "base")
    connection.execute(
        f"CREATE TABLE joined AS SELECT {', '.join(selected)} FROM base {' '.join(joins)} ORDER BY base.{POSITION}"
    )


def _grounded(connection: DuckDBPyConnection, grounded: GroundedTable, source: str) -> str:
    """SELECT of the rows, in their order, with what is known of their images' parts. source: SELECT of the rows.

    Raises CallerError where nothing is known of any of them: it is the output of another corpus.
    """
    connection.register("grounded_rows", grounded.joined())
    connection.execute("CREATE TABLE grounded AS SELECT * FROM grounded_rows")
    connection.unregister("grounded_rows")
    names = ", ".join(f"grounded.{quoted(name)}" for name in grounded.schema.names)
    connection.execute(
        f"CREATE TABLE beside AS SELECT own.*, {names} FROM ({source}) AS own LEFT JOIN grounded "
        'ON own.source = grounded.source AND own.key = grounded.key AND own."row" IS NOT DISTINCT FROM grounded."row" '
        f"ORDER BY own.{POSITION}"
    )
    status = quoted(grounded.schema.names[0])  # no grounded image is without
    [(num_rows, num_known)] = connection.execute(f"SELECT count(*), count({status}) FROM beside").fetchall()
    if num_rows and not num_known:
        raise CallerError(
            f"--grounding {grounded.uri}: it has none of the {num_rows:,} images of the score table by source, key and "
            "row; give the output of ground_corpus.py over these images"
        )
    return "SELECT * FROM beside"


def _check_unique(connection: DuckDBPyConnection, item: Given, view: str) -> None:
    doubled = connection.execute(
        f"SELECT source, key FROM {view} GROUP BY source, key HAVING count(*) > 1 ORDER BY ALL LIMIT 1"
    ).fetchall()
    if doubled:
        source, key = doubled[0]
        raise CallerError(
            f"--combine join: {item.table.uri} has several rows with the key {key!r} of {source}; without a key of its "
            "own an image cannot be found in the other table"
        )
