"""Packed patches of images of any sizes -> hidden states of Ovis2.5's vision tower -> probabilities of visual words.

There is no padding and no loop over images: positions are computed for all patches at once, and attention works on the
packed sequence, in which the patches of a window are neighbours. Module and parameter names are those of the released
checkpoints.

Shape suffixes: N images, T patches of all images (four neighbours make a visual token), F values of a patch, D width,
H heads, B visual tokens of all images, V visual words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN

from iqa_core.assessor.fast.segment_attention import Segments, attend_segments, segments_of
from iqa_core.assessor.ovis2_5.configuration import NUM_INDICATORS, Ovis2_5VisionConfig
from iqa_core.assessor.ovis2_5.sizes import MERGE

ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class PatchLayout:
    """Rows and columns of the patches of packed images, in the block order of `patches.patchify`; on the CPU."""

    grid_N2: torch.Tensor
    """Height and width in patches."""
    image_T: torch.Tensor
    row_T: torch.Tensor
    column_T: torch.Tensor

    @classmethod
    def of(cls, grid_thws_N3: torch.Tensor) -> PatchLayout:
        """The layout of grids (N, 3): frames (always 1), height and width in patches.

        Raises ValueError on video and odd sides.
        """
        grids = grid_thws_N3.cpu().long()
        if (grids[:, 0] != 1).any() or (grids[:, 1:] % MERGE).any():
            raise ValueError(f"grids must be of one frame and even sides, not {grids.tolist()}")
        sizes_N = grids[:, 1] * grids[:, 2]
        image_T = torch.repeat_interleave(torch.arange(len(grids)), sizes_N)
        inside_T = torch.arange(len(image_T)) - (sizes_N.cumsum(0) - sizes_N)[image_T]
        block_T, corner_T = inside_T // MERGE**2, inside_T % MERGE**2
        blocks_wide_T = (grids[:, 2] // MERGE)[image_T]
        return cls(
            grids[:, 1:],
            image_T,
            block_T // blocks_wide_T * MERGE + corner_T // MERGE,
            block_T % blocks_wide_T * MERGE + corner_T % MERGE,
        )

    def windows_T(self, blocks: int) -> torch.Tensor:
        """Index of each patch's window of `blocks` x `blocks` blocks, counted over all images."""
        side = blocks * MERGE
        per_side_N2 = (self.grid_N2 + side - 1) // side
        per_image_N = per_side_N2.prod(1)
        first_N = per_image_N.cumsum(0) - per_image_N
        wide_T = per_side_N2[self.image_T, 1]
        return first_N[self.image_T] + self.row_T // side * wide_T + self.column_T // side


class VisionEmbeddings(nn.Module):
    """A linear projection of each patch, plus the table of positions resized to its image."""

    def __init__(self, config: Ovis2_5VisionConfig) -> None:
        super().__init__()
        # a convolution in the checkpoint, a matrix product when applied: on two busy CPU cores 68 ms instead of 934 ms
        # for 4,096 patches at width 1152 in float32, and no slower in bfloat16
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(config.table_side**2, config.hidden_size)

    def forward(self, patches_TF: torch.Tensor, layout: PatchLayout) -> torch.Tensor:
        """Embeddings (T, D)."""
        embedded_TD = functional.linear(patches_TF, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)
        return embedded_TD + self.positions(layout).to(embedded_TD.dtype)

    def positions(self, layout: PatchLayout) -> torch.Tensor:
        """Position embedding of every patch, (T, D) in float32: the table is resized once for each distinct grid."""
        table = self.position_embedding.weight.float()
        side = int(len(table) ** 0.5)
        square = table.T.reshape(1, -1, side, side)
        distinct, which_N = layout.grid_N2.unique(dim=0, return_inverse=True)
        resized = [
            functional.interpolate(square, size=(h, w), mode="bicubic", align_corners=False).flatten(2)[0].T
            for h, w in distinct.tolist()
        ]
        sizes = distinct.prod(1)
        first_T = (sizes.cumsum(0) - sizes)[which_N][layout.image_T]
        index_T = first_T + layout.row_T * layout.grid_N2[layout.image_T, 1] + layout.column_T
        return torch.cat(resized)[index_T.to(table.device)]


class VisionAttention(nn.Module):
    """Multi-head attention with rotary positions in two dimensions."""

    def __init__(self, config: Ovis2_5VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.scale = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4)
        )

    def forward(
        self, hidden_TD: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], segments: Segments
    ) -> torch.Tensor:
        """Attention inside the segments, (T, D); rotation: cosine and sine of `rotations`."""
        q, k, v = (
            project(hidden_TD).unflatten(-1, (self.num_heads, -1))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = attend_segments(segments, rotated(q, *rotation), rotated(k, *rotation), v, self.scale)
        out: torch.Tensor = self.out_proj(attended.flatten(1))
        return out


class VisionMlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: Ovis2_5VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        """The same shape, (T, D)."""
        out: torch.Tensor = self.fc2(self.activation(self.fc1(hidden_TD)))
        return out


class VisionLayer(nn.Module):
    """A pre-norm encoder layer."""

    def __init__(self, config: Ovis2_5VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMlp(config)

    def forward(
        self, hidden_TD: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], segments: Segments
    ) -> torch.Tensor:
        """The same shape, (T, D)."""
        hidden_TD = hidden_TD + self.self_attn(self.layer_norm1(hidden_TD), rotation, segments)
        out: torch.Tensor = hidden_TD + self.mlp(self.layer_norm2(hidden_TD))
        return out


class VisionTower(nn.Module):
    """Patches -> hidden states of the last layer, before the last norm."""

    def __init__(self, config: Ovis2_5VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = VisionEmbeddings(config)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))}
        )
        # in every checkpoint, and never applied
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, patches_TF: torch.Tensor, grid_thws_N3: torch.Tensor) -> torch.Tensor:
        """Hidden states (T, D), in the order of the patches. Raises ValueError unless the grids have T patches."""
        layout = PatchLayout.of(grid_thws_N3)
        if len(layout.image_T) != len(patches_TF):
            raise ValueError(f"the grids are of {len(layout.image_T)} patches, but {len(patches_TF)} are given")
        device, width = patches_TF.device, self.config.hidden_size // self.config.num_attention_heads
        images = segments_of(lengths_of(layout.image_T), device)
        hidden_TD: torch.Tensor = self.embeddings(patches_TF, layout)
        rotation = rotations(layout, width, device)
        windows, order_T = images, None
        if len(self.config.full_layers) < self.config.num_hidden_layers:
            windows_T = layout.windows_T(self.config.window_blocks)
            windows, order_T = segments_of(lengths_of(windows_T), device), windows_T.argsort(stable=True).to(device)
            hidden_TD, rotation = hidden_TD[order_T], (rotation[0][order_T], rotation[1][order_T])
        layers: Any = self.encoder["layers"]
        for index, layer in enumerate(layers):
            hidden_TD = layer(hidden_TD, rotation, images if index in self.config.full_layers else windows)
        return hidden_TD if order_T is None else hidden_TD[order_T.argsort()]


class VisualTokenizer(nn.Module):
    """The vision tower, and the head that turns its hidden states into distributions over visual words."""

    def __init__(self, config: Ovis2_5VisionConfig, visual_vocab_size: int) -> None:
        super().__init__()
        self.vit = nn.ModuleDict({"vision_model": VisionTower(config)})
        num_words = visual_vocab_size - NUM_INDICATORS
        self.head = nn.Sequential(
            nn.Linear(config.hidden_size * MERGE**2, num_words, bias=False), nn.LayerNorm(num_words)
        )

    def forward(self, patches_TF: torch.Tensor, grid_thws_N3: torch.Tensor) -> torch.Tensor:
        """Hidden states of the vision tower, (T, D)."""
        hidden_TD: torch.Tensor = self.vit["vision_model"](patches_TF, grid_thws_N3)
        return hidden_TD

    def words(self, tokens_BD: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, V - 4) of visual words; tokens_BD holds the four patches of a block side by side."""
        return functional.softmax(self.head(tokens_BD), dim=-1, dtype=torch.float32).to(tokens_BD.dtype)


def lengths_of(part_T: torch.Tensor) -> tuple[int, ...]:
    """Number of patches of each part; part_T: the index of each patch's part."""
    return tuple(torch.bincount(part_T).tolist())


def rotations(layout: PatchLayout, head_width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of rotary angles, (T, 1, head_width / 2) in float32: one half by row, the other by column."""
    width = head_width // 2
    frequencies = ROPE_BASE ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.cat([torch.outer(place.float(), frequencies) for place in (layout.row_T, layout.column_T)], dim=-1)
    return angles.cos()[:, None].to(device), angles.sin()[:, None].to(device)


def rotated(t_THD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Heads with rotary positions applied in float32; the two values of a pair lie half a head apart."""
    first, second = t_THD.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(t_THD.dtype)
