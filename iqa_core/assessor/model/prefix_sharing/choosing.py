"""A model and its rubrics -> the strategy that shares the most and gives the probabilities of one forward per prompt.

PackedSequences   all prompts in one forward pass without padding, by our own decoder on the model's weights
PrefixCaching     the model's own forward on the prefixes, then on all suffixes with the prefixes' repeated cache
SeparatePrompts   one forward per prompt: for models whose image tokens attend to the question behind them

Shape suffixes: N images, K questions, V rows of the output matrix that are kept, D width of the model, T tokens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder
from iqa_core.assessor.encoders.patches import PatchEncoder
from iqa_core.assessor.model.loading import require_finite_weights
from iqa_core.assessor.model.prefix_sharing.cached import PrefixCaching
from iqa_core.assessor.model.prefix_sharing.packed import PackedSequences
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from iqa_core.assessor.model.prefix_sharing.strategy import Strategy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

DOES_NOT_FIT = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a strategy raises on a model that is built otherwise."""

TRIED_QUESTIONS = 8
"""Questions of a rubric that strategies are tried on; a checklist has up to 256, and each takes a forward."""


@dataclass(frozen=True)
class AskedRubric:
    """A rubric as a model is asked it."""

    encoder: Encoder
    answers_V: Sequence[int]
    """Rows of its answers among those that are kept."""

    def probe(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch:
        """A few of its questions about the images."""
        return _few_questions(self.encoder(images))

    def probs(self, logits_NKV: torch.Tensor) -> torch.Tensor:
        """Probabilities over its answers."""
        return logits_NKV[..., self.answers_V].softmax(-1)


def choose_strategy(
    model: Any, rubrics: Sequence[AskedRubric], images: Sequence[NDArray[np.uint8]], tolerance: float
) -> Strategy:
    """The fastest strategy that gives the probabilities of `SeparatePrompts` on a few images, of more than one size.

    One for all rubrics, since it replaces parts of the model: whichever fits each of them.
    tolerance: bound on differences between probabilities over a rubric's answers.
    Raises CallerError where probabilities are not finite because a weight is not.
    """
    separate = SeparatePrompts(model)
    expected = []
    for rubric in rubrics:
        probe = rubric.probe(images)
        with _last_hidden(model.get_decoder()) as hidden:
            expected.append(rubric.probs(separate.logits(probe)))
        if not expected[-1].isfinite().all():
            require_finite_weights(model)
        if not _stand_alone(probe, hidden):
            logger.warning("what this model sees in an image depends on the question behind it: one forward per prompt")
            return SeparatePrompts(model)
    for make in _strategies(model, [rubric.encoder for rubric in rubrics]):
        strategy = _made(make)
        if strategy is None:
            continue
        pairs = zip(rubrics, expected, strict=True)
        difference = max(_difference(strategy, rubric, images, wanted) for rubric, wanted in pairs)
        if difference <= tolerance:
            return strategy.commit()
        logger.warning("%s does not fit this model: probabilities differ by %.2g", type(strategy).__name__, difference)
        strategy.undo()
    return SeparatePrompts(model)


def _strategies(model: Any, encoders: Sequence[Encoder]) -> list[Callable[[], Strategy | None]]:
    """What makes each strategy that shares, the fastest first."""
    makers: list[Callable[[], Strategy | None]] = [
        partial(strategy.of, model, encoders) for strategy in (PackedSequences, PrefixCaching)
    ]
    return [*makers, partial(PrefixCaching, model)] if isinstance(encoders[0], PatchEncoder) else makers


def _made(make: Callable[[], Strategy | None]) -> Strategy | None:
    """The strategy; None where it cannot fit the model, such as one with a vision tower that ours does not know."""
    try:
        return make()
    except DOES_NOT_FIT as error:
        logger.warning("a way of sharing prefixes does not fit this model: %s", error)
        return None


def _few_questions(batch: EncodedBatch) -> EncodedBatch:
    """A batch with some of its questions, the first and the last among them."""
    last = batch.num_questions - 1
    return batch.asking(sorted({round(i * last / (TRIED_QUESTIONS - 1)) for i in range(TRIED_QUESTIONS)}))


def _difference(
    strategy: Strategy, rubric: AskedRubric, images: Sequence[NDArray[np.uint8]], expected_NKV: torch.Tensor
) -> float:
    try:
        return float((rubric.probs(strategy.logits(rubric.probe(images))) - expected_NKV).abs().max())
    except DOES_NOT_FIT as error:
        logger.warning("%s does not fit this model: %s", type(strategy).__name__, error)
        return math.inf


@contextmanager
def _last_hidden(decoder: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Hidden states (N, T, D) that a decoder returns while the block runs, one entry per forward."""
    seen: list[torch.Tensor] = []
    hook = decoder.register_forward_hook(lambda _module, _args, output: seen.append(output[0].float().cpu()))
    try:
        yield seen
    finally:
        hook.remove()


def _stand_alone(probe: EncodedBatch, hidden: Sequence[torch.Tensor]) -> bool:
    """Whether the prefixes' hidden states are the same in every prompt, to a twentieth of their size.

    The bound lies between rounding in bfloat16, estimated at 0.02, and a model whose image tokens see the question,
    about 1.
    """
    for i, prompt in enumerate(probe.prompts):
        first, *others = (states[i, : len(prompt.prefix)] for states in hidden)
        if any((other - first).norm() > 0.05 * first.norm() for other in others):
            return False
    return True
