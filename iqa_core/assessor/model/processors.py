"""A checkpoint folder -> its own processor: tokenizer, chat template and image processor, on Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iqa_core.assessor.checkpoint.files import read_json
from iqa_core.assessor.families import OVIS2_5
from iqa_core.errors import CallerError


def load_processor(folder: Path) -> Any:
    """The transformers processor of a checkpoint, for images and text alone, padding on the right.

    The image processor is always the Pillow one, so that scores are the same with and without torchvision. Video and
    audio parts are left out: they are not used here, and most cannot be loaded without torchvision. Padding on the
    right shifts no positions, and a causal model's real tokens never see it.
    Raises CallerError when the checkpoint has no such processor.
    """
    from transformers import AutoTokenizer

    from iqa_core.assessor.ovis2_5.registration import register_ovis2_5

    register_ovis2_5()  # before config.json is read: of an unknown type transformers asks whether to run its auto_map
    try:
        processor_class = _image_and_text_only(_processor_class(folder))
        parts = {
            "image_processor": _image_processor(folder),
            "tokenizer": AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
        }
        settings, _ = processor_class.get_processor_dict(folder, local_files_only=True)
        processor = _assembled(processor_class, parts, settings)
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise CallerError(f"the processor of checkpoint {folder} cannot be loaded: {error}") from None
    if getattr(processor.image_processor, "backend", "pil") != "pil":
        raise CallerError(f"checkpoint {folder} has no Pillow image processor: its scores would depend on torchvision")
    processor.tokenizer.padding_side = "right"
    return processor


def _processor_class(folder: Path) -> Any:
    """The processor's class: the one that the checkpoint's files name, else the one of its model type."""
    if _is_ovis2_5(folder):
        from iqa_core.assessor.ovis2_5.processing import Ovis2_5Processor

        return Ovis2_5Processor
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if name := read_json(folder / file).get("processor_class"):
            return getattr(transformers, name)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if type(config) not in PROCESSOR_MAPPING:
        raise ValueError(f"model type {config.model_type} has no processor of images and text")
    return PROCESSOR_MAPPING[type(config)]


def _image_processor(folder: Path) -> Any:
    """The image processor that the checkpoint's files name; for Ovis2.5 ours, since its files name another's."""
    if _is_ovis2_5(folder):
        from iqa_core.assessor.ovis2_5.processing import Ovis2_5ImageProcessor

        return Ovis2_5ImageProcessor.from_pretrained(folder, local_files_only=True)
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True, trust_remote_code=False)


def _is_ovis2_5(folder: Path) -> bool:
    return read_json(folder / "config.json").get("model_type") == OVIS2_5


def _assembled(processor_class: Any, parts: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """A processor of these parts. MiniCPM-V's reads settings of its video part, for which that of images stands in."""
    try:
        return _of_parts(processor_class, parts, settings)
    except AttributeError:
        return _of_parts(processor_class, {**parts, "video_processor": parts["image_processor"]}, settings)


def _of_parts(processor_class: Any, parts: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    arguments = [parts.get(name) for name in processor_class.get_attributes()]
    return processor_class.from_args_and_dict(arguments, dict(settings))


def _image_and_text_only(processor_class: Any) -> Any:
    """A subclass of the same name that accepts None for its video and audio parts, and any part for video."""

    def check(self: Any, name: str, part: Any) -> Any:
        if part is None or name == "video_processor":
            return None
        return processor_class.check_argument_for_proper_class(self, name, part)

    return type(processor_class.__name__, (processor_class,), {"check_argument_for_proper_class": check})
