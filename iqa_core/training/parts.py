"""A model -> its vision encoder, aligner and language model, each frozen, trained with low-rank updates, or in full."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from iqa_core.errors import CallerError
from iqa_core.training.recipe import PartMode, Recipe

if TYPE_CHECKING:
    import torch

Part = Literal["vision", "aligner", "language"]

ALIGNER = re.compile(
    r"(^|\.)(merger|deepstack_merger_list|connector|multi_modal_projector|mm_projector|projector|aligner|vte"
    r"|embed_vision|visual_tokenizer\.head|qformer|language_projection|resampler|perceiver)(\.|$)"
)
VISION = re.compile(r"(^|\.)(visual|visual_tokenizer|vision_model|vision_tower|vision_encoder|image_encoder)(\.|$)")
"""Names of modules in transformers' image-text-to-text models; a name that neither matches is the language model's."""

ADAPTER = "lora_"
"""Text in the names of all weights that peft adds."""


def part_of(name: str) -> Part:
    """The part to which a parameter or module belongs, by its name in the model."""
    if ALIGNER.search(name):
        return "aligner"
    return "vision" if VISION.search(name) else "language"


def apply_part_modes(model: torch.nn.Module, recipe: Recipe) -> None:
    """Freeze parts of a model and add low-rank updates to others, as the recipe says.

    Raises CallerError when the model lacks a part that is to be trained, or no part is to be trained.
    """
    modes = _modes(recipe)
    _require_parts(model, modes)
    if targets := sorted(_linear_layers(model, modes)):
        _add_adapters(model, targets, recipe)
    for name, parameter in model.named_parameters():
        mode = modes[part_of(name)]
        parameter.requires_grad = mode == "full" or (mode == "lora" and ADAPTER in name)


def require_trainable(folder: Path, recipe: Recipe) -> None:
    """Raises CallerError when `apply_part_modes` would, for a checkpoint whose weights are not loaded."""
    import torch
    from transformers import AutoModelForImageTextToText

    try:
        config = _config(folder)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CallerError(f"checkpoint {folder} is of no model that could be trained: {error}") from None
    _require_parts(model, _modes(recipe))


def require_context(folder: Path, prompt: int, answer: int) -> None:
    """Raises CallerError where a prompt and its answer, of so many tokens, do not fit the checkpoint's context."""
    from iqa_core.assessor.model.asking import context_of, shortage

    if said := shortage(prompt, answer, context_of(_config(folder))):
        raise CallerError(f"{said}: lower --max-new-tokens, --max-tokens or --max-pixels")


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    from iqa_core.assessor.ovis2_5.registration import register_ovis2_5

    register_ovis2_5()
    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def set_training(model: torch.nn.Module) -> None:
    """Put modules that are trained into training mode, and frozen ones into evaluation mode, as in scoring."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Name -> parameter, for all parameters that are trained."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def merge_adapters(model: torch.nn.Module) -> None:
    """Add low-rank updates to their weights and remove the adapters, so that the model has its original layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _modes(recipe: Recipe) -> dict[Part, PartMode]:
    return {"vision": recipe.vision, "aligner": recipe.aligner, "language": recipe.language}


def _require_parts(model: torch.nn.Module, modes: dict[Part, PartMode]) -> None:
    present = {part_of(name) for name, _ in model.named_parameters()}
    wanted = {part for part, mode in modes.items() if mode != "frozen"}
    if not wanted:
        raise CallerError("all parts are frozen, so there is nothing to train; set --language, --aligner or --vision")
    for part in sorted(wanted - present):
        raise CallerError(
            f"this model has no {part} part that could be told by its weights' names; set --{part} frozen"
        )


def _linear_layers(model: Any, modes: dict[Part, PartMode]) -> Iterator[str]:
    """Names of the layers that get a low-rank update: all linear ones of such a part but the output matrix."""
    import torch

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head and modes[part_of(name)] == "lora":
            yield name


def _add_adapters(model: Any, targets: list[str], recipe: Recipe) -> None:
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, lora_dropout=recipe.lora_dropout, target_modules=targets
    )
    torch.manual_seed(recipe.seed)  # the same start on every worker
    inject_adapter_in_model(config, model)
