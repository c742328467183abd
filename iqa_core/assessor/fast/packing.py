"""Lengths of prompts -> one flat sequence without padding, and attention in which a suffix sees its prefix and itself.

The sequence has image after image: prefix, first suffix, second suffix and so on. Attention runs image by image on a
CPU and in one call on a GPU. Milliseconds per layer for four suffixes of 80 tokens behind a prefix of 265, 8 heads of
32, one CPU thread: one call under a block mask 3.3, a call for each suffix 3.1, one batched call on gathered keys 2.7.

Shape suffixes: S tokens of the flat sequence, H heads, G heads of keys and values, E width of a head, K suffixes of one
image, T tokens of the longest, P tokens of prefix and longest suffix, R rows that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch.nn import functional

from iqa_core.assessor.fast.varlen import Ends, attend_varlen, takes_varlen


@dataclass(frozen=True)
class PromptLengths:
    """Lengths of one image's prompts, in tokens: of their common prefix, and of the suffix of each."""

    prefix: int
    suffixes: tuple[int, ...]

    @property
    def total(self) -> int:
        """Tokens of the image in the flat sequence: the prefix once, and all suffixes."""
        return self.prefix + sum(self.suffixes)

    @property
    def within(self) -> list[int]:
        """Position of each token in its own prompt."""
        return [*range(self.prefix), *(self.prefix + j for length in self.suffixes for j in range(length))]

    @property
    def lasts(self) -> list[int]:
        """Index of the last token of each prompt, counted from the image's first token."""
        return [self.prefix + sum(self.suffixes[: k + 1]) - 1 for k in range(len(self.suffixes))]


@dataclass(frozen=True)
class SuffixIndex:
    """Indices for the batched call over one image's suffixes, counted from the image's first token."""

    queries_KT: torch.Tensor
    keys_KP: torch.Tensor
    seen_KTP: torch.Tensor
    real_KT: torch.Tensor
    is_even: bool
    """All suffixes are equally long, so queries need no gathering."""


@lru_cache(maxsize=256)
def suffix_index(lengths: PromptLengths, device: torch.device) -> SuffixIndex:
    """Indices for suffixes padded to the longest; the causal mask hides the padding from all real queries."""
    sizes_K1 = torch.tensor(lengths.suffixes)[:, None]
    firsts_K1 = sizes_K1.cumsum(0) - sizes_K1 + lengths.prefix
    step_T = torch.arange(max(lengths.suffixes))
    queries_KT = firsts_K1 + torch.minimum(step_T, sizes_K1 - 1)
    prefix_KP = torch.arange(lengths.prefix).expand(len(sizes_K1), -1)
    seen_TP = torch.ones(len(step_T), lengths.prefix + len(step_T), dtype=torch.bool).tril(lengths.prefix)
    return SuffixIndex(
        queries_KT.to(device),
        torch.cat([prefix_KP, queries_KT], dim=1).to(device),
        seen_TP.to(device),
        (step_T < sizes_K1).to(device),
        len(set(lengths.suffixes)) == 1,
    )


@dataclass(frozen=True)
class Packing:
    """Index tensors between the flat sequence of a batch and its padded form, in which each image is a row."""

    images: tuple[PromptLengths, ...]
    device: torch.device

    @cached_property
    def rows_S(self) -> torch.Tensor:
        """Index of each token in the flattened padded batch."""
        return self._numbers([i * self.width + j for i, image in enumerate(self.images) for j in range(image.total)])

    @cached_property
    def position_rows_S(self) -> torch.Tensor:
        """Index, in the flattened padded batch, of the token whose rotary position each token takes.

        It is another token for all suffixes but the first, since all suffixes begin at the same position.
        """
        return self._numbers([i * self.width + j for i, image in enumerate(self.images) for j in image.within])

    @cached_property
    def within_S(self) -> torch.Tensor:
        """Position of each token in its own prompt."""
        return self._numbers([j for image in self.images for j in image.within])

    @cached_property
    def read_R(self) -> torch.Tensor:
        """Index of the last token of every prompt in the flat sequence."""
        begins = self.begins
        return self._numbers([begins[i] + last for i, image in enumerate(self.images) for last in image.lasts])

    @cached_property
    def begins(self) -> list[int]:
        """First token of each image in the flat sequence, and the sequence's length."""
        begins = [0]
        for image in self.images:
            begins.append(begins[-1] + image.total)
        return begins

    @property
    def width(self) -> int:
        """Tokens of the longest image: the width of the padded batch."""
        return max(image.total for image in self.images)

    @property
    def is_padded(self) -> bool:
        """Whether the padded batch has any padding."""
        return any(image.total < self.width for image in self.images)

    @cached_property
    def varlen(self) -> VarlenIndex:
        """The index for attention in one call."""
        return varlen_index(self)

    def _numbers(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=self.device)


@lru_cache(maxsize=64)
def packing_of(images: tuple[PromptLengths, ...], device: torch.device) -> Packing:
    """The packing of prompts on a device, made once for all batches of the same lengths."""
    return Packing(images, device)


@dataclass(frozen=True)
class VarlenIndex:
    """The flat sequence as variable-length sequences: every prefix and every suffix is one, with keys of its own."""

    key_rows: torch.Tensor
    """Index of each key in the flat sequence; a prefix's keys occur once more for each of its suffixes."""
    ends: Ends


def varlen_index(packing: Packing) -> VarlenIndex:
    """The index for attention over a packing in one call."""
    keys: list[int] = []
    query_sizes: list[int] = []
    key_sizes: list[int] = []
    for begin, image in zip(packing.begins, packing.images, strict=False):
        prefix = range(begin, begin + image.prefix)
        keys += prefix
        query_sizes += [image.prefix, *image.suffixes]
        key_sizes += [image.prefix, *(image.prefix + size for size in image.suffixes)]
        for last, size in zip(image.lasts, image.suffixes, strict=True):
            keys += [*prefix, *range(begin + last + 1 - size, begin + last + 1)]
    return VarlenIndex(
        torch.tensor(keys, device=packing.device),
        Ends.of(query_sizes, key_sizes, packing.device),
    )


def attend(
    packing: Packing, query_SHE: torch.Tensor, key_SGE: torch.Tensor, value_SGE: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal attention of every token inside its own prompt, shape (S, H, E)."""
    if takes_varlen(query_SHE):
        index = packing.varlen
        keys, values = key_SGE[index.key_rows], value_SGE[index.key_rows]
        return attend_varlen(index.ends, query_SHE, keys, values, scale, is_causal=True)
    parts = [
        part
        for begin, image in zip(packing.begins, packing.images, strict=False)
        for part in _attend_image(begin, image, query_SHE, key_SGE, value_SGE, scale)
    ]
    return torch.cat(parts)


def _attend_image(
    begin: int,
    image: PromptLengths,
    query_SHE: torch.Tensor,
    key_SGE: torch.Tensor,
    value_SGE: torch.Tensor,
    scale: float,
) -> Sequence[torch.Tensor]:
    prefix = slice(begin, begin + image.prefix)
    query, key, value = (part[prefix].transpose(0, 1)[None] for part in (query_SHE, key_SGE, value_SGE))
    first = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
    own = slice(begin, begin + image.total)
    rest = attend_suffixes(image, query_SHE[own], key_SGE[own], value_SGE[own], scale)
    return first[0].transpose(0, 1), rest


def attend_suffixes(
    image: PromptLengths, query_SHE: torch.Tensor, key_SGE: torch.Tensor, value_SGE: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of the tokens of one image's suffixes, in order; arguments are the image's part of the sequence."""
    index = suffix_index(image, query_SHE.device)
    if index.is_even:
        query_KTHE = query_SHE[image.prefix :].unflatten(0, index.queries_KT.shape)
    else:
        query_KTHE = query_SHE[index.queries_KT]
    attended_KHTE = functional.scaled_dot_product_attention(
        query_KTHE.transpose(1, 2),
        key_SGE[index.keys_KP].transpose(1, 2),
        value_SGE[index.keys_KP].transpose(1, 2),
        attn_mask=index.seen_KTP,
        scale=scale,
        enable_gqa=True,
    )
    attended_KTHE = attended_KHTE.transpose(1, 2)
    return attended_KTHE.flatten(0, 1) if index.is_even else attended_KTHE[index.real_KT]


def attend_last(
    packing: Packing, query_RHE: torch.Tensor, key_SGE: torch.Tensor, value_SGE: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of the last token of every prompt, shape (R, H, E)."""
    parts = []
    row = 0
    for begin, image in zip(packing.begins, packing.images, strict=False):
        index = suffix_index(image, query_RHE.device)
        num_suffixes = len(index.queries_KT)
        lasts_K = index.real_KT.sum(dim=1) - 1
        own = slice(begin, begin + image.total)
        attended_KHTE = functional.scaled_dot_product_attention(
            query_RHE[row : row + num_suffixes, None].transpose(1, 2),
            key_SGE[own][index.keys_KP].transpose(1, 2),
            value_SGE[own][index.keys_KP].transpose(1, 2),
            attn_mask=index.seen_KTP[lasts_K][:, None, None],
            scale=scale,
            enable_gqa=True,
        )
        parts.append(attended_KHTE[:, :, 0])
        row += num_suffixes
    return torch.cat(parts)
