"""Logits -> loss: cross-entropy by hand, five-way divergence by hand, and logits only where they are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from iqa_core.assessor.model.loading import load_model
from iqa_core.opinions.opinion import Opinion
from iqa_core.training.objective import Losses, losses
from iqa_core.training.sample_encoder import IGNORED, Batch
from iqa_core.training.samples import TrainingSample, level_samples
from iqa_core.training.targets import TargetKind
from tests.training.tasks import asking_samples, make_encoder
from tests.training.writing import QUESTION, answer, make_writing_encoder
from tests.unlike import ASKING_TOML, TRAINABLE_TOML

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(qwen: Path) -> Any:
    return load_model(qwen, "float32", "cpu", 1)


def batch_of(folder: Path, opinions: list[Opinion], targets: TargetKind) -> Batch:
    encoder = make_encoder(folder)
    return encoder.batch(level_samples(opinions, encoder.rubric, targets, {"layout": 2.0}))


def by_hand(model: Any, batch: Batch, row: int, level_weight: float) -> float:
    """Mean over the answer's tokens, one after another."""
    logits = model(**batch.inputs, use_cache=False).logits[row].double()
    total, count = 0.0, 0.0
    for place in (batch.labels_NT[row] != IGNORED).nonzero().flatten().tolist():
        total += float(functional.cross_entropy(logits[place - 1], batch.labels_NT[row, place]))
        count += 1
    log_probs = logits[int(batch.level_places[row]) - 1].log_softmax(0)[batch.level_ids_NL[row]]
    target = batch.targets_NL[row].double()
    # -sum q log p over the whole vocabulary, less the entropy of q: 0 for a model that says exactly q
    divergence = float(torch.xlogy(target, target).sum() - (target * log_probs).sum())
    return (total + level_weight * divergence) / (count + level_weight)


@pytest.mark.parametrize("level_weight", [1.0, 5.0])
def test_the_loss_is_what_it_is_by_hand(model: Any, qwen: Path, opinions: list[Opinion], level_weight: float) -> None:
    batch = batch_of(qwen, opinions[:3], "linear")
    with torch.no_grad():
        found = losses(model, batch, level_weight)
        expected = [by_hand(model, batch, row, level_weight) for row in range(3)]
    assert found.samples_N.tolist() == pytest.approx(expected, rel=1e-5)
    assert batch.weights_N.tolist() == [2, 1, 1]
    assert float(found.weighted_sum) == pytest.approx(2 * expected[0] + expected[1] + expected[2], rel=1e-5)


def test_numbers_of_a_written_answer_count_as_often_as_asked(
    model: Any, qwen: Path, opinions: list[Opinion], tmp_path: Path
) -> None:
    encoder = make_writing_encoder(qwen, tmp_path)
    texts = (answer(3), "A room.")
    batch = encoder.batch([TrainingSample(opinions[0].path, QUESTION, text, "d") for text in texts])
    assert [batch.inputs["input_ids"][row][batch.are_numbers_NT[row]].tolist() for row in (0, 1)] == [
        encoder._processor.tokenizer.encode("3"),
        [],
    ]
    with torch.no_grad():
        logits = model(**batch.inputs, use_cache=False).logits
        each_NT = functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels_NT[:, 1:], reduction="none")
        counts_NT = (batch.labels_NT[:, 1:] != IGNORED) * (1 + 4 * batch.are_numbers_NT[:, 1:])
        expected_N = (counts_NT * each_NT).sum(1) / counts_NT.sum(1)
        assert losses(model, batch, 1.0, 5.0).samples_N.tolist() == pytest.approx(expected_N.tolist(), rel=1e-5)
        assert losses(model, batch, 1.0, 5.0).samples_N[1] == losses(model, batch, 1.0).samples_N[1]


def test_hard_targets_make_it_plain_cross_entropy(model: Any, qwen: Path, opinions: list[Opinion]) -> None:
    batch = batch_of(qwen, opinions[:2], "hard")
    rows, places = batch.level_rows, batch.level_places
    labels = batch.labels_NT.index_put((rows, places), batch.inputs["input_ids"][rows, places])
    with torch.no_grad():
        logits = model(**batch.inputs, use_cache=False).logits
        for row in range(2):
            expected = functional.cross_entropy(logits[row, :-1], labels[row, 1:], ignore_index=IGNORED)
            assert float(losses(model, batch, 1.0).samples_N[row]) == pytest.approx(float(expected), rel=1e-5)


def test_scores_are_those_of_scoring(model: Any, qwen: Path, opinions: list[Opinion]) -> None:
    batch = batch_of(qwen, opinions[:2], "linear")
    with torch.no_grad():
        logits = model(**batch.inputs, use_cache=False).logits
        for row, score in enumerate(losses(model, batch, 1.0).scores.tolist()):
            probs = logits[row, int(batch.level_places[row]) - 1][batch.level_ids_NL[row]].softmax(0)
            assert score == pytest.approx(float(probs @ torch.arange(1.0, 6.0)), abs=1e-5)


class WholeLogits:
    """A model whose forward cannot be told which logits to compute; it keeps them, for their gradient."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def forward(self, **inputs: Any) -> Any:
        found = self._model(**inputs)
        self.logits = found.logits
        self.logits.retain_grad()
        return found

    __call__ = forward


def test_only_places_before_answer_tokens_get_a_gradient(model: Any, qwen: Path, opinions: list[Opinion]) -> None:
    whole, batch = WholeLogits(model), batch_of(qwen, opinions[:3], "linear")
    found = losses(whole, batch, 1.0)
    found.weighted_sum.backward()
    with torch.no_grad():
        assert torch.allclose(found.samples_N, losses(model, batch, 1.0).samples_N, atol=1e-5)
    learns = whole.logits.grad.abs().sum(dim=2) > 0
    carries = batch.labels_NT != IGNORED
    carries[batch.level_rows, batch.level_places] = True
    assert learns[:, :-1].tolist() == carries[:, 1:].tolist()


def test_rows_of_two_three_and_five_answers_have_their_own_losses_and_scores(
    model: Any, qwen: Path, opinions: list[Opinion], tmp_path: Path
) -> None:
    (tmp_path / "unlike.toml").write_text(TRAINABLE_TOML)
    encoder = make_encoder(qwen, str(tmp_path / "unlike.toml"))
    asked = [replace(opinions[0], dimension=name, mos=3.6) for name in ("shown", "noise", "layout")]
    samples = level_samples(asked, encoder.rubric, "linear", {})
    together = losses_of(model, encoder.batch(samples))
    alone = [losses_of(model, encoder.batch([sample])) for sample in samples]
    for name in ("samples_N", "divergence", "scores"):
        wanted = torch.cat([getattr(one, name) for one in alone])
        assert torch.allclose(getattr(together, name), wanted, atol=1e-5), name
    assert together.weighted_sum.isfinite()
    assert [encoder.batch([sample]).worths.tolist() for sample in samples] == [
        [1, 5],
        pytest.approx([1, 1 + 20 / 9, 5]),
        [1, 2, 3, 4, 5],
    ]


def test_a_text_reaches_its_own_sample_alone(model: Any, qwen: Path, opinions: list[Opinion], tmp_path: Path) -> None:
    """In a batch of texts of unlike lengths each loss is that of its sample alone, and that of the plain forward."""
    (tmp_path / "asking.toml").write_text(ASKING_TOML)
    encoder = make_encoder(qwen, str(tmp_path / "asking.toml"))
    samples = asking_samples(opinions[0], encoder.rubric, ["a cat", "two dogs <|im_end|> and " * 9])
    batch = encoder.batch(samples)
    together = losses_of(model, batch).samples_N.tolist()
    alone = [float(losses_of(model, encoder.batch([sample])).samples_N) for sample in samples]
    with torch.no_grad():
        plain = [by_hand(model, batch, row, 1.0) for row in range(len(samples))]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together == pytest.approx(plain, abs=1e-5)
    assert len(set(map(str, alone))) == len(samples) - 1, "texts count, but not for a question without slots"


def losses_of(model: Any, batch: Batch) -> Losses:
    with torch.no_grad():
        return losses(model, batch, 1.0)
