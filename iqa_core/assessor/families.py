"""A checkpoint's model_type -> which of our own parts it gets in place of transformers'. No torch.

The one place that knows model types. A type that is not here needs no code: its own processor and transformers'
forward do everything. `PackedTower` and `PackedDecoder` are tried against that forward when a checkpoint is loaded, and
not used where they differ; preparers and encoders are compared with transformers' processors by their tests alone.

A family of a known kind is a line here. A new kind of tiling is a class and its reader in `preparing/tiling.py`, and a
line here. An architecture that transformers lacks is a package like `ovis2_5`, asked for wherever OVIS2_5 is.
"""

from __future__ import annotations

from iqa_core.assessor.preparing import tiling
from iqa_core.assessor.preparing.tiling import TilingFamily

QWEN2_VL = frozenset("qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe".split())
"""Sized by `SmartResizePreparer`, cut by `PatchEncoder`, seen by `PackedTower`."""

VIEWED = frozenset("qwen2_vl qwen2_5_vl qwen3_vl ovis2_5".split())
"""Questions may see some of an image's tokens only: these are one grid over the picture, and no state of the model but
keys and values tells what the others were."""

TILED = {
    "internvl": TilingFamily("GotOcr2ImageProcessor", 3, tiling.internvl),
    "ovis2": TilingFamily("Ovis2ImageProcessor", 3, tiling.ovis2),
    "llava_onevision": TilingFamily(
        "LlavaOnevisionImageProcessor", 3, tiling.llava_onevision, pads=True, arrangement="with_sizes"
    ),
    "idefics3": TilingFamily("Idefics3ImageProcessor", 1, tiling.idefics3, pads=True, arrangement="with_mask"),
    "smolvlm": TilingFamily("SmolVLMImageProcessor", 1, tiling.idefics3, pads=True, arrangement="with_mask"),
    "gemma3": TilingFamily("Gemma3ImageProcessor", 2, tiling.gemma3),
    "paligemma": TilingFamily("SiglipImageProcessor", 3, tiling.paligemma),
}
"""Cut by `TilingPreparer`, laid out by `TileEncoder`."""

PACKED_DECODERS = frozenset("llama mistral qwen2 qwen3 qwen2_vl_text qwen2_5_vl_text qwen3_vl_text".split())
"""Types of language models, not of checkpoints, that `PackedDecoder` computes: root mean square norms before attention
and before a gated MLP, rotary positions over whole heads."""

OVIS2_5 = "ovis2_5"
"""The one architecture that transformers lacks: the package `ovis2_5` beside this module has its model, its processor
and its encoder."""
