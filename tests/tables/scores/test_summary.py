"""Score files, chunk by chunk -> the counts and quartiles of the whole table."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_core.questions import own_scales
from iqa_core.tables.scores.summary import BINS, Distribution, Summary
from tests.unlike import NAMES, RUBRIC


def rows(layout: list[float | None], reasons: list[str | None]) -> pa.Table:
    scores = pa.array(layout, pa.float32())
    return pa.table({"reason": pa.array(reasons, pa.string()), "layout": scores, "reward": scores})


@given(
    values=st.lists(st.floats(1, 5, width=32), min_size=1, max_size=300),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    pieces=st.integers(1, 5),
)
def test_quantiles_are_right_within_a_thousandth(values: list[float], fraction: float, pieces: int) -> None:
    distribution = Distribution()
    for piece in np.array_split(np.array(values, np.float32), pieces):
        distribution.add(piece)
    wanted = np.quantile(np.array(values, np.float64), fraction, method="inverted_cdf")
    assert distribution.quantile(fraction) == pytest.approx(wanted, abs=0.001)
    assert distribution.mean() == pytest.approx(np.mean(values), abs=1e-5)


def test_counts_reasons_and_damage_add_up() -> None:
    summary = Summary(("layout",))
    summary.add(rows([1.0, None, 2.0], [None, "corrupt", None]), None)
    summary.add(rows([None, None, 3.0], ["missing", "corrupt", None]), "b.tar: cut")
    summary.add(rows([], []), "a.tar: cut")
    assert (summary.images, summary.scored, summary.rejected, summary.chunks) == (6, 3, 3, 3)
    assert list(summary.reasons.items()) == [("corrupt", 2), ("missing", 1)]
    content = summary.to_json()
    assert content["damaged_sources"] == ["a.tar: cut", "b.tar: cut"]
    assert content["scores"]["layout"]["mean"] == 2.0
    assert content["scores"]["reward"]["median"] == pytest.approx(2.0, abs=0.001)
    assert set(summary.columns()) == {"reason", "layout", "reward"}
    json.dumps(content)


def test_nothing_scored_has_no_numbers() -> None:
    summary = Summary(("layout",))
    summary.add(rows([None], ["corrupt"]), None)
    assert summary.statistics()["layout"] == {"mean": None, "q1": None, "median": None, "q3": None}


def test_what_is_no_number_is_in_no_statistic() -> None:
    summary = Summary(("layout",))
    summary.add(rows([1.0, float("nan"), 3.0, float("inf")], [None] * 4), None)
    assert summary.statistics()["layout"]["mean"] == 2.0
    json.dumps(summary.to_json(), allow_nan=False)


def test_each_dimension_has_bins_over_its_own_range() -> None:
    summary = Summary(NAMES, own_scales(RUBRIC.columns))
    scores = {"shown": [0.2, 0.4, 0.9], "noise": [9.5, 2, 1], "layout": [1, 4, 5], "things": [0, 0.5, 1]}
    columns = {name: pa.array(values, pa.float32()) for name, values in (scores | {"reward": [1, 2, 5]}).items()}
    summary.add(pa.table({"reason": pa.array([None] * 3, pa.string()), **columns}), None)
    found = summary.statistics()
    assert [found[name]["median"] for name in (*NAMES, "reward")] == pytest.approx([0.4, 2, 4, 0.5, 2], abs=1e-3)
    assert found["noise"]["q3"] == pytest.approx(9.5, abs=9 / BINS)
    assert {distribution.histogram.size for distribution in summary.distributions.values()} == {BINS}
