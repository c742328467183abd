"""Weights and scores -> rewards, in numpy and in the engine alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iqa_core.errors import CallerError
from iqa_core.fusion import Curve, FusionWeights, fuse, load_fusion
from iqa_core.questions import LEVELS, Column, ColumnScale
from iqa_core.records import RATING, ScoreRange

TOML = 'source = "fitted on 750 pairs"\n[weights]\nlayout = 3\nharmony = 1.0\n'


def test_equal_weights_are_the_mean_and_say_that_they_are_not_fitted() -> None:
    weights = FusionWeights.equal(["layout", "harmony"])
    assert weights.source == "equal (unfitted)"
    np.testing.assert_allclose(fuse([[1, 5], [2, 3]], weights), [3, 2.5])


def test_a_file_is_normalised_and_put_into_the_order_of_the_rubric(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_text(TOML)
    weights = load_fusion(tmp_path / "w.toml").ordered_as(["harmony", "layout"])
    assert weights.weights == (0.25, 0.75)
    assert weights.source == "fitted on 750 pairs"
    np.testing.assert_allclose(fuse([[1, 5]], weights), [4])


def test_the_digest_is_of_what_is_computed(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_text(TOML)
    loaded = load_fusion(tmp_path / "w.toml")
    assert loaded.ordered_as(["harmony", "layout"]).digest == loaded.digest
    assert FusionWeights.from_mapping({"layout": 0.75, "harmony": 0.25}, source="x").digest == loaded.digest
    assert FusionWeights.equal(["layout", "harmony"]).digest != loaded.digest


@given(
    arrays(np.float32, (4, 3), elements=st.floats(1, 5, width=32)),
    st.lists(st.floats(0, 1e3), min_size=3, max_size=3).filter(lambda w: sum(w) > 1e-3),
)
def test_rewards_stay_between_the_scores(scores_NK: np.ndarray, values: list[float]) -> None:
    weights = FusionWeights.from_mapping(dict(zip("abc", values, strict=True)), source="drawn")
    rewards = fuse(scores_NK, weights)
    assert rewards.dtype == np.float32
    assert (rewards >= scores_NK.min(axis=1) - 1e-5).all()
    assert (rewards <= scores_NK.max(axis=1) + 1e-5).all()


def test_a_rejected_row_has_no_reward() -> None:
    rewards = fuse(np.array([[1, 2], [None, None], [np.nan, 3]]), FusionWeights.equal(["a", "b"]))
    assert rewards[0] == 1.5
    assert np.isnan(rewards[1:]).all()
    assert fuse(np.empty((0, 2)), FusionWeights.equal(["a", "b"])).shape == (0,)


def test_signed_weights_are_divided_by_their_absolute_sum() -> None:
    assert FusionWeights.from_mapping({"a": 3, "b": -1}, source="x").weights == (0.75, -0.25)


def test_other_dimensions_are_the_callers_mistake() -> None:
    with pytest.raises(CallerError, match="quality"):
        FusionWeights.equal(["layout", "harmony"]).ordered_as(["quality", "aesthetics"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("source = 'x'", "weights"),
        ("source = 'x'\n[weights]\na = 'much'", "weights.a"),
        ("source = 'x'\nextra = 1\n[weights]\na = 1", "extra"),
        ("source = 'x'\n[weights]\na = 0\nb = 0", "all zero"),
        ("source = 'x'\n[weights]\na = nan", "finite"),
        ("source = 'x'\n[weights]", "all zero"),
        ("source = ", "not TOML"),
        ("source = " + "[" * 5000, "not TOML"),
        ("source = " + "1" * 5000, "not TOML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "w.toml").write_text(content)
    with pytest.raises(CallerError, match=message):
        load_fusion(tmp_path / "w.toml")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="No such file"):
        load_fusion(tmp_path / "none.toml")


SMALL = 2.0**-60
"""Beside 1 it is lost in double precision, and alone it is not: only one order of summing gives one result."""


@pytest.mark.parametrize("weights", [(0.1, 3.7, 1e-3), (SMALL, 1.0, SMALL, SMALL, -1.0, *[SMALL] * 4)])
def test_a_reward_is_summed_from_left_to_right_in_any_company(weights: tuple[float, ...]) -> None:
    fusion = FusionWeights.from_mapping(dict(zip("abcdefghi", weights, strict=False)), source="test")
    scores_NK = np.random.default_rng(0).uniform(1, 5, (500, len(weights))).astype(np.float32)
    scores_NK[:100] = scores_NK[:100, :1]
    found = fuse(scores_NK, fusion)
    expected = [sum_in_order([float(s) * w for s, w in zip(row, fusion.weights, strict=True)]) for row in scores_NK]
    np.testing.assert_array_equal(found, np.asarray(expected, np.float32))
    np.testing.assert_array_equal(found, np.concatenate([fuse(scores_K, fusion) for scores_K in scores_NK]))


def sum_in_order(terms: list[float]) -> float:
    """Without the compensation that Python's `sum` has."""
    total = terms[0]
    for term in terms[1:]:
        total += term
    return total


UNLIKE = (
    Column("true", ColumnScale(ScoreRange(0, 1), (0, 1)), (0,), (1.0,), 2),
    Column("noise", ColumnScale(ScoreRange(10, 1), (10, 5, 1)), (1,), (1.0,), 1),
    Column("looks", LEVELS, (2,), (1.0,), 1),
)


def test_unlike_ranges_are_brought_to_the_range_of_rewards() -> None:
    weights = FusionWeights.of_columns(UNLIKE)
    assert (weights.weights, weights.source) == ((0.5, 0.25, 0.25), "the rubric (unfitted)")
    np.testing.assert_allclose(fuse(np.array([[1, 1, 5], [0, 10, 1], [0.5, 5.5, 3]]), weights), [5, 1, 3])
    assert np.isnan(fuse([[np.nan, 1, 5]], weights)).all()
    plain = FusionWeights.of_columns(UNLIKE[2:])
    assert plain == FusionWeights.equal(["looks"]), "five levels have no curve, and the digest that they had"


def test_a_file_may_have_curves_of_its_own(tmp_path: Path) -> None:
    content = 'source = "x"\n[weights]\ntrue = 1\nnoise = 1\n[curves]\ntrue = [[0.25, 0.5, 1], [1, 3, 5]]\n'
    (tmp_path / "w.toml").write_text(content)
    loaded = load_fusion(tmp_path / "w.toml")
    weights = loaded.ordered_as(["noise", "true"], {column.name: column.scale for column in UNLIKE})
    np.testing.assert_allclose(fuse([[1, 0.375], [10, 0.1], [1, 0.75]], weights), [3.5, 1, 4.5])
    straight = FusionWeights.equal(["noise", "true"]).within({column.name: column.scale for column in UNLIKE})
    assert len({weights.digest, loaded.digest, straight.digest, FusionWeights.equal(["noise", "true"]).digest}) == 4


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        ("false = [[0, 1], [1, 5]]", "a curve for false, but no weight"),
        ("true = [[1, 0], [1, 5]]", "ascending scores"),
        ("true = [[0, 1, 2], [1, 5]]", "ascending scores"),
        ("true = [[0], [1]]", "ascending scores"),
        ("true = [[0, inf], [1, 5]]", "finite scores"),
        ("true = [[0, 1], [0, 5]]", "ratings from 1 to 5"),
    ],
)
def test_a_broken_curve_is_refused(tmp_path: Path, curves: str, said: str) -> None:
    (tmp_path / "w.toml").write_text(f'source = "x"\n[weights]\ntrue = 1\n[curves]\n{curves}\n')
    with pytest.raises(CallerError, match=said):
        load_fusion(tmp_path / "w.toml")


def test_quantiles_spread_a_corpus_over_the_range_of_rewards() -> None:
    scores = np.random.default_rng(0).beta(1, 8, 20_000)
    for ends, direction in ((ScoreRange(0, 1), 1), (ScoreRange(1, 0), -1)):
        ratings = Curve.of_quantiles(scores, ends)(scores)
        np.testing.assert_allclose(np.sort(ratings), np.linspace(RATING.low, RATING.high, len(scores)), atol=0.15)
        assert np.corrcoef(ratings, np.argsort(np.argsort(scores)))[0, 1] * direction > 0.99
    crowded = Curve.of_quantiles(np.repeat([0.0, 0.5, 1.0], [50, 40, 10]), ScoreRange(0, 1))
    assert crowded.scores == (0, 0.5, 1)
    with pytest.raises(CallerError, match="two or more"):
        Curve.of_quantiles([2, 2, 2], ScoreRange(0, 1))


@pytest.mark.parametrize(
    ("curve", "ends"),
    [
        (Curve((0, 1), (1, 5)), RATING),
        (Curve((0, 1), (1, 5)), ScoreRange(1, 0)),
        (Curve((0, 2), (1, 5)), ScoreRange(0, 1)),
        (Curve((0, 1), (5, 1)), ScoreRange(0, 1)),
    ],
)
def test_a_curve_for_another_range_is_refused(curve: Curve, ends: ScoreRange) -> None:
    weights = FusionWeights(("a",), (1.0,), "x", {"a": curve})
    scales = {} if ends == RATING else {"a": ColumnScale(ends, (0, 1))}
    with pytest.raises(CallerError, match="curve of a is for another range"):
        weights.ordered_as(["a"], scales)
