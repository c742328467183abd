"""Score tables that are taken for one -> the columns that they have together, and the rewards in the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.errors import CallerError
from iqa_core.fusion import Curve, FusionWeights, fuse
from iqa_core.questions import ColumnScale
from iqa_core.records import ScoreRange
from iqa_core.selection.rows import Combined, Given, combined, make_view
from iqa_core.tables.duckdb_engine import engine
from iqa_core.tables.scores.score_table import ScoreTable, open_score_table
from tests.clock import least_cpu_s
from tests.corpus.planned import LOCAL, WANTED
from tests.selection.score_tables import write_score_table


def stacked(*carried: dict[str, pa.DataType]) -> Combined:
    """Tables /0, /1, … with these carried columns, one below the other."""
    tables = [
        ScoreTable(LOCAL, f"/{index}", replace(WANTED, carried=pa.schema(columns)), (), 0)
        for index, columns in enumerate(carried)
    ]
    return combined([Given("", table) for table in tables], "stack", None)


def test_a_column_of_several_tables_has_one_type() -> None:
    codes = pa.dictionary(pa.int8(), pa.string())
    found = stacked({"n": pa.int32(), "s": codes}, {"n": pa.int64(), "empty": pa.null()}, {"empty": pa.string()})
    assert found.carried == ("n", "s", "empty")
    assert [found.schema.field(name).type for name in found.carried] == [pa.int64(), pa.string(), pa.string()]


def test_columns_that_have_no_type_together_name_their_table() -> None:
    with pytest.raises(CallerError, match=r"stack: /1 has a column of another type .* output of its own"):
        stacked({"n": pa.int64()}, {"n": pa.string()})


UNIT = ColumnScale(ScoreRange(0, 1), (0, 1))


def test_joined_tables_of_unlike_rubrics_have_the_scales_of_each_under_its_name() -> None:
    noise, things = ColumnScale(ScoreRange(10, 1), (10, 5, 1)), ColumnScale(ScoreRange(0, 1), (), True)
    first = replace(WANTED, dimensions=("layout", "noise"), scales={"noise": noise})
    other = replace(WANTED, dimensions=("layout", "noise", "things"), scales={"layout": UNIT, "things": things})
    tables = [ScoreTable(LOCAL, f"/{index}", contract, (), 0) for index, contract in enumerate((first, other))]
    found = combined([Given("", tables[0]), Given("q", tables[1])], "join", None)
    assert found.dimensions == ("layout", "noise", "q_layout", "q_noise", "q_things")
    assert found.scales == {"noise": noise, "q_layout": UNIT, "q_things": things}
    alike = combined([Given("", tables[0]), Given("", replace(tables[0], uri="/2"))], "stack", None)
    assert alike.scales == {"noise": noise}, "of stacked tables those of the first, which are those of all"


def rewards_in_engine(output: Path, weights: FusionWeights) -> np.ndarray:
    """Rewards of the rows of a score table by other weights; NaN for null."""
    table = open_score_table(LOCAL, str(output))
    rows = combined([Given("", table)], None, weights)
    with engine([output / "scores"]) as connection:
        make_view(connection, rows, [table.local_files(output)], None, weights)
        rewards = connection.sql("SELECT reward FROM scores").to_arrow_table().column("reward")
    return rewards.fill_null(np.nan).to_numpy()


@pytest.mark.slow
def test_rewards_through_many_fitted_curves_are_those_of_fuse_and_planned_at_once(tmp_path: Path) -> None:
    names = [f"d{k}" for k in range(257)]
    scores_NK = np.random.default_rng(0).random((30, len(names))).astype(np.float32)
    rows = [dict(zip(names, map(float, row), strict=True)) for row in scores_NK]
    scales = dict.fromkeys(names, UNIT)
    output = write_score_table(
        tmp_path / "s", [*rows, {"reason": "corrupt"}], None, 40, dimensions=names, scales=scales
    )
    curve = Curve.of_quantiles(scores_NK, UNIT.range)
    weights = replace(FusionWeights.equal(names), curves=dict.fromkeys(names, curve))
    expected = [*fuse(scores_NK, weights), np.nan]
    np.testing.assert_array_equal(rewards_in_engine(output, weights), np.asarray(expected, np.float32))
    assert least_cpu_s(lambda: rewards_in_engine(output, weights), 5) < 5, "as SQL it is planned for minutes"
