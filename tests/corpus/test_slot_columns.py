"""Slots of a rubric -> columns, or why not; rows -> texts, and how many of them were cut."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.slot_columns import NO_SLOTS, SlotColumns, bound
from iqa_core.errors import CallerError
from iqa_core.records import Reason, Rejection
from iqa_core.slots import TextLimits, TooLong
from tests.corpus.planned import WANTED

CUT = TextLimits(5, TooLong.CUT)
OWN = frozenset({"key", "layout"})


def test_a_slot_is_bound_to_the_column_that_a_flag_names_else_to_that_of_its_own_name() -> None:
    found = bound(["style=look=and feel"], ["prompt", "style"], CUT, OWN)
    assert found.columns == {"prompt": "prompt", "style": "look=and feel"}
    assert found.limits == CUT
    assert bound(["prompt=layout"], ["prompt"], CUT, OWN).columns == {"prompt": "input_layout"}, "as it is carried"
    assert bound([], [], TextLimits(), OWN) == NO_SLOTS


@pytest.mark.parametrize(
    ("given", "slots", "said"),
    [
        (["prompt"], ["prompt"], "--slot prompt: give it as slot=column"),
        (["=a"], ["prompt"], "--slot =a: give it as slot=column"),
        (["prompt="], ["prompt"], "--slot prompt=: give it as slot=column"),
        (["promt=a"], ["prompt", "style"], r"--slot promt=a: the rubric has no slot promt \(slots are prompt, style\)"),
        (["prompt=a"], [], r"--slot prompt=a: the rubric has no slot prompt \(it has none\)"),
        (["prompt=a", "prompt=b"], ["prompt"], "--slot prompt is given twice, as a and as b"),
        ([], [], "--slot-too-long and --slot-chars are about texts for slots, and the rubric has none"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: list[str], slots: list[str], said: str) -> None:
    with pytest.raises(CallerError, match=f"^{said}$"):
        bound(given, slots, CUT, OWN)


def test_a_column_must_be_there_and_be_text() -> None:
    slots = SlotColumns({"prompt": "caption"})
    slots.check(pa.schema({"caption": pa.string()}))
    with pytest.raises(CallerError, match=r"\{prompt\}, and no input has a column caption: .*prompt=COLUMN .*: n"):
        slots.check(pa.schema({"n": pa.int64()}))
    with pytest.raises(CallerError, match="no input has columns"):
        slots.check(pa.schema([]))
    for kind in (pa.int64(), pa.list_(pa.string()), pa.binary()):
        with pytest.raises(CallerError, match=r"--slot prompt=caption: the column is .*--carry NAME:string"):
            slots.check(pa.schema({"caption": kind}))


def test_each_row_has_its_texts_or_its_reason() -> None:
    carried = pa.table({"n": [1, 2, 3, 4], "a": ["x", " y ", None, "z" * 9], "b": ["1", "", "3", "4"]})
    slots = SlotColumns({"prompt": "a", "style": "b"}, TextLimits(5))
    texts = slots.texts(carried)
    assert texts is not None
    assert texts[0] == {"prompt": "x", "style": "1"}
    assert [one.reason for one in texts if isinstance(one, Rejection)] == [
        Reason.MISSING_TEXT,
        Reason.MISSING_TEXT,
        Reason.TOO_LARGE,
    ]
    cut = replace(slots, limits=CUT).texts(carried)
    assert cut is not None
    assert cut[3] == {"prompt": "z" * 5, "style": "4"}
    assert SlotColumns({"prompt": "a"}).texts(carried.slice(0, 0)) == []
    assert NO_SLOTS.texts(carried) is None


def test_texts_that_were_cut_are_counted_where_the_image_was_scored() -> None:
    rows = pa.table(
        {
            "reason": [None, None, None, "corrupt", None],
            "a": ["long enough", " short \n\t ", None, "long enough", "abcde"],
            "b": ["long enough", "s", "six six", "s", None],
        }
    )
    slots = SlotColumns({"prompt": "a", "style": "b"}, CUT)
    assert slots.num_cut(rows.select(["reason", *slots.that_may_be_cut])) == 2
    assert replace(slots, limits=TextLimits(5)).num_cut(rows) == 0, "refused ones are rejections"
    assert NO_SLOTS.num_cut(rows) == 0


def test_a_contract_keeps_them_and_a_plan_without_them_is_as_it_was() -> None:
    contract = replace(WANTED, slots=SlotColumns({"prompt": "caption"}, CUT))
    assert Contract.from_json(contract.to_json()) == contract
    assert Contract.from_json(WANTED.to_json()) == WANTED
    assert "slots" not in json.loads(WANTED.to_json())
    other = replace(WANTED, slots=SlotColumns({"prompt": "text"}, TextLimits(5)))
    assert contract.differences(other) == [
        "slots.columns.prompt: caption there, text now",
        "slots.too_long: cut there, refuse now",
    ]
    assert WANTED.differences(contract) != []
    assert contract.slots.describe() == "{prompt} is column caption; longer than 5 characters: cut"
    assert NO_SLOTS.describe() == ""
    unknown = {"columns": {"prompt": "caption"}, "max_chars": 5, "too_long": "shrink"}
    with pytest.raises(ValueError, match="shrink"):
        SlotColumns.from_json(unknown)
