"""Weights and scores -> rewards, in numpy and in the engine alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iqa_core.errors import CallerError
from iqa_core.fusion import FusionWeights, fuse, fuse_sql, load_fusion
from iqa_core.tables.duckdb_engine import engine

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


@pytest.mark.parametrize(
    "weights",
    [(1.0, 1.0, 1.0), (0.1, 3.7, 1e-3), (2.0, -1.0, 0.3), (SMALL, 1.0, SMALL, SMALL, -1.0, SMALL, SMALL, SMALL, SMALL)],
)
def test_the_engine_fuses_as_fuse_does(weights: tuple[float, ...]) -> None:
    names = "abcdefghi"[: len(weights)]
    fusion = FusionWeights.from_mapping(dict(zip(names, weights, strict=True)), source="test")
    scores_NK = np.random.default_rng(0).uniform(1, 5, (5000, len(names))).astype(np.float32)
    scores_NK[:1000] = scores_NK[:1000, :1]
    with engine() as connection:
        connection.register("given", pa.table(dict(zip(names, scores_NK.T, strict=True))))
        found = connection.execute(f"SELECT {fuse_sql(names, fusion)} AS r FROM given").fetchnumpy()["r"]
    np.testing.assert_array_equal(found, fuse(scores_NK, fusion))
    np.testing.assert_array_equal(found, np.concatenate([fuse(scores_K, fusion) for scores_K in scores_NK]))
