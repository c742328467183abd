"""config.json of a released Ovis2.5 checkpoint -> settings of its parts, and back in the same words."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig, Qwen3Config

from iqa_core.assessor.families import OVIS2_5
from iqa_core.assessor.ovis2_5.sizes import MERGE, PATCH

IMAGE_ID = -300
"""What stands in the input ids where a visual token goes: below the vocabulary, so that no text can be taken for it."""
IMAGE_START_ID = -301
IMAGE_END_ID = -302
NUM_INDICATORS = 4
"""Last rows of the visual embedding table: image start, image end, video start, video end."""

SUPPORTED = {
    "patch_size": PATCH,
    "hidden_stride": MERGE,
    "temporal_patch_size": 1,
    "num_channels": 3,
    "use_rope": True,
    "preserve_original_pe": True,
    "attention_dropout": 0.0,
}
"""Settings of the vision tower that all released checkpoints share; any other value is refused."""


class Ovis2_5VisionConfig(PreTrainedConfig):
    """The vision tower; defaults are those of the released checkpoints."""

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
        """Layers whose attention spans the whole image; the others stay inside windows."""
        if not self.fullatt_block_indexes:
            return frozenset(range(self.num_hidden_layers))
        return frozenset(int(index) for index in self.fullatt_block_indexes.split("|"))

    @property
    def window_blocks(self) -> int:
        """Side of a window, in blocks of 2 x 2 patches; windows begin at the upper left corner."""
        return self.window_size // self.hidden_stride // self.patch_size

    @property
    def table_side(self) -> int:
        """Side of the square table of positions, in patches."""
        return self.image_size // self.patch_size


class Ovis2_5Config(PreTrainedConfig):
    """The whole model; `auto_map` (Python code beside the weights) is kept when saving, and never run."""

    model_type = OVIS2_5
    sub_configs: ClassVar = {"vit_config": Ovis2_5VisionConfig, "llm_config": Qwen3Config}
    attribute_map: ClassVar = {"text_config": "llm_config", "vision_config": "vit_config"}

    vit_config: Any = None
    """As a dictionary when read, as an Ovis2_5VisionConfig afterwards; llm_config likewise as a Qwen3Config."""
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
        """The id in whose place a visual token goes, as other models' configurations call it."""
        return IMAGE_ID

    def to_diff_dict(self) -> dict[str, Any]:
        """What config.json holds: the keys that the released checkpoints and their readers know.

        Those readers take `torch_dtype` and `rope_theta`, and a missing rope_theta for 10,000 instead of a million.
        """
        content = super().to_diff_dict()
        content["architectures"] = ["Ovis2_5"]
        content["llm_config"] = _with_rope_theta(content["llm_config"])
        for part in (content, content["llm_config"], content["vit_config"]):
            if (dtype := part.pop("dtype", None)) is not None:
                part["torch_dtype"] = dtype
        return content


def _with_rope_theta(content: dict[str, Any]) -> dict[str, Any]:
    """Qwen3's settings with the base of its rotary positions where older readers look for it."""
    rope = dict(content.pop("rope_parameters"))
    content["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        content["rope_scaling"] = rope
    content.pop("layer_types", None)
    return content
