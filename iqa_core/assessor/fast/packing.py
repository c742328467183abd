"""Lengths of prompts -> one flat sequence without padding, in which each suffix sees its prefix and itself: attention.

Image by image: its prefix, its first suffix, its second suffix and so on. Attention runs per image on a CPU and in one
call for all on a GPU. Ways to let four suffixes of 80 tokens share a prefix of 265, 8 heads of 32, one CPU thread,
milliseconds per layer: all under one block mask 3.3, one call for each 3.1, one batched call on gathered keys 2.7.

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
    """Of one image's prompts, in tokens: what they share, and what each adds."""

    prefix: int
    suffixes: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.prefix + sum(self.suffixes)

    @property
    def within(self) -> list[int]:
        """Position of every token in its own prompt."""
        return [*range(self.prefix), *(self.prefix + j for length in self.suffixes for j in range(length))]

    @property
    def lasts(self) -> list[int]:
        """The last token of each prompt, in the order of the flat sequence."""
        return [self.prefix + sum(self.suffixes[: k + 1]) - 1 for k in range(len(self.suffixes))]


@dataclass(frozen=True)
class SuffixIndex:
    """Rows for the batched call over one image's suffixes, counted from the prefix's first token."""

    queries_KT: torch.Tensor
    keys_KP: torch.Tensor
    seen_KTP: torch.Tensor
    real_KT: torch.Tensor
    is_even: bool
    """All suffixes are equally long: queries need no gathering."""


@lru_cache(maxsize=256)
def suffix_index(lengths: PromptLengths, device: torch.device) -> SuffixIndex:
    """Shorter suffixes are padded behind their end, where a causal mask hides keys from all real queries."""
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
    """The flat sequence of a batch, made from prompts padded to the longest image."""

    images: tuple[PromptLengths, ...]
    device: torch.device

    @cached_property
    def rows_S(self) -> torch.Tensor:
        """Of the padded batch, in which an image's tokens stand in the same order."""
        return self._numbers([i * self.width + j for i, image in enumerate(self.images) for j in range(image.total)])

    @cached_property
    def position_rows_S(self) -> torch.Tensor:
        """Of the padded batch: whose rotary position a token takes, since all suffixes begin where the first does."""
        return self._numbers([i * self.width + j for i, image in enumerate(self.images) for j in image.within])

    @cached_property
    def within_S(self) -> torch.Tensor:
        return self._numbers([j for image in self.images for j in image.within])

    @cached_property
    def read_R(self) -> torch.Tensor:
        """The last token of every prompt."""
        begins = self.begins
        return self._numbers([begins[i] + last for i, image in enumerate(self.images) for last in image.lasts])

    @cached_property
    def begins(self) -> list[int]:
        """Of each image in the flat sequence, and the end."""
        begins = [0]
        for image in self.images:
            begins.append(begins[-1] + image.total)
        return begins

    @property
    def width(self) -> int:
        return max(image.total for image in self.images)

    @property
    def is_padded(self) -> bool:
        return any(image.total < self.width for image in self.images)

    @cached_property
    def varlen(self) -> VarlenIndex:
        return varlen_index(self)

    def _numbers(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=self.device)


@lru_cache(maxsize=64)
def packing_of(images: tuple[PromptLengths, ...], device: torch.device) -> Packing:
    """Index tensors are made once for all batches of the same lengths."""
    return Packing(images, device)


@dataclass(frozen=True)
class VarlenIndex:
    """The flat sequence as one of many: a prefix, and each suffix, is a sequence of queries with keys of its own."""

    key_rows: torch.Tensor
    ends: Ends


def varlen_index(packing: Packing) -> VarlenIndex:
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
    """Attention of every token to its own prompt up to itself, shape (S, H, E)."""
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
    """One image's part of the flat sequence -> attention of its suffixes' tokens, in their order."""
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
    """Attention of the last token of every prompt alone, shape (R, H, E)."""
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
