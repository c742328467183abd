"""One image at a time, with loops -> what the vision tower must compute: slow, and plain to read."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

Grid = tuple[int, int]


def block_order(grid: Grid) -> list[tuple[int, int]]:
    """(row, column) of every patch, 2 x 2 blocks one after another."""
    height, width = grid
    return [
        (top + dy, left + dx)
        for top in range(0, height, 2)
        for left in range(0, width, 2)
        for dy in (0, 1)
        for dx in (0, 1)
    ]


def positions(table: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The table resized to one image, in block order."""
    side = int(len(table) ** 0.5)
    square = table.T.reshape(1, -1, side, side)
    resized = functional.interpolate(square, size=grid, mode="bicubic", align_corners=False, antialias=False)[0]
    return torch.stack([resized[:, row, column] for row, column in block_order(grid)])


def rotate(heads_THD: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Rotary positions of one image's queries or keys, as complex numbers."""
    width = heads_THD.shape[-1] // 2
    inverse = [1 / 10000 ** (i / width) for i in range(0, width, 2)]
    angles = torch.tensor(
        [[row * f for f in inverse] + [column * f for f in inverse] for row, column in block_order(grid)]
    )
    turned = torch.complex(*heads_THD.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)


def same_window(grid: Grid, side: int) -> torch.Tensor:
    """Which patch may look at which, (T, T): those in the same window of side x side patches."""
    windows = torch.tensor([[row // side, column // side] for row, column in block_order(grid)])
    return (windows[:, None] == windows[None]).all(-1)


@torch.inference_mode()
def vision_tower(tower: Any, patches_TF: torch.Tensor, grid: Grid, full: set[int], window_side: int) -> torch.Tensor:
    """Hidden states of one image, (T, D), with the tower's weights and none of its code."""
    conv = tower.embeddings.patch_embedding
    hidden = functional.conv2d(patches_TF.view(-1, 3, 16, 16), conv.weight, conv.bias).flatten(1)
    hidden = hidden + positions(tower.embeddings.position_embedding.weight, grid)
    everything, windows = torch.ones(len(hidden), len(hidden), dtype=torch.bool), same_window(grid, window_side)
    for index, layer in enumerate(tower.encoder["layers"]):
        normed = layer.layer_norm1(hidden)
        attention = layer.self_attn
        q, k, v = (
            project(normed).unflatten(-1, (attention.num_heads, -1))
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        scores = torch.einsum("qhd,khd->hqk", rotate(q, grid), rotate(k, grid)) / q.shape[-1] ** 0.5
        allowed = everything if index in full else windows
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        hidden = hidden + attention.out_proj(torch.einsum("hqk,khd->qhd", weights, v).flatten(1))
        inner = functional.gelu(layer.mlp.fc1(layer.layer_norm2(hidden)), approximate="tanh")
        hidden = hidden + layer.mlp.fc2(inner)
    return hidden
