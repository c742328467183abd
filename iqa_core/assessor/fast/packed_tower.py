"""A vision tower of the Qwen2-VL family -> the same function on the same weights, several times as fast.

- A matrix product embeds patches instead of a convolution, from one frame instead of two equal ones.
- Attention over windows and images takes one call per distinct length, or a single one on a GPU, instead of one each.
- Rotary positions are one complex product in float32 (see packed_decoder); norms and gated MLPs make fewer passes.
- A gated MLP of uneven width, as 3,420 of Qwen2.5-VL, is padded with zeros: fast matrix products on a GPU need widths
  of whole memory lines.
- Order, windows and positions, which follow from an image's size alone, are made once per size.

Shape suffixes: S patches of all images, M groups of patches that become one token, D width of the tower, H heads, E
width of a head, C * P * P numbers of one patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional
from transformers import vision_utils
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from iqa_core.assessor.fast.packed_decoder import Norm, gated_mlp, pairs_together, rotated, rotation_of
from iqa_core.assessor.fast.segment_attention import Segments, attend_segments, segments_of

LINE = 64
"""Numbers in half precision that fill a line of a GPU's memory, 128 bytes."""


@dataclass(frozen=True)
class Geometry:
    """Order, windows and positions of the patches of images of given sizes; tensors on the device."""

    rotation: torch.Tensor
    """Rotary positions as `rotated` takes them, in the tower's order."""
    images: tuple[int, ...]
    """Number of patches of each image."""
    windows: tuple[int, ...] = ()
    """Number of patches of each window, in the tower's order; empty for a tower without windows."""
    order_S: torch.Tensor | None = None
    """Index that puts patches into the tower's order, window by window."""
    back_M: torch.Tensor | None = None
    """Index that puts tokens back into the order of their patches."""
    corners: torch.Tensor | None = None
    """Rows of the four learned positions around each patch, (S, 4)."""
    weights: torch.Tensor | None = None
    """Interpolation weights of those rows, (S, 4)."""


class PackedTower:
    """A tower's forward on packed patches, with the tower's own weights."""

    def __init__(self, tower: Any) -> None:
        convolution = tower.patch_embed.proj
        self._patch_weight = convolution.weight.detach().float().sum(dim=2).flatten(1).to(convolution.weight.dtype)
        self._patch_bias = convolution.bias
        self._blocks = [PackedBlock(block) for block in tower.blocks]
        self._tower = tower
        self._whole = set(getattr(tower, "fullatt_block_indexes", range(len(self._blocks))))
        self._deep = list(getattr(tower, "deepstack_visual_indexes", ()))
        self._of_size = lru_cache(maxsize=512)(self._geometry)

    def release(self) -> None:
        """Free the tower's weights that were copied; its own forward cannot be used afterwards."""
        for block in self._blocks:
            block.release()

    def forward(self, hidden_states: torch.Tensor, grid_thw: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Patches of one frame (S, C * P * P) and grids (N, 3), best on the CPU -> tokens (M, D) of all images."""
        geometry = _joined([self._of_size((int(rows), int(columns))) for _, rows, columns in grid_thw.tolist()])
        images = segments_of(geometry.images, hidden_states.device)
        windows = segments_of(geometry.windows, hidden_states.device) if geometry.windows else images
        hidden_SD = functional.linear(hidden_states.to(self._patch_weight.dtype), self._patch_weight, self._patch_bias)
        if geometry.corners is not None and geometry.weights is not None:
            hidden_SD += (self._tower.pos_embed(geometry.corners) * geometry.weights[:, :, None]).sum(1)
        if geometry.order_S is not None:
            hidden_SD = hidden_SD[geometry.order_S]
        deep = []
        for number, block in enumerate(self._blocks):
            hidden_SD = block(hidden_SD, images if number in self._whole else windows, geometry.rotation)
            if number in self._deep:
                deep.append(self._tower.deepstack_merger_list[self._deep.index(number)](hidden_SD))
        merged_MD = self._tower.merger(hidden_SD)
        merged_MD = merged_MD if geometry.back_M is None else merged_MD[geometry.back_M]
        if self._deep:
            return BaseModelOutputWithDeepstackFeatures(pooler_output=merged_MD, deepstack_features=deep)
        return BaseModelOutputWithPooling(pooler_output=merged_MD)

    def _geometry(self, size: tuple[int, int]) -> Geometry:
        """Geometry of one image with so many rows and columns of patches."""
        tower, merge = self._tower, self._tower.spatial_merge_size
        device, dtype = self._patch_weight.device, self._patch_weight.dtype
        grid = torch.tensor([(1, *size)])
        positions = vision_utils.get_vision_position_ids(grid, merge)
        cos_SE, sin_SE = tower.rotary_pos_emb(torch.empty(0, device=device), positions.to(device))
        rotation = rotation_of(cos_SE, sin_SE)
        num_patches = size[0] * size[1]
        if hasattr(tower, "window_size"):
            order_M, ends = vision_utils.get_vision_window_index(grid, merge, tower.window_size, tower.patch_size)
            order_S = (order_M[:, None] * merge**2 + torch.arange(merge**2)).flatten().to(device)
            windows = tuple(ends.diff().tolist())
            return Geometry(rotation[order_S], (num_patches,), windows, order_S, order_M.argsort().to(device))
        if hasattr(tower, "pos_embed"):
            corners, weights = vision_utils.get_vision_interpolation_indices_and_weights(
                grid,
                num_grid_per_side=tower.num_grid_per_side,
                mode=tower.interpolation_mode,
                align_corners=tower.interpolation_align_corners,
                spatial_merge_size=merge,
            )
            return Geometry(rotation, (num_patches,), corners=corners.to(device), weights=weights.to(device, dtype))
        return Geometry(rotation, (num_patches,))


def _joined(parts: Sequence[Geometry]) -> Geometry:
    """Geometry of images one after another."""
    if len(parts) == 1:
        return parts[0]
    sizes = [sum(part.images) for part in parts]
    tokens = [0 if part.back_M is None else len(part.back_M) for part in parts]
    return Geometry(
        torch.cat([part.rotation for part in parts]),
        tuple(size for part in parts for size in part.images),
        tuple(size for part in parts for size in part.windows),
        _shifted((part.order_S for part in parts), sizes),
        _shifted((part.back_M for part in parts), tokens),
        _shifted((part.corners for part in parts), [0] * len(parts)),
        _shifted((part.weights for part in parts), [0] * len(parts)),
    )


def _shifted(parts: Iterable[torch.Tensor | None], sizes: Sequence[int]) -> torch.Tensor | None:
    """Indices into parts, joined as indices into the whole."""
    begins = [sum(sizes[:i]) for i in range(len(sizes))]
    moved = [part + begin for part, begin in zip(parts, begins, strict=True) if part is not None]
    return torch.cat(moved) if moved else None


class PackedBlock:
    """One block: attention inside segments and an MLP, each behind a norm and with a residual connection."""

    def __init__(self, block: Any) -> None:
        attention, mlp = block.attn, block.mlp
        width = attention.qkv.out_features // 3 // attention.num_heads
        self._weight, self._bias = (_in_pairs(part.detach(), width) for part in attention.qkv.parameters())
        self._num_heads, self._width, self._scale = attention.num_heads, width, attention.scaling
        self._out = attention.proj
        self._norms = [Norm(norm) if hasattr(norm, "variance_epsilon") else norm for norm in (block.norm1, block.norm2)]
        self._copied = [(attention, "qkv")]
        self._mlp = mlp
        if hasattr(mlp, "gate_proj"):
            wide = widened(mlp)
            self._mlp = partial(gated_mlp, wide)
            self._copied += [] if wide is mlp else [(mlp, name) for name in ("gate_proj", "up_proj", "down_proj")]

    def release(self) -> None:
        """Free the block's weights that were copied."""
        for module, name in self._copied:
            delattr(module, name)

    def __call__(self, hidden_SD: torch.Tensor, segments: Segments, rotation: torch.Tensor) -> torch.Tensor:
        heads = functional.linear(self._norms[0](hidden_SD), self._weight, self._bias).unflatten(1, (-1, self._width))
        query_SHE, key_SHE = rotated(heads[:, : 2 * self._num_heads], rotation).chunk(2, dim=1)
        attended_SHE = attend_segments(segments, query_SHE, key_SHE, heads[:, 2 * self._num_heads :], self._scale)
        hidden_SD = hidden_SD + self._out(attended_SHE.flatten(1))
        return hidden_SD + self._mlp(self._norms[1](hidden_SD))


def widened(mlp: Any) -> Any:
    """A gated MLP padded with zeros to an inner width that is a multiple of LINE; itself if it is one already."""
    missing = -mlp.gate_proj.out_features % LINE
    if not missing:
        return mlp
    return SimpleNamespace(
        gate_proj=_padded(mlp.gate_proj, missing, 0),
        up_proj=_padded(mlp.up_proj, missing, 0),
        down_proj=_padded(mlp.down_proj, 0, missing),
        act_fn=mlp.act_fn,
    )


def _padded(layer: Any, rows: int, columns: int) -> Callable[[torch.Tensor], torch.Tensor]:
    weight = functional.pad(layer.weight.detach(), (0, columns, 0, rows))
    bias = None if layer.bias is None else functional.pad(layer.bias.detach(), (0, rows))
    return partial(functional.linear, weight=weight, bias=bias)


def _in_pairs(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of a fused projection: those of queries and keys in the order of `pairs_together`, values as they are."""
    query, key, value = rows.chunk(3)
    return torch.cat([pairs_together(query, width), pairs_together(key, width), value])
