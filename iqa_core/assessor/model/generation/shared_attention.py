"""A cache of N prompts and rows that continue them -> attention in which all samples of an image read one copy of it.

A sample's token attends to its prompt and to what the sample has written. The prompt's keys and values stay one row per
image: the queries of its samples, and of the heads that share a head of keys, are multiplied with them at once. What a
sample has written lies in a buffer of its own, so a token is one write; transformers' cache copies all for each token.

Shape suffixes: N images, S samples of an image at most, R rows, K heads of keys, G heads of queries to each, T tokens
of a prompt, U tokens written, D width of a head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from transformers import AttentionInterface
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from iqa_core.assessor.model.caches import layer_with_rows

NAME = "iqa_shared_prompt"
"""What the attention is called in a model's configuration while it is used."""

REFUSED = ("softcap", "s_aux", "position_bias")
"""Arguments of transformers' attention that change scores in ways that are not computed here."""


class Groups:
    """Which row continues which image, and its place among that image's rows; layers may lie on other devices."""

    def __init__(self, images_R: torch.Tensor) -> None:
        self.images_R = images_R
        counts = images_R.bincount()
        self.most = int(counts.max())
        first_of_image = counts.cumsum(0) - counts
        order = images_R.argsort(stable=True)
        place_R = torch.empty_like(images_R)
        place_R[order] = torch.arange(len(images_R), device=images_R.device) - first_of_image[images_R[order]]
        self._slots_R = images_R * self.most + place_R
        self._num_images = len(counts)
        self._is_whole = torch.equal(self._slots_R, torch.arange(self._num_images * self.most, device=images_R.device))

    def gathered(self, rows_RKGD: torch.Tensor) -> torch.Tensor:
        """Rows by image, (N, K, G x S, D); places without a row hold zeros."""
        if not self._is_whole:
            whole = rows_RKGD.new_zeros((self._num_images * self.most, *rows_RKGD.shape[1:]))
            rows_RKGD = whole.index_copy_(0, self._slots_R.to(whole.device), rows_RKGD)
        return rows_RKGD.unflatten(0, (self._num_images, self.most)).permute(0, 2, 3, 1, 4).flatten(2, 3)

    def scattered(self, groups_NKED: torch.Tensor) -> torch.Tensor:
        """What `gathered` made, or something else of the same first three axes, by row again: (R, K, G, …)."""
        rows = groups_NKED.unflatten(2, (-1, self.most)).permute(0, 3, 1, 2, 4).flatten(0, 1)
        return rows if self._is_whole else rows[self._slots_R.to(rows.device)]


class SharedLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values of one layer: those of the prompts, a row per image, and those of what each row has written."""

    def __init__(self, prompt: DynamicLayer, groups: Groups, room: int) -> None:
        """room: tokens that a row may write."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = prompt.dtype, prompt.device, True
        self._prompt_keys, self._prompt_values = prompt.keys, prompt.values
        self._groups = groups
        rows = len(groups.images_R)
        self.keys, self.values = (
            tensor.new_empty((rows, tensor.shape[1], room, tensor.shape[3])) for tensor in (prompt.keys, prompt.values)
        )
        self._written = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_settings: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (R, K, U, D) of what was written alone; the first of them says which layer has the rest."""
        end = self._written + key_states.shape[-2]
        self.keys[:, :, self._written : end] = key_states
        self.values[:, :, self._written : end] = value_states
        self._written = end
        keys = self.keys[:, :, :end]
        keys.shared = self  # read by `attend`
        return keys, self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """Tokens of a prompt and of what was written."""
        return int(self._prompt_keys.shape[-2]) + self._written

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """See `kept`."""
        raise NotImplementedError("rows of layers that share prompts leave by `kept`")

    def kept(self, rows: torch.Tensor, images: torch.Tensor, groups: Groups) -> Self:
        """The layer with these rows and images alone. groups: of what is left."""
        rows, images = rows.to(self.keys.device), images.to(self.keys.device)
        self.keys, self.values = self.keys[rows], self.values[rows]
        if len(images) < len(self._prompt_keys):
            self._prompt_keys, self._prompt_values = self._prompt_keys[images], self._prompt_values[images]
        self._groups = groups
        return self

    def attended(self, query_RHD: torch.Tensor, mask: torch.Tensor | None, scaling: float) -> torch.Tensor:
        """What one query per row finds, (R, H, D). mask: (R, 1, 1, T + U), True where a query may look."""
        keys, values = self.keys[:, :, : self._written], self.values[:, :, : self._written]
        query_RKGD = query_RHD.unflatten(1, (keys.shape[1], -1)) * scaling
        groups = self._groups
        of_prompt = groups.scattered(groups.gathered(query_RKGD) @ self._prompt_keys.mT)
        scores = torch.cat([of_prompt, query_RKGD @ keys.mT], dim=-1).float()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1).to(query_RHD.dtype)
        of_prompt, own = weights.split([self._prompt_keys.shape[-2], self._written], dim=-1)
        found = groups.scattered(groups.gathered(of_prompt) @ self._prompt_values) + own @ values
        return found.flatten(1, 2)


def can_share(layer: Any) -> bool:
    """Whether rows of a layer's cache can have one copy of their prompt: layers of full attention can."""
    return type(layer) is DynamicLayer and bool(layer.is_initialized)


class RowsCache:
    """A model's cache with a row per sample; its layers of full attention may share the prompts of their rows."""

    def __init__(self, prefilled: Any, images_R: torch.Tensor, room: int, *, shares: bool) -> None:
        """prefilled: cache of the prompts, a row per image; room: tokens that a row may write.

        shares: whether to keep prompts once per image, which `sharing` then needs; else their rows are repeated.
        """
        groups = Groups(images_R)
        self._images_R = images_R
        self.cache = copy.copy(prefilled)
        self.cache.layers = [
            SharedLayer(layer, groups, room)
            if shares and can_share(layer)
            # every other kind has its rows repeated: a window is short, and a recurrent state changes with each token
            else layer_with_rows(layer, images_R)
            for layer in prefilled.layers
        ]

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        images, self._images_R = self._images_R[rows].unique(return_inverse=True)
        groups = Groups(self._images_R)
        for layer in self.cache.layers:
            if isinstance(layer, SharedLayer):
                layer.kept(rows, images, groups)
            else:
                layer.reorder_cache(rows)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of transformers' interface: (R, H, 1, D) -> (R, 1, H, D); `sdpa` for layers that share nothing.

    Raises TypeError where a model caps or extends its scores, which is not done here.
    """
    shared: SharedLayer | None = getattr(key, "shared", None)
    if shared is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)
    if any(settings.get(name) is not None for name in REFUSED):
        raise TypeError("scores of attention are capped or extended")
    found = shared.attended(query[:, :, 0], attention_mask, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return found[:, None], None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def sharing(model: Any) -> Iterator[None]:
    """The model's decoder attends by `attend` inside."""
    config = model.get_decoder().config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
