"""Encoded images -> level logits in two forwards of the model: on the prefixes, then on all suffixes on their cache.

Shape suffixes: N images, K questions, R rows, one for each question of each image, V rows of the output matrix that are
kept, A axes of rotary positions, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder, PromptTokens
from iqa_core.assessor.model.caches import tensors_of, with_rows
from iqa_core.assessor.model.left_padding import prefix_arguments
from iqa_core.assessor.model.prefix_sharing.masks import suffix_mask
from iqa_core.assessor.model.prefix_sharing.strategy import Strategy

MAX_CACHE_BYTES = 2**31
"""Largest repeated cache: 24 rows of Qwen3.5-9B behind 1,200 tokens, 90 MB each."""

MAX_SUFFIX_PADDING = 0.2
"""Largest share of padding among the suffixes of one forward."""

TRIED_ROWS = 3
"""Rows of a repeated cache while the strategy is tried: so few that two images with two questions repeat it twice."""


@dataclass(frozen=True)
class SuffixRow:
    """A row of the second forward: one question of one image."""

    image: int
    number: int
    ends: tuple[int, ...]
    """Token ids behind the prefix."""


class PrefixCaching(Strategy):
    """The prefixes first, then all suffixes on their cache, which is repeated: a row for each question of each image.

    The cache is the model's own: keys and values, whole or of a window, states of convolutions and of linear attention.
    None goes back to an earlier token, which a recurrent state cannot. Padding is exact in both forwards: prefixes have
    it on the left (`left_padding`), suffixes on the right, behind the token that is read.
    """

    def __init__(self, model: Any, encoders: Sequence[Encoder] = ()) -> None:
        super().__init__(model, encoders)
        self._max_rows: float = TRIED_ROWS

    def commit(self) -> Self:
        """See `Strategy.commit`; repeated caches are bounded by their bytes alone."""
        self._max_rows = math.inf
        return super().commit()

    @torch.inference_mode()
    def logits(self, batch: EncodedBatch) -> torch.Tensor:
        """See `Strategy.logits`."""
        prompts = batch.prompts
        tokens = self._prefixes(prompts)
        cache = self._model(**tokens, **self._pixels(batch), use_cache=True, logits_to_keep=1).past_key_values
        rows = [SuffixRow(i, k, end) for i, prompt in enumerate(prompts) for k, end in enumerate(prompt.suffixes)]
        found: dict[tuple[int, int], torch.Tensor] = {}
        for block in blocks_of(rows, self._rows_at_once(cache, len(prompts))):
            logits_RV = self._continued(prompts, block, tokens["attention_mask"], cache)
            found.update(((one.image, one.number), row) for one, row in zip(block, logits_RV, strict=True))
        return torch.stack([found[one.image, one.number] for one in rows]).unflatten(0, (len(prompts), -1))

    def _rows_at_once(self, cache: Any, num_images: int) -> int:
        row_bytes = sum(tensor.nbytes for layer in cache.layers for tensor in tensors_of(layer)) // num_images
        return int(max(1, min(self._max_rows, MAX_CACHE_BYTES // max(row_bytes, 1))))

    def _prefixes(self, prompts: Sequence[PromptTokens]) -> dict[str, torch.Tensor]:
        lengths = [len(prompt.prefix) for prompt in prompts]
        self.count.real += sum(lengths) + sum(len(end) for prompt in prompts for end in prompt.suffixes)
        self.count.padding += max(lengths) * len(lengths) - sum(lengths)
        return prefix_arguments(prompts, max(lengths), self._model.device)

    def _continued(
        self, prompts: Sequence[PromptTokens], block: Sequence[SuffixRow], mask_NT: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Logits (R, V) at the ends of a block's rows, on the CPU."""
        images_R = torch.tensor([one.image for one in block], device=mask_NT.device)
        ids_RT = self._padded([one.ends for one in block])
        own_RT = self._padded([[1] * len(one.ends) for one in block])
        if prompts[0].views is None:
            mask = torch.cat([mask_NT[images_R], own_RT], dim=1)
        else:
            rows = [(prompts[one.image], one.number) for one in block]
            mask = suffix_mask(rows, mask_NT.shape[1], self._model.dtype, mask_NT.device)
        lengths = [len(one.ends) for one in block]
        self.count.padding += own_RT.numel() - sum(lengths)
        firsts_R = torch.tensor([prompts[one.image].next_position for one in block], device=ids_RT.device)
        positions = firsts_R[:, None] + torch.arange(ids_RT.shape[1], device=ids_RT.device)
        if prompts[0].positions is not None:
            positions = positions.expand(len(prompts[0].positions), -1, -1)
        logits_RTV = self._model(
            input_ids=ids_RT,
            position_ids=positions,
            attention_mask=mask,
            **{name: torch.zeros_like(ids_RT) for name in prompts[0].types},
            past_key_values=with_rows(cache, images_R),
            use_cache=True,
        ).logits
        return logits_RTV[torch.arange(len(block)), torch.tensor(lengths) - 1].cpu()


def blocks_of(rows: Sequence[SuffixRow], max_rows: int) -> Iterator[list[SuffixRow]]:
    """Rows of similar length, the shortest first: at most so many, with little padding."""
    block: list[SuffixRow] = []
    tokens = 0
    for one in sorted(rows, key=lambda one: len(one.ends)):
        padded = len(one.ends) * (len(block) + 1)
        padding = padded - tokens - len(one.ends)
        if block and (len(block) >= max_rows or padding > MAX_SUFFIX_PADDING * padded):
            yield block
            block, tokens = [], 0
        block.append(one)
        tokens += len(one.ends)
    yield block
