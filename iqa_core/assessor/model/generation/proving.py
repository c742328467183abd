"""A model and its encoder -> the fastest way to write that gives the probabilities of forwards without any cache.

Tried on a few images when a checkpoint is loaded: each token of a short answer, with samples of unlike number.

Shape suffixes: N images, T tokens of an answer, V tokens of the vocabulary.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder
from iqa_core.assessor.model.generation.decoding import Decoder
from iqa_core.assessor.model.generation.prefill import Prefill, length, prefill
from iqa_core.assessor.model.loading import require_finite_weights
from iqa_core.assessor.model.prefix_sharing.choosing import DOES_NOT_FIT
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from iqa_core.assessor.model.prefix_sharing.strategy import FastTower
from iqa_core.errors import CallerError
from iqa_core.rubrics.written import Decoding

logger = logging.getLogger(__name__)

TRIED_TOKENS = 3
"""The first comes from the prompt's forward, the second from a cache of prompts alone, the third from what grew."""


@dataclass(frozen=True)
class Way:
    """How a model's prompts become caches, and their samples' caches theirs."""

    model: Any
    encoder: Encoder
    tower: FastTower | None
    """What the model's own vision tower is replaced by; None keeps it."""
    shares: bool
    """Whether samples attend to one copy of their prompt."""

    def fitted(self, encoder: Encoder) -> Encoder:
        """Another encoder of the model, made to encode for the tower."""
        if self.tower is not None:
            self.tower.take(encoder)
        return encoder

    def prefilled(self, batch: EncodedBatch, width: int) -> Prefill:
        """The prompts of a batch, through the model; see `prefill`."""
        if self.tower is not None:  # reads sizes on the CPU, without waiting
            return prefill(self.model, batch, batch.pixels, width)
        pixels = {name: value.to(self.model.device) for name, value in batch.pixels.items()}
        return prefill(self.model, batch, pixels, width)


@dataclass(frozen=True)
class _Written:
    """Short answers, with the probabilities of all tokens at each place."""

    ids_NT: NDArray[np.int64]
    probs_NTV: NDArray[np.float32]

    def distance(self, other: _Written) -> float:
        """Largest difference of probabilities, as far as answers are the same: two tokens may be equally likely."""
        gaps = np.abs(self.probs_NTV - other.probs_NTV).max(axis=2)
        is_comparable = np.logical_and.accumulate(self.ids_NT == other.ids_NT, axis=1)[:, :-1]
        gaps[:, 1:][~is_comparable] = 0
        return float(np.nan_to_num(gaps, nan=math.inf).max())


def fastest_way(
    model: Any, encoder: Encoder, images: Sequence[NDArray[np.uint8]], tolerance: float, *, keeps_model: bool = False
) -> Way:
    """The way to write; the model's vision tower may be another afterwards, unless the model is to stay as it is.

    images: a few prepared ones, of more than one size; tolerance: bound on differences of probabilities.
    Raises CallerError where the model cannot go on from its own cache as if there were none, or a weight is not finite.
    """
    expected = _plainly_written(model, encoder(images))
    if not np.isfinite(expected.probs_NTV).all():
        require_finite_weights(model)
    for way in _ways(model, encoder, keeps_model):
        try:
            distance = _written(way, encoder(images)).distance(expected)
        except DOES_NOT_FIT as error:
            logger.warning("a way to write does not fit this model: %s", error)
            distance = math.inf
        if distance <= tolerance:
            if way.tower is not None:
                way.tower.release()
            return way
        logger.warning("%s: probabilities differ by %.2g", _named(way), distance)
    raise CallerError(
        "what this model writes behind its own cache is not what it writes without one, so a written rubric cannot be "
        "asked of it"
    )


def _ways(model: Any, encoder: Encoder, keeps_model: bool) -> Iterator[Way]:
    """The fastest first. A tower of ours is taken back when the next way is asked for."""
    try:
        tower = None if keeps_model else FastTower.of(model, [encoder])
    except DOES_NOT_FIT as error:
        logger.warning("our vision tower does not fit this model: %s", error)
        tower = None
    if tower is not None:
        yield Way(model, encoder, tower, shares=True)
        tower.undo()
    for shares in (True, False):
        yield Way(model, encoder, None, shares)


def _named(way: Way) -> str:
    tower = "the model's own vision tower" if way.tower is None else "our vision tower"
    return f"writing with {tower} and {'one copy' if way.shares else 'copies'} of prompts does not fit this model"


def _written(way: Way, batch: EncodedBatch) -> _Written:
    """By the way that is tried: one sample of the first image, two of the second, and so on."""
    size = way.model.get_output_embeddings().weight.shape[0]
    greedy = Decoding(max_new_tokens=TRIED_TOKENS)
    decoder = Decoder(way.model, greedy, lambda ids: "", watched=range(size), shares=way.shares)
    with torch.inference_mode():
        prefilled = way.prefilled(batch, max(map(length, batch.prompts)))
        found = [answers[-1] for answers in decoder(prefilled, [[0] * (1 + i) for i in range(len(batch.prompts))])]
    return _Written(
        np.array([answer.ids for answer in found]), np.exp(np.stack([answer.watched_TW for answer in found]))
    )


def _plainly_written(model: Any, batch: EncodedBatch) -> _Written:
    """By forwards over all tokens, one for each token that is written."""
    separate = SeparatePrompts(model)
    ids, probs = [], []
    for _ in range(TRIED_TOKENS):
        logits_NV = separate.logits(batch)[:, 0].float()
        ids.append(logits_NV.argmax(-1))
        probs.append(logits_NV.softmax(-1))
        prompts = (
            replace(prompt, suffixes=((*prompt.suffixes[0], int(token)),))
            for prompt, token in zip(batch.prompts, ids[-1], strict=True)
        )
        batch = replace(batch, prompts=tuple(prompts))
    return _Written(torch.stack(ids, 1).numpy(), torch.stack(probs, 1).numpy())
