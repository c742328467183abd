"""Lengths of prompts -> one flat sequence without padding, and attention in which a suffix sees its prefix and itself.

A suffix may have a view: then it sees only some tokens of the prefix, and only their keys are gathered for it.

The sequence has image after image: prefix, first suffix, second suffix and so on. Attention runs image by image on a
CPU and in one call on a GPU. Milliseconds per layer for four suffixes of 80 tokens behind a prefix of 265, 8 heads of
32, one CPU thread: one call under a block mask 3.3, a call for each suffix 3.1, one batched call on gathered keys 2.7.

Each row of that batch gathers the prefix's keys anew. So short suffixes share a row, under a block mask. Milliseconds
per layer with 1, 2, 4, 8 and 16 suffixes of 12 to 20 tokens in a row: 15, 13, 12, 12 and 14 for 64 of them; 111, 62,
51, 47 and 55 for 256; 120, 78, 50, 44 and 37 for 64 behind a prefix of 1,300.

Shape suffixes: S tokens of the flat sequence, H heads, G heads of keys and values, E width of a head, K suffixes of one
image, C rows of the batched call, B suffixes of a row, T tokens of the longest row, P tokens of prefix and longest row,
V tokens of the largest view, R tokens that are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from iqa_core.assessor.fast.varlen import Ends, attend_varlen, takes_varlen

ROW_TOKENS = 128
"""Suffixes of so many tokens together share a row of the batched call."""


@dataclass(frozen=True)
class PromptLengths:
    """Lengths of one image's prompts, in tokens: of their common prefix, and of the suffix of each."""

    prefix: int
    suffixes: tuple[int, ...]
    views: tuple[tuple[int, ...], ...] | None = None
    """Of each suffix, the tokens of the prefix that it sees, by index; None: all suffixes see all of it."""

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
    """Indices for the batched call over one image's suffixes, counted from the first suffix's first token.

    Without views the same for images of any size: their prefix is put before the keys when these are gathered.
    """

    tokens_CT: torch.Tensor
    seen_CTT: torch.Tensor
    """Which tokens of its row a query sees; (1, T, T) where that is the same in all rows."""
    real_CT: torch.Tensor
    suffixes_CB: torch.Tensor
    """Number of each row's suffixes; the last row repeats the last suffix where it has fewer."""
    seen_CBT: torch.Tensor
    """Which tokens of its row a suffix's last token sees."""
    is_even: bool
    """All rows are equally long, so queries need no gathering."""
    view_CV: torch.Tensor | None
    """Tokens of the prefix that the suffixes of a row see, padded to the largest view; None: all of the prefix."""
    is_view_CV: torch.Tensor | None
    """Where `view_CV` is no padding."""


@lru_cache(maxsize=64)
def suffix_index(lengths: tuple[int, ...], device: torch.device) -> SuffixIndex:
    """The index without views, made once. Where images have no texts of their own, all share one.

    That of 256 suffixes of 16 tokens takes 0.5 MB.
    """
    return _suffix_index(lengths, device, None)


def _suffix_index(
    lengths: tuple[int, ...], device: torch.device, views: tuple[tuple[int, ...], ...] | None
) -> SuffixIndex:
    """Indices for rows padded to the longest; a suffix sees neither padding nor its neighbours in the row."""
    per_row = _suffixes_per_row(lengths, views)
    rows = torch.tensor(lengths).split(per_row)
    num_rows = len(rows)
    ends_CB = pad_sequence([row.cumsum(0) for row in rows], batch_first=True).cummax(dim=1).values
    total_C1 = ends_CB[:, -1:]
    step_T = torch.arange(int(total_C1.max()))
    seen_CTT = torch.ones(1, len(step_T), len(step_T), dtype=torch.bool).tril()
    if num_rows < len(lengths):
        suffix_CT = torch.searchsorted(ends_CB, step_T.repeat(num_rows, 1), right=True)
        seen_CTT = seen_CTT & (suffix_CT[:, :, None] == suffix_CT[:, None])
    return SuffixIndex(
        (total_C1.cumsum(0) - total_C1 + torch.minimum(step_T, total_C1 - 1)).to(device),
        seen_CTT.to(device),
        (step_T < total_C1).to(device),
        torch.arange(ends_CB.numel()).clamp(max=len(lengths) - 1).view_as(ends_CB).to(device),
        seen_CTT.expand(num_rows, -1, -1)[torch.arange(num_rows)[:, None], ends_CB - 1].to(device),
        bool((total_C1 == len(step_T)).all()),
        *((None, None) if views is None else _padded_views(views[::per_row], device)),
    )


def _suffixes_per_row(lengths: tuple[int, ...], views: tuple[tuple[int, ...], ...] | None) -> int:
    """How many suffixes share a row; those with a view share one only with others of the same view."""
    most = max(1, ROW_TOKENS // max(lengths))
    if views is None:
        return most
    alike = math.gcd(*(len(list(run)) for _, run in groupby(views)))
    return max(count for count in range(1, most + 1) if alike % count == 0)


def _padded_views(views_C: Sequence[tuple[int, ...]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The views of rows (C, V), padded with the prefix's first token, and where they are no padding."""
    view_CV = pad_sequence([torch.tensor(view, dtype=torch.long) for view in views_C], batch_first=True)
    sizes_C = torch.tensor([len(view) for view in views_C])
    return view_CV.to(device), (torch.arange(view_CV.shape[1]) < sizes_C[:, None]).to(device)


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
    def suffixes(self) -> list[SuffixIndex]:
        """The index of each image's suffixes; those with views go with the packing."""
        return [
            suffix_index(image.suffixes, self.device)
            if image.views is None
            else _suffix_index(image.suffixes, self.device, image.views)
            for image in self.images
        ]

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
    keys = [_keys_of(begin, image) for begin, image in zip(packing.begins, packing.images, strict=False)]
    query_sizes = [size for image in packing.images for size in (image.prefix, *image.suffixes)]
    key_sizes = [size for image in packing.images for size in _key_sizes(image)]
    return VarlenIndex(torch.cat(keys).to(packing.device), Ends.of(query_sizes, key_sizes, packing.device))


def _key_sizes(image: PromptLengths) -> list[int]:
    """Number of keys of an image's prefix, and of each suffix."""
    seen = [image.prefix] * len(image.suffixes) if image.views is None else map(len, image.views)
    return [image.prefix, *(before + own for before, own in zip(seen, image.suffixes, strict=True))]


def _keys_of(begin: int, image: PromptLengths) -> torch.Tensor:
    """Index of the keys of an image's prefix, and of each suffix, in a flat sequence where the image begins there."""
    if image.views is not None:
        keys = [*range(image.prefix)]
        for view, last, length in zip(image.views, image.lasts, image.suffixes, strict=True):
            keys += (*view, *range(last + 1 - length, last + 1))
        return begin + torch.tensor(keys)
    own = torch.tensor([0, *image.suffixes])
    sizes = image.prefix + own
    within = torch.arange(int(sizes.sum())) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    before = (own.cumsum(0) - own).repeat_interleave(sizes)
    return begin + within + torch.where(within < image.prefix, 0, before)


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
        for begin, image, index in zip(packing.begins, packing.images, packing.suffixes, strict=False)
        for part in _attend_image(begin, image, index, query_SHE, key_SGE, value_SGE, scale)
    ]
    return torch.cat(parts)


def _attend_image(
    begin: int,
    image: PromptLengths,
    index: SuffixIndex,
    query_SHE: torch.Tensor,
    key_SGE: torch.Tensor,
    value_SGE: torch.Tensor,
    scale: float,
) -> Sequence[torch.Tensor]:
    prefix = slice(begin, begin + image.prefix)
    query, key, value = (part[prefix].transpose(0, 1)[None] for part in (query_SHE, key_SGE, value_SGE))
    first = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
    own = slice(begin, begin + image.total)
    rest = attend_suffixes(image, index, query_SHE[own], key_SGE[own], value_SGE[own], scale)
    return first[0].transpose(0, 1), rest


def attend_suffixes(
    image: PromptLengths,
    index: SuffixIndex,
    query_SHE: torch.Tensor,
    key_SGE: torch.Tensor,
    value_SGE: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Attention of the tokens of one image's suffixes, in order; arguments are the image's part of the sequence."""
    own_SHE = query_SHE[image.prefix :]
    query_CTHE = own_SHE.unflatten(0, index.tokens_CT.shape) if index.is_even else own_SHE[index.tokens_CT]
    attended_CTHE = _attend_rows(image, index, query_CTHE, key_SGE, value_SGE, index.seen_CTT, scale)
    return attended_CTHE.flatten(0, 1) if index.is_even else attended_CTHE[index.real_CT]


def _attend_rows(
    image: PromptLengths,
    index: SuffixIndex,
    query_CTHE: torch.Tensor,
    key_SGE: torch.Tensor,
    value_SGE: torch.Tensor,
    seen_CTT: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """The batched call: queries of each row, shape (C, T, H, E), over what it sees of the prefix and its own keys."""
    keys_CPGE, values_CPGE = (
        torch.cat([_seen_prefix(image, index, part), part[image.prefix :][index.tokens_CT]], 1)
        for part in (key_SGE, value_SGE)
    )
    attended_CHTE = functional.scaled_dot_product_attention(
        query_CTHE.transpose(1, 2),
        keys_CPGE.transpose(1, 2),
        values_CPGE.transpose(1, 2),
        attn_mask=_mask_of(image, index, seen_CTT)[:, None],
        scale=scale,
        enable_gqa=True,
    )
    return attended_CHTE.transpose(1, 2)


def _seen_prefix(image: PromptLengths, index: SuffixIndex, part_SGE: torch.Tensor) -> torch.Tensor:
    """Keys or values of the prefix's tokens that each row sees."""
    if index.view_CV is None:
        return part_SGE[: image.prefix].expand(len(index.tokens_CT), -1, -1, -1)
    return part_SGE[index.view_CV]


def _mask_of(image: PromptLengths, index: SuffixIndex, seen_CTT: torch.Tensor) -> torch.Tensor:
    """Which keys, of the prefix and of its row, each query of a row sees."""
    if index.is_view_CV is None:
        return functional.pad(seen_CTT, (image.prefix, 0), value=True)
    is_view_CTV = index.is_view_CV[:, None].expand(-1, seen_CTT.shape[1], -1)
    return torch.cat([is_view_CTV, seen_CTT.expand(len(is_view_CTV), -1, -1)], dim=2)


def attend_last(
    packing: Packing, query_RHE: torch.Tensor, key_SGE: torch.Tensor, value_SGE: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of the last token of every prompt, shape (R, H, E)."""
    parts = []
    first = 0
    for begin, image, index in zip(packing.begins, packing.images, packing.suffixes, strict=False):
        num_suffixes = len(image.suffixes)
        own = slice(begin, begin + image.total)
        query_CBHE = query_RHE[first : first + num_suffixes][index.suffixes_CB]
        attended_CBHE = _attend_rows(image, index, query_CBHE, key_SGE[own], value_SGE[own], index.seen_CBT, scale)
        parts.append(attended_CBHE.flatten(0, 1)[:num_suffixes])
        first += num_suffixes
    return torch.cat(parts)
