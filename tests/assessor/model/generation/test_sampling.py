"""Filters and penalties against transformers' own; draws against their probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from iqa_core.assessor.model.generation.sampling import NextTokens
from iqa_core.rubrics.written import Decoding
from iqa_core.written.keys import key_of

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
WORDS = 30


def logits_of(rows: int) -> torch.Tensor:
    return torch.randn(rows, WORDS, generator=torch.Generator().manual_seed(1)) * 3


def draws(sampling: Decoding, logits_V: torch.Tensor, count: int) -> np.ndarray:
    keys = [key_of("draw", i) for i in range(count)]
    choose = NextTokens(sampling, (), WORDS, CPU)
    return choose(logits_V.expand(count, -1), keys, 0).bincount(minlength=WORDS).numpy()


@pytest.mark.parametrize(
    "sampling",
    [
        Decoding(temperature=1.0),
        Decoding(temperature=0.7, top_k=7),
        Decoding(temperature=1.3, top_p=0.8),
        Decoding(temperature=1.0, min_p=0.1),
        Decoding(temperature=0.9, top_k=20, top_p=0.95, min_p=0.02),
    ],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_generate_would(sampling: Decoding) -> None:
    logits_V = logits_of(1)[0]
    chain = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    chain.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        chain.append(MinPLogitsWarper(sampling.min_p))
    expected = chain(torch.zeros((1, 1), dtype=torch.long), logits_V[None])[0].softmax(-1).double().numpy()
    count = 20_000
    found = draws(sampling, logits_V, count)
    assert not found[expected == 0].any()
    often = expected * count > 5
    others = np.array([found[~often].sum(), (expected[~often] * count).sum()])
    assert others[0] <= 5 * others[1] + 5
    assert chisquare(found[often], expected[often] / expected[often].sum() * found[often].sum()).pvalue > 1e-4


def test_the_likeliest_is_taken_at_temperature_0() -> None:
    logits_RV = logits_of(5)
    assert torch.equal(NextTokens(Decoding(), (), WORDS, CPU)(logits_RV, [0] * 5, 0), logits_RV.argmax(-1))


def test_repeated_tokens_are_penalised_as_in_generate() -> None:
    """Those of the prompt and of the answer, also when rows have left."""
    prompts = [[1, 2, 2], [5], [7, 9]]
    choose = NextTokens(Decoding(repetition_penalty=4.0), (), WORDS, CPU)
    choose.begin(prompts)
    first = choose(logits_of(3), [0] * 3, 0)
    choose.keep(torch.tensor([0, 2]))
    found = choose(logits_of(2), [0] * 2, 1)
    own = RepetitionPenaltyLogitsProcessor(4.0)
    for row, logits_V, token in zip((0, 2), logits_of(2), found, strict=True):
        ids = torch.tensor([[*prompts[row], int(first[row])]])
        assert own(ids, logits_V[None])[0].argmax() == token


def test_presence_counts_what_was_written_once() -> None:
    choose = NextTokens(Decoding(presence_penalty=2.0), (), 3, CPU)
    choose.begin([[2]])
    logits = torch.tensor([[3.0, 2.0, 0.5]])
    assert [int(choose(logits, [0], step)) for step in range(5)] == [0, 1, 0, 0, 0]


def test_what_is_suppressed_is_never_taken() -> None:
    logits = torch.tensor([[3.0, 2.0, 0.5]])
    assert int(NextTokens(Decoding(), (0,), 3, CPU)(logits, [0], 0)) == 1
