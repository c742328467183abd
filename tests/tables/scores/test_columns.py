"""Facts and assessments -> rows of the score table, in the columns, types and order that others rely on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.errors import CallerError
from iqa_core.fusion import FusionWeights
from iqa_core.records import Assessment, Finish, Reason, Rejection, Written
from iqa_core.tables.scores.columns import counts_of, own_columns, retryable_ordinals, status_and_scores, table_schema
from iqa_core.written.columns import WrittenColumns

DIMENSIONS = ("layout", "harmony")
WEIGHTS = FusionWeights.equal(DIMENSIONS)


def assessment(layout: float, harmony: float) -> Assessment:
    probs_K = tuple(np.array([[0.1, 0.2, 0.3, 0.2, 0.2], [0, 0, 0, 0, 1]], np.float32))
    return Assessment(np.array([layout, harmony], np.float32), np.array([0.5, 0.25], np.float32), probs_K)


def test_the_columns_are_the_contract() -> None:
    schema = table_schema(DIMENSIONS, True, pa.schema({"prompt": pa.string(), "input_key": pa.int64()}))
    assert [(field.name, str(field.type)) for field in schema] == [
        ("key", "string"),
        ("source", "string"),
        ("sha256", "string"),
        ("offset", "int64"),
        ("length", "int64"),
        ("row", "int64"),
        ("width", "int32"),
        ("height", "int32"),
        ("format", "string"),
        ("frames", "int32"),
        ("status", "string"),
        ("reason", "string"),
        ("detail", "string"),
        ("layout", "float"),
        ("harmony", "float"),
        ("layout_std", "float"),
        ("harmony_std", "float"),
        ("layout_probs", "list<item: float>"),
        ("harmony_probs", "list<item: float>"),
        ("reward", "float"),
        ("prompt", "string"),
        ("input_key", "int64"),
    ]
    assert "layout_probs" not in table_schema(DIMENSIONS, False, pa.schema([])).names


def test_own_columns_are_all_that_an_input_may_not_have() -> None:
    own = own_columns(DIMENSIONS)
    assert own == set(table_schema(DIMENSIONS, True, pa.schema([])).names)
    with pytest.raises(CallerError, match="prompt"):
        table_schema(DIMENSIONS, False, pa.schema([("prompt", pa.string()), ("prompt", pa.string())]))


@pytest.mark.parametrize("probs", [False, True])
def test_a_group_has_its_statements_where_others_have_probabilities(probs: bool) -> None:
    found = status_and_scores([None], [assessment(3, 0.5)], DIMENSIONS, probs, WEIGHTS, {"harmony"})
    own = table_schema(DIMENSIONS, probs, pa.schema([]), {"harmony"}).names
    assert [name for name in own if name in found.column_names] == found.column_names
    assert found["harmony_yes"].to_pylist() == [[0, 0, 0, 0, 1]]
    assert ("layout_probs" in found.column_names, "harmony_probs" in found.column_names) == (probs, False)
    assert "harmony_yes" in own_columns(DIMENSIONS, {"harmony"})


@pytest.mark.parametrize("probs", [False, True])
def test_scores_stand_in_the_rows_of_their_images(probs: bool) -> None:
    missing = Rejection(Reason.MISSING, "gone")
    failed = Rejection(Reason.ASSESSOR_FAILED, "not finite")
    results: list[Assessment | Rejection] = [assessment(1.5, 2.5), failed, assessment(3, 5)]
    table = status_and_scores([missing, None, None, missing, None], results, DIMENSIONS, probs, WEIGHTS)
    assert table.column("status").to_pylist() == ["rejected", "scored", "rejected", "rejected", "scored"]
    assert table.column("reason").to_pylist() == ["missing", None, "assessor_failed", "missing", None]
    assert table.column("detail").to_pylist() == ["gone", None, "not finite", "gone", None]
    assert table.column("layout").to_pylist() == [None, 1.5, None, None, 3.0]
    assert table.column("harmony").to_pylist() == [None, 2.5, None, None, 5.0]
    assert table.column("harmony_std").to_pylist() == [None, 0.25, None, None, 0.25]
    assert table.column("reward").to_pylist() == [None, 2.0, None, None, 4.0]
    if probs:
        assert table.column("harmony_probs").to_pylist() == [None, [0, 0, 0, 0, 1], None, None, [0, 0, 0, 0, 1]]
        assert table.column("layout_probs")[1].as_py() == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.2])
    schema = table_schema(DIMENSIONS, probs, pa.schema([]))
    assert table.schema.equals(pa.schema(list(schema)[10:]))


@pytest.mark.parametrize("probs", [False, True])
@pytest.mark.parametrize("rejections", [[], [Rejection(Reason.EMPTY, "0 bytes")] * 3])
def test_nothing_scored_has_the_same_columns(probs: bool, rejections: list[Rejection]) -> None:
    table = status_and_scores(rejections, [], DIMENSIONS, probs, WEIGHTS)
    assert table.num_rows == len(rejections)
    assert table.schema.equals(status_and_scores([None], [assessment(1, 1)], DIMENSIONS, probs, WEIGHTS).schema)
    assert counts_of(table) == ({"empty": 3} if rejections else {})


def test_what_may_be_tried_again() -> None:
    rejections = [Rejection(reason, "x") for reason in Reason]
    table = status_and_scores([*rejections, None], [assessment(1, 1)], DIMENSIONS, False, WEIGHTS)
    again = {table.column("reason")[i].as_py() for i in retryable_ordinals(table)}
    assert again == {"missing", "forbidden", "fetch_failed", "assessor_failed"}
    assert counts_of(table) == {**{str(reason): 1 for reason in Reason}, "scored": 1}


def test_a_detail_that_is_no_text_is_written_as_one() -> None:
    table = status_and_scores(
        [Rejection(Reason.CORRUPT, "tag \udce9")], [], DIMENSIONS, False, FusionWeights.equal(DIMENSIONS)
    )
    assert table.column("detail").to_pylist() == ["tag \\udce9"]


@pytest.mark.parametrize("all_samples", [False, True])
def test_what_was_written_stands_before_the_reward(all_samples: bool) -> None:
    written = Written("a hall", None, Finish.LENGTH, answers=("x", "y"), parsed=1, codes=("no_open",))
    spread_unknown = np.array([np.nan, 0.5], np.float32)
    found = Assessment(np.array([3, 4], np.float32), spread_unknown, (), written)
    rejection = Rejection(Reason.UNPARSABLE, "no_open: x")
    columns = WrittenColumns(all_samples)
    table = status_and_scores([None, None], [found, rejection], DIMENSIONS, False, WEIGHTS, written=columns)
    own = table_schema(DIMENSIONS, False, pa.schema([]), written=columns)
    assert table.schema.equals(pa.schema(list(own)[10:]))
    assert table.column_names[-1 - len(columns.schema) :] == [*columns.schema.names, "reward"]
    assert table.select(["layout_std", "harmony_std"]).to_pylist()[0] == {"layout_std": None, "harmony_std": 0.5}
    row, empty = table.select(columns.schema.names).to_pylist()
    texts = {"written_caption": "a hall", "written_reasoning": None, "written_parsed": 1, "written_finish": "length"}
    assert row == texts | ({"written_answers": ["x", "y"]} if all_samples else {})
    assert set(empty.values()) == {None}
    assert not {name for name in own_columns(DIMENSIONS) if name.startswith("written_")}
    assert "written_answers" in own_columns(DIMENSIONS, written=columns), "so that a later output may have it"
