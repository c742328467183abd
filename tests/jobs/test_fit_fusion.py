"""Preferences and a score table -> a TOML that --fusion takes, and a report; what does not fit is refused.

Tests jobs/fusion/flow.py and jobs/fusion/settings.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.errors import CallerError
from iqa_core.fusion import load_fusion
from iqa_core.storage.storage import Storage
from iqa_core.tables.ledger import Ledger
from jobs.command import parse
from jobs.fusion.flow import _quantile_curves, fit
from jobs.fusion.settings import FusionSettings

pytestmark = pytest.mark.slow

DIMENSIONS = ("layout", "harmony", "lighting")
TRUE = np.array([2.0, 1.0, 0.0])
IMAGES, PAIRS = 400, 3000


def write_scores(output: Path, *, keys: list[str] | None = None) -> np.ndarray:
    """A score table as the scoring job writes it, as far as it is read; the last image is rejected."""
    scores = np.random.default_rng(0).uniform(1, 5, (IMAGES, len(DIMENSIONS)))
    columns: dict[str, object] = {
        "key": keys or [f"{n}.png" for n in range(IMAGES)],
        "sha256": [f"{n:064x}" for n in range(IMAGES)],
        "status": ["scored"] * (IMAGES - 1) + ["rejected"],
    }
    for k, name in enumerate(DIMENSIONS):
        values = [*scores[:-1, k].tolist(), None]
        columns |= {name: pa.array(values, pa.float32()), f"{name}_std": pa.array(values, pa.float32())}
    columns |= {"reward": pa.array([3.0] * IMAGES, pa.float32()), "noise_std": ["of the input"] * IMAGES}
    Ledger(Storage(), str(output)).commit("000000-000000", pa.table(columns), {})
    return scores


def write_pairs(path: Path, scores: np.ndarray) -> None:
    random = np.random.default_rng(1)
    lines = ["first,second,preferred,group"]
    for first, second in random.integers(0, IMAGES, (PAIRS, 2)).tolist():
        if first != second:
            chance = 1 / (1 + np.exp(-(scores[first] - scores[second]) @ TRUE))
            preferred = "first" if random.random() < chance else "second"
            lines.append(f"{first}.png,{second:064x},{preferred},{first % 40}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def fitted(tmp_path: Path) -> Callable[..., int]:
    write_pairs(tmp_path / "pairs.csv", write_scores(tmp_path / "scores"))

    def run(*more: object, pairs: Path = tmp_path / "pairs.csv") -> int:
        flags = ["--scores", tmp_path / "scores", "--pairs", pairs, "--output", tmp_path / "weights.toml", *more]
        return fit(parse(FusionSettings, list(map(str, flags))))

    return run


def test_the_weights_that_made_the_preferences_come_back(
    fitted: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fitted() == 0
    found = load_fusion(tmp_path / "weights.toml")
    assert found.dimensions == DIMENSIONS
    np.testing.assert_allclose(found.weights, TRUE / TRUE.sum(), atol=0.04)
    printed = capsys.readouterr().out
    accuracy = {
        line.split("|")[1].strip(): float(line.split("|")[2])
        for line in printed.splitlines()
        if line.startswith(("| fitted |", "| equal |", "| lighting alone |"))
    }
    assert accuracy["fitted"] > accuracy["equal"] > accuracy["lighting alone"]
    assert "without" in printed
    assert printed.count("| split ") == 10


def test_quantiles_of_the_scores_become_curves_of_the_file(
    fitted: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores are uniform, so that their quantiles are nearly the scores, and the weights nearly those that were."""
    assert fitted("--normalise", "quantiles", "--splits", "1") == 0
    found = load_fusion(tmp_path / "weights.toml")
    np.testing.assert_allclose(found.weights, TRUE / TRUE.sum(), atol=0.05)
    assert tuple(found.curves) == DIMENSIONS
    for curve in found.curves.values():
        assert len(curve.scores) == 21
        np.testing.assert_allclose(curve.ratings, curve.scores, atol=0.4)


def test_scores_that_are_all_equal_have_no_quantiles(tmp_path: Path) -> None:
    tables = [pa.table({"layout": pa.array([2.0, 2.0], pa.float32())})]
    with pytest.raises(CallerError, match="--normalise quantiles: layout: a curve has two or more"):
        _quantile_curves(tables, ["layout"], None)


def test_each_group_is_held_out_in_turn(fitted: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert fitted("--hold-out") == 0
    assert "means over 40 splits" in capsys.readouterr().out


def test_holding_out_needs_groups(fitted: Callable[..., int]) -> None:
    with pytest.raises(CallerError, match="--hold-out needs two groups"):
        fitted("--hold-out", "--group-column", "none")


def test_pairs_of_other_images_are_refused(fitted: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "others.csv").write_text("first,second,preferred\nx.png,y.png,tie\n")
    with pytest.raises(CallerError, match=r"no pair has both .* like x.png, keys like 0.png"):
        fitted(pairs=tmp_path / "others.csv")


def test_a_key_of_two_images_is_refused(fitted: Callable[..., int], tmp_path: Path) -> None:
    write_scores(tmp_path / "scores", keys=["0.png", "0.png", *(f"{n}.png" for n in range(2, IMAGES))])
    with pytest.raises(CallerError, match=r"0.png is the key of several images"):
        fitted()


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("first,second,preferred\na,b,tie\n")
    flags = ["--scores", tmp_path / "none", "--pairs", tmp_path / "pairs.csv", "--output", tmp_path / "w.toml"]
    with pytest.raises(CallerError, match="has no score files"):
        fit(parse(FusionSettings, list(map(str, flags))))
