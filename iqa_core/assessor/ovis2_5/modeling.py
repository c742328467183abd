"""Input ids and patches -> logits: Ovis2.5 on transformers' Qwen3.

A visual token is a distribution over visual words times the table of their embeddings; it takes the place of one id in
the prompt. Module and parameter names are those of the released checkpoints, which are loaded and saved unchanged.

Shape suffixes: N images, S prompts, L tokens of the longest prompt, T patches of all images, F values of a patch,
B visual tokens of all images, D width of the language model.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel, Qwen3ForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPooling

from iqa_core.assessor.ovis2_5.configuration import (
    IMAGE_END_ID,
    IMAGE_ID,
    IMAGE_START_ID,
    NUM_INDICATORS,
    Ovis2_5Config,
)
from iqa_core.assessor.ovis2_5.sizes import MERGE
from iqa_core.assessor.ovis2_5.vision import VisualTokenizer

WORD_BYTES = 2**28
"""Bytes of float32 logits over visual words that are made at a time: 1,024 tokens of 65,536 words, and a copy."""


class Ovis2_5ForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Ovis2.5 as an image-text-to-text model of transformers."""

    config_class = Ovis2_5Config
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar = ["Qwen3DecoderLayer", "VisionLayer"]
    _skip_keys_device_placement: ClassVar = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False

    def __init__(self, config: Ovis2_5Config) -> None:
        super().__init__(config)
        self.llm = Qwen3ForCausalLM(config.llm_config)
        self.visual_tokenizer = VisualTokenizer(config.vit_config, config.visual_vocab_size)
        self.vte = nn.Embedding(config.visual_vocab_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Input embeddings of the language model."""
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the input embeddings of the language model."""
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Output matrix of the language model."""
        return self.llm.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output matrix of the language model."""
        self.llm.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        """The language model without its output matrix."""
        return self.llm.model

    def get_image_features(self, pixel_values: torch.Tensor, grid_thws: torch.Tensor) -> BaseModelOutputWithPooling:
        """Visual embeddings of packed images.

        pixel_values: normalised patches (T, F) as `patches.patchify` lays them; grid_thws: (N, 3), best on the CPU:
        frames (1), height and width in patches. `pooler_output` has one (tokens, D) tensor for each image,
        `last_hidden_state` the vision tower's (T, width of the tower).
        """
        hidden_TD = self.visual_tokenizer(pixel_values.to(self.vte.weight.dtype), grid_thws)
        visual_BD = self.embed_visual(hidden_TD.unflatten(0, (-1, MERGE**2)).flatten(1))
        counts = (grid_thws.prod(-1) // MERGE**2).tolist()
        return BaseModelOutputWithPooling(last_hidden_state=hidden_TD, pooler_output=visual_BD.split(counts))

    def embed_visual(self, tokens_BD: torch.Tensor, word_bytes: int = WORD_BYTES) -> torch.Tensor:
        """Distributions over visual words times their embeddings, a few tokens at a time to bound memory.

        tokens_BD: the hidden states of the four patches of each block, side by side.
        """
        table = self.vte.weight[:-NUM_INDICATORS]
        chunk = max(1, word_bytes // (4 * len(table)))
        return torch.cat([self.visual_tokenizer.words(some) @ table for some in tokens_BD.split(chunk)])

    def get_inputs_embeds(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor | None = None, grid_thws: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Input embeddings of the language model, (S, L, D): text, image start and end, visual tokens in order.

        Raises ValueError when the prompts have another number of places than the images have visual tokens.
        """
        embeds_SLD: torch.Tensor = self.get_input_embeddings()(input_ids.clamp(min=0))
        for token, row in ((IMAGE_START_ID, -NUM_INDICATORS), (IMAGE_END_ID, 1 - NUM_INDICATORS)):
            embeds_SLD = torch.where((input_ids == token)[..., None], self.vte.weight[row], embeds_SLD)
        places = input_ids == IMAGE_ID
        found = int(places.sum())  # waits for the GPU, so it comes before the images keep it busy
        visual: Any = ()
        if pixel_values is not None and grid_thws is not None:
            visual = self.get_image_features(pixel_values, grid_thws).pooler_output
        given = sum(map(len, visual))
        if found != given:
            raise ValueError(f"the prompts have {found} places for visual tokens, but the images have {given}")
        return embeds_SLD.masked_scatter(places[..., None], torch.cat(visual)) if given else embeds_SLD

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        grid_thws: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """transformers' CausalLMOutputWithPast of the language model; positions are ordinary, one for each token.

        Give input_ids with the patches of their images, or inputs_embeds alone. Raises ValueError on both, on neither,
        and when the prompts have another number of places than the images have visual tokens.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if input_ids is not None:
            inputs_embeds = self.get_inputs_embeds(input_ids, pixel_values, grid_thws)
        elif pixel_values is not None:
            raise ValueError("pixel_values go with input_ids; inputs_embeds have their images already")
        return self.llm(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def adjust_generation_fn(self, *args: Any, **kwargs: Any) -> None:
        """Take the ids of special tokens from llm_config: transformers looks for them at the top of config.json."""
        super().adjust_generation_fn(*args, **kwargs)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(self.generation_config, name) is None:
                setattr(self.generation_config, name, getattr(self.config.llm_config, name))

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Leave the images out after the first step: the KV cache has them."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs["pixel_values"] = inputs["grid_thws"] = None
        return inputs

    def _expand_inputs_for_generation(self, expand_size: int = 1, **inputs: Any) -> Any:
        """Raises ValueError for several sequences per prompt: transformers would repeat packed patches wrongly."""
        if expand_size > 1 and inputs.get("pixel_values") is not None:
            raise ValueError("one sequence for each prompt; repeat prompts and images instead of asking for several")
        return super()._expand_inputs_for_generation(expand_size=expand_size, **inputs)
