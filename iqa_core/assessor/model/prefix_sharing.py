"""Encoded images and a model -> level logits; the prefix that the prompts of an image share is computed once.

Three strategies give the logits of one forward per prompt; `choose_strategy` takes the first that fits a model:

PackedSequences   all prompts in one forward pass without padding, by our own decoder on the model's weights
PrefixCaching     the model's own forward on the prefix, then on each suffix with the prefix's KV cache
SeparatePrompts   one forward per prompt: for models whose image tokens attend to the question behind them

Shape suffixes: N images, K dimensions, V rows of the output matrix that are kept, D width of the model, T tokens,
A axes of rotary positions.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder, PromptTokens
from iqa_core.assessor.encoders.patches import PatchEncoder
from iqa_core.assessor.fast.packed_decoder import PackedDecoder, is_packable
from iqa_core.assessor.fast.packed_tower import PackedTower
from iqa_core.assessor.fast.packing import PromptLengths, packing_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


@dataclass
class TokenCount:
    """Tokens that went through the language model, padding apart."""

    real: int = 0
    padding: int = 0

    @property
    def waste(self) -> float:
        """Padding as a share of all, 0 to 1."""
        return self.padding / max(self.real + self.padding, 1)


class Strategy(ABC):
    """How one batch goes through a model whose output matrix is a LevelHead."""

    pads = True
    """Rows of a batch are padded to the longest."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.count = TokenCount()

    @classmethod
    def of(cls, model: Any, encoder: Encoder) -> Self | None:
        """The strategy for a model; None where it cannot fit. It may replace parts of the model, see `undo`."""
        return cls(model)

    def commit(self) -> Self:
        """Keep the strategy: count tokens from now on, and free weights that only the other strategies need."""
        self.count = TokenCount()
        return self

    def undo(self) -> None:  # noqa: B027  (most strategies replace nothing)
        """Drop the strategy: put back what it replaced in the model."""

    @abstractmethod
    def logits(self, batch: EncodedBatch) -> torch.Tensor:
        """Logits of the kept rows at the end of every prompt, float32 on the CPU, shape (N, K, V)."""

    def _padded(self, sequences: Sequence[Sequence[int]], side: str = "right") -> torch.Tensor:
        rows = [torch.tensor(sequence) for sequence in sequences]
        return pad_sequence(rows, batch_first=True, padding_side=side).to(self._model.device)

    def _pixels(self, batch: EncodedBatch) -> dict[str, torch.Tensor]:
        """All tensors on the model's device: a tower of transformers wants sizes there too."""
        return {name: value.to(self._model.device) for name, value in batch.pixels.items()}

    def _tokens(
        self, prompts: Sequence[PromptTokens], ends: Sequence[Sequence[int]], *, with_types: bool = True
    ) -> dict[str, torch.Tensor]:
        """Arguments with one entry per token, for prefixes followed by `ends`, padded on the right."""
        whole = [[*prompt.prefix, *end] for prompt, end in zip(prompts, ends, strict=True)]
        names = prompts[0].types if with_types else ()
        types = {
            name: [[*prompt.types[name], *[0] * len(end)] for prompt, end in zip(prompts, ends, strict=True)]
            for name in names
        }
        mask = self._padded([[1] * len(tokens) for tokens in whole])
        rows = {"input_ids": whole, **types}
        return {**{name: self._padded(row) for name, row in rows.items()}, "attention_mask": mask}


class SeparatePrompts(Strategy):
    """One forward for each prompt of the images, nothing shared: what the other strategies are compared with."""

    @torch.inference_mode()
    def logits(self, batch: EncodedBatch) -> torch.Tensor:
        """See `Strategy.logits`."""
        num_prompts = len(batch.prompts[0].suffixes)
        return torch.stack([self._logits(batch, k) for k in range(num_prompts)], dim=1)

    def _logits(self, batch: EncodedBatch, k: int) -> torch.Tensor:
        tokens = self._tokens(batch.prompts, [prompt.suffixes[k] for prompt in batch.prompts])
        lengths_N = tokens["attention_mask"].sum(dim=1)
        self.count.real += int(lengths_N.sum())
        self.count.padding += tokens["attention_mask"].numel() - int(lengths_N.sum())
        logits_NTV = self._model(**tokens, **self._pixels(batch), use_cache=False).logits
        return logits_NTV[torch.arange(len(lengths_N)), lengths_N - 1].cpu()


class PrefixCaching(Strategy):
    """The prefixes first, then each suffix on their KV cache.

    Prefixes are padded on the left: a sliding window then reaches back over real tokens only.
    """

    @torch.inference_mode()
    def logits(self, batch: EncodedBatch) -> torch.Tensor:
        """See `Strategy.logits`."""
        cache = DynamicCache()  # all layers whole, even those with a window: suffixes are cropped off again
        tokens = self._prefixes(batch.prompts)
        self._model(**tokens, **self._pixels(batch), past_key_values=cache, use_cache=True, logits_to_keep=1)
        mask_NT = tokens["attention_mask"]
        found = []
        for k in range(len(batch.prompts[0].suffixes)):
            found.append(self._continued(batch.prompts, k, mask_NT, cache))
            cache.crop(-max(len(prompt.suffixes[k]) for prompt in batch.prompts))
        return torch.stack(found, dim=1)

    def _prefixes(self, prompts: Sequence[PromptTokens]) -> dict[str, torch.Tensor]:
        lengths = [len(prompt.prefix) for prompt in prompts]
        self.count.real += sum(lengths) + sum(len(end) for prompt in prompts for end in prompt.suffixes)
        self.count.padding += max(lengths) * len(lengths) - sum(lengths)
        rows: dict[str, Sequence[Sequence[int]]] = {
            name: [prompt.types[name] for prompt in prompts] for name in prompts[0].types
        }
        rows |= {"input_ids": [prompt.prefix for prompt in prompts], "attention_mask": [[1] * n for n in lengths]}
        tokens = {name: self._padded(row, side="left") for name, row in rows.items()}
        width = max(lengths)
        positions = [
            torch.nn.functional.pad(_positions_of(prompt), (width - len(prompt.prefix), 0)) for prompt in prompts
        ]
        tokens["position_ids"] = torch.stack(positions, dim=-2).to(self._model.device)
        return tokens

    def _continued(
        self, prompts: Sequence[PromptTokens], k: int, mask_NT: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        ends = [prompt.suffixes[k] for prompt in prompts]
        ids_NT = self._padded(ends)
        own_NT = self._padded([[1] * len(end) for end in ends])
        lengths_N = own_NT.sum(dim=1)
        self.count.padding += own_NT.numel() - int(lengths_N.sum())
        firsts_N = torch.tensor([prompt.next_position for prompt in prompts], device=ids_NT.device)
        positions = firsts_N[:, None] + torch.arange(ids_NT.shape[1], device=ids_NT.device)
        if prompts[0].positions is not None:
            positions = positions.expand(len(prompts[0].positions), -1, -1)
        logits_NTV = self._model(
            input_ids=ids_NT,
            position_ids=positions,
            attention_mask=torch.cat([mask_NT, own_NT], dim=1),
            **{name: torch.zeros_like(ids_NT) for name in prompts[0].types},
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits_NTV[torch.arange(len(ends)), lengths_N - 1].cpu()


class PackedSequences(Strategy):
    """All prompts of all images as one flat sequence; images of different sizes cost no padding."""

    pads = False

    def __init__(self, model: Any, encoder: Encoder) -> None:
        super().__init__(model)
        self._decoder = model.get_decoder()
        self._packed = PackedDecoder(self._decoder)
        self._decoder.forward = self._packed.forward
        self._encoder = encoder if isinstance(encoder, PatchEncoder) else None
        self._tower = None
        if self._encoder is not None:
            self._tower = PackedTower(model.model.visual)
            model.model.visual.forward = self._tower.forward
            self._encoder.patching = replace(self._encoder.patching_of_model, frames=1)

    @classmethod
    def of(cls, model: Any, encoder: Encoder) -> Self | None:
        """None for a decoder that `PackedDecoder` does not compute; else the model's forwards are replaced by ours."""
        return cls(model, encoder) if is_packable(model.get_decoder()) else None

    def commit(self) -> Self:
        """Keep the strategy; weights that were copied are freed, so the model's own forward is gone for good."""
        self._packed.release()
        if self._tower is not None:
            self._tower.release()
        return super().commit()

    def undo(self) -> None:
        """Put the model's own forwards back."""
        del self._decoder.forward
        if self._encoder is not None:
            del self._model.model.visual.forward
            self._encoder.patching = self._encoder.patching_of_model

    @torch.inference_mode()
    def logits(self, batch: EncodedBatch) -> torch.Tensor:
        """See `Strategy.logits`."""
        prompts = batch.prompts
        lengths = tuple(PromptLengths(len(prompt.prefix), tuple(map(len, prompt.suffixes))) for prompt in prompts)
        self.count.real += sum(length.total for length in lengths)
        self._packed.packing = packing_of(lengths, self._model.device)
        ends = [[token for suffix in prompt.suffixes for token in suffix] for prompt in prompts]
        tokens = self._tokens(prompts, ends, with_types=prompts[0].positions is None)
        if prompts[0].positions is not None:
            tokens["position_ids"] = self._positions(prompts, tokens["input_ids"].shape[1])
        return self._model(**tokens, **self._pixels(batch), use_cache=False).logits.cpu()

    def _pixels(self, batch: EncodedBatch) -> dict[str, torch.Tensor]:
        """Tensors as they are: our own towers read sizes on the CPU, without waiting for a GPU."""
        return dict(batch.pixels)

    def _positions(self, prompts: Sequence[PromptTokens], width: int) -> torch.Tensor:
        rows = []
        for prompt in prompts:
            assert prompt.positions is not None
            rest = prompt.next_position + torch.arange(width - len(prompt.prefix))
            rows.append(torch.cat([prompt.positions, rest.expand(len(prompt.positions), -1)], dim=1))
        return torch.stack(rows, dim=1).to(self._model.device)


def _positions_of(prompt: PromptTokens) -> torch.Tensor:
    """Rotary positions of the prefix: (T,) where they are 0, 1, 2, …, else (A, T)."""
    return torch.arange(len(prompt.prefix)) if prompt.positions is None else prompt.positions


def choose_strategy(model: Any, encoder: Encoder, images: Sequence[NDArray[np.uint8]], tolerance: float) -> Strategy:
    """The fastest strategy that gives the probabilities of `SeparatePrompts` on a few images, of more than one size.

    tolerance: bound on differences between probabilities over the kept rows.
    """
    separate = SeparatePrompts(model)
    probe = encoder(images)
    with _last_hidden(model.get_decoder()) as hidden:
        expected = separate.logits(probe).softmax(-1)
    if not _stand_alone(probe, hidden):
        logger.warning("what this model sees in an image depends on the question behind it: one forward per prompt")
        return SeparatePrompts(model)
    for make in (PackedSequences, PrefixCaching):
        strategy = make.of(model, encoder)
        if strategy is None:
            continue
        difference = _difference(strategy, encoder(images), expected)
        if difference <= tolerance:
            return strategy.commit()
        logger.warning("%s does not fit this model: probabilities differ by %.2g", make.__name__, difference)
        strategy.undo()
    return SeparatePrompts(model)


def _difference(strategy: Strategy, probe: EncodedBatch, expected_NKV: torch.Tensor) -> float:
    try:
        return float((strategy.logits(probe).softmax(-1) - expected_NKV).abs().max())
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
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
