"""config.json of a released Ovis2.5 checkpoint <-> settings of its parts."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig, Qwen3Config

from iqa_core.assessor.families import OVIS2_5
from iqa_core.assessor.ovis2_5.sizes import MERGE, PATCH

IMAGE_ID = -300
"""Input id in whose place a visual token goes; negative, so that no token of text has it."""
IMAGE_START_ID = -301
IMAGE_END_ID = -302
NUM_INDICATORS = 4
"""Number of last rows of the visual embedding table: image start, image end, video start, video end."""

SUPPORTED = {
    "patch_size": PATCH,
    "hidden_stride": MERGE,
    "temporal_patch_size": 1,
    "num_channels": 3,
    "use_rope": True,
    "preserve_original_pe": True,
    "attention_dropout": 0.0,
}
"""Settings of the vision tower that all released checkpoints share; other values are refused."""


class Ovis2_5VisionConfig(PreTrainedConfig):
    """Settings of the vision tower; defaults are those of the released checkpoints.

    Raises ValueError on other values than those of SUPPORTED.
    """

    model_type = "siglip2_navit"
    base_config_key = "vit_config"

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_channels: int = 3
    num_patches: int = -1
    image_size: int = 512
    patch_size: int = PATCH
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    hidden_stride: int = MERGE
    window_size: int = 112
    fullatt_block_indexes: str | None = None
    temporal_patch_size: int = 1
    preserve_original_pe: bool = True
    use_rope: bool = True
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name, value in SUPPORTED.items():
            if getattr(self, name) != value:
                raise ValueError(f"vit_config.{name} is {getattr(self, name)}; Ovis2.5 here knows only {value}")

    @property
    def full_layers(self) -> frozenset[int]:
        """Layers whose attention spans the whole image; the others attend inside windows."""
        if not self.fullatt_block_indexes:
            return frozenset(range(self.num_hidden_layers))
        return frozenset(int(index) for index in self.fullatt_block_indexes.split("|"))

    @property
    def window_blocks(self) -> int:
        """Side of a window, in blocks of 2 x 2 patches; the first window begins at the upper left corner."""
        return self.window_size // self.hidden_stride // self.patch_size

    @property
    def table_side(self) -> int:
        """Side of the square table of positions, in patches."""
        return self.image_size // self.patch_size


class Ovis2_5Config(PreTrainedConfig):
    """Settings of the whole model; `auto_map` (Python code beside the weights) is kept when saving, and never run."""

    model_type = OVIS2_5
    sub_configs: ClassVar = {"vit_config": Ovis2_5VisionConfig, "llm_config": Qwen3Config}
    attribute_map: ClassVar = {"text_config": "llm_config", "vision_config": "vit_config"}

    vit_config: Any = None
    """A dictionary when read, an Ovis2_5VisionConfig afterwards; llm_config likewise a Qwen3Config."""
    llm_config: Any = None
    visual_vocab_size: int = 65536
    hidden_size: int = 4096

    def __post_init__(self, **kwargs: Any) -> None:
        for name, kind in self.sub_configs.items():
            given = getattr(self, name)
            setattr(self, name, given if isinstance(given, kind) else kind(**(given or {})))
        super().__post_init__(**kwargs)
        if self.hidden_size != self.llm_config.hidden_size:
            raise ValueError(f"hidden_size is {self.hidden_size}, but that of llm_config {self.llm_config.hidden_size}")

    @property
    def image_token_id(self) -> int:
        """IMAGE_ID, by the name that other models' configurations have for it."""
        return IMAGE_ID

    def to_diff_dict(self) -> dict[str, Any]:
        """Content of config.json, with the keys that the released checkpoints have.

        Their readers want `torch_dtype` and `rope_theta`; where rope_theta is absent they take 10,000, not a million.
        """
        content = super().to_diff_dict()
        content["architectures"] = ["Ovis2_5"]
        content["llm_config"] = _with_rope_theta(content["llm_config"])
        for part in (content, content["llm_config"], content["vit_config"]):
            if (dtype := part.pop("dtype", None)) is not None:
                part["torch_dtype"] = dtype
        return content


def _with_rope_theta(content: dict[str, Any]) -> dict[str, Any]:
    """Qwen3's settings with `rope_theta` at the top, where older readers look for it."""
    rope = dict(content.pop("rope_parameters"))
    content["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        content["rope_scaling"] = rope
    content.pop("layer_types", None)
    return content
