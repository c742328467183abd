"""A tiny model of random weights -> how near two texts are: greedy matching, against a plain loop over tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iqa_core.errors import CallerError
from iqa_core.reasons.meaning import Meaning, TextsModel, compared
from tests.reasons.texts_models import MAX_TOKENS, save_tiny_texts_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_texts_model(tmp_path_factory.mktemp("texts"))


def test_each_token_is_matched_with_the_nearest_of_the_other_text(folder: Path) -> None:
    model = TextsModel(folder)
    text, reference = model.embedded("a dark hall"), model.embedded("the hall is dark")
    assert (text.shape, reference.shape) == ((3, 16), (4, 16)), "without the tokens around the text"
    cosines = [
        [float(np.dot(t, r) / np.linalg.norm(t) / np.linalg.norm(r)) for r in reference.astype(float)]
        for t in text.astype(float)
    ]
    precision = sum(max(row) for row in cosines) / 3
    recall = sum(max(row[k] for row in cosines) for k in range(4)) / 4
    found = model("a dark hall", "the hall is dark")
    assert found.precision == pytest.approx(precision)
    assert found.recall == pytest.approx(recall)
    assert found.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    mirrored = model("the hall is dark", "a dark hall")
    assert (mirrored.precision, mirrored.recall) == pytest.approx((found.recall, found.precision))
    assert mirrored.cosine == pytest.approx(found.cosine)
    assert tuple(model("a dark hall", "a dark hall")) == pytest.approx((1, 1, 1, 1))
    assert found.f1 < 1
    assert model("", "a hall") == Meaning(0, 0, 0, 0)


def test_long_texts_are_cut_and_counted(folder: Path) -> None:
    model = TextsModel(folder)
    assert model.max_tokens == MAX_TOKENS
    assert model.embedded("a room " * 9).shape == (11, 16)
    assert model.embedded("a room " * 9).shape == (11, 16)
    assert model.embedded("a room").shape == (2, 16)
    assert model.cut == 1


def test_greedy_matching_by_hand() -> None:
    text, reference = np.eye(3, dtype=np.float32)[:2], np.eye(3, dtype=np.float32)[[0, 2, 2, 2]]
    found = compared(text, reference)
    assert found[1:] == pytest.approx((0.5, 0.25, 1 / 3))
    assert found.cosine == pytest.approx(0.25 / np.sqrt(2) * 2 / np.sqrt(1 / 16 + 9 / 16) / 2)


def test_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=r"it has no config\.json"):
        TextsModel(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(CallerError, match="cannot be loaded"):
        TextsModel(tmp_path)
