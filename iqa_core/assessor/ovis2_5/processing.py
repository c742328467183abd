"""Prompts and images -> input ids, patches and grids for Ovis2.5, with Pillow and without torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import make_flat_list_of_images

from iqa_core.assessor.ovis2_5.configuration import IMAGE_END_ID, IMAGE_ID, IMAGE_START_ID
from iqa_core.assessor.ovis2_5.patches import patchify
from iqa_core.assessor.ovis2_5.sizes import MAX_PIXELS, MERGE, MIN_PIXELS, PATCH, RESAMPLE, image_size

IMAGE = "<image>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}" + IMAGE + "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen's chat markup as scoring checkpoints are trained on it: without thinking block and default system prompt.

The tokenizer's own template, if it has one, takes no images, and begins an answer with an empty thinking block.
"""


class Ovis2_5ImageProcessor(BaseImageProcessor):
    """Images -> patches; settings are those of preprocessor_config.json."""

    model_input_names: ClassVar = ["pixel_values", "grid_thws"]
    do_resize = do_rescale = do_normalize = do_convert_rgb = True
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)
    rescale_factor = 1 / 255
    resample = RESAMPLE
    min_pixels = MIN_PIXELS
    max_pixels = MAX_PIXELS

    def __init__(self, image_processor_type: str = "SiglipImageProcessor", **settings: Any) -> None:
        """Take the settings. image_processor_type: the class that the file names; it is saved as it was.

        Raises ValueError when a step is switched off that the model cannot do without.
        """
        super().__init__(**settings)
        self.image_processor_type = image_processor_type
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not getattr(self, step):
                raise ValueError(f"preprocessor_config.json has {step} = false, but Ovis2.5 cannot do without it")

    def to_dict(self) -> dict[str, Any]:
        """The settings that were loaded, with the class name that was loaded."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def preprocess(self, images: Any, do_resize: bool = True, return_tensors: str | None = None) -> BatchFeature:
        """Packed `pixel_values` (patches of all images, 768) in float32, and `grid_thws` (images, 3).

        do_resize: False takes the images as they are, and raises ValueError when their sides are no multiples of 32.
        """
        pictures = [_rgb(image) for image in make_flat_list_of_images(images)]
        if do_resize:
            pictures = [self.resized(picture) for picture in pictures]
        pixels = [torch.from_numpy(np.array(picture)) for picture in pictures]
        patches = [patchify(p, self.image_mean, self.image_std, self.rescale_factor) for p in pixels]
        grids = [[1, p.shape[0] // PATCH, p.shape[1] // PATCH] for p in pixels]
        data = {"pixel_values": torch.cat(patches).numpy(), "grid_thws": np.array(grids)}
        return BatchFeature(data, tensor_type=return_tensors)

    def resized(self, picture: Image.Image) -> Image.Image:
        """The picture resized to what the model sees."""
        height, width = image_size(picture.height, picture.width, self.min_pixels, self.max_pixels)
        return picture.resize((width, height), resample=Image.Resampling(self.resample))


class Ovis2_5Processor(ProcessorMixin):
    """Tokenizer and image processor of Ovis2.5 as one processor of transformers."""

    image_token = IMAGE
    image_token_id = IMAGE_ID

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **_: Any) -> None:
        """Take both. CHAT_TEMPLATE replaces any chat template of the checkpoint."""
        super().__init__(image_processor, tokenizer, chat_template=CHAT_TEMPLATE)

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: Any = None, **settings: Any
    ) -> list[Any]:
        """Image processor and tokenizer; the checkpoint's file names an image processor that makes no patches."""
        settings.pop("processor_dict", None)
        return [
            Ovis2_5ImageProcessor.from_pretrained(pretrained_model_name_or_path, **settings),
            AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **settings),
        ]

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write the files that released checkpoints have: preprocessor_config.json and the tokenizer's.

        Raises ValueError with push_to_hub.
        """
        if push_to_hub:
            raise ValueError("Ovis2.5's processor is saved to a folder only")
        files: list[str] = self.image_processor.save_pretrained(save_directory, **kwargs)
        return [*files, *self.tokenizer.save_pretrained(save_directory, **kwargs)]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        text_kwargs: dict[str, Any] | None = None,
        images_kwargs: dict[str, Any] | None = None,
        padding: bool | str = False,
        return_tensors: str | None = None,
        **image_settings: Any,
    ) -> BatchFeature:
        """`input_ids`, `attention_mask`, and with images `pixel_values` and `grid_thws`.

        text: prompts in which every image stands as `<image>`; images: in the order of their places, flat or nested.
        Each piece of text between images is tokenised by itself, without special tokens of the tokenizer's own.
        Raises ValueError when the numbers of places and images differ.
        """
        settings = {"padding": padding, "return_tensors": return_tensors, **(text_kwargs or {})}
        settings.pop("add_special_tokens", None)  # Qwen's tokenizers have none to add
        data: dict[str, Any] = {}
        if images is not None:
            data.update(self.image_processor.preprocess(images, **{**image_settings, **(images_kwargs or {})}))
        if text is not None:
            prompts = [text] if isinstance(text, str) else list(text)
            ids = self.token_ids(prompts, [int(grid.prod()) // MERGE**2 for grid in data.get("grid_thws", [])])
            tensor_type = settings.pop("return_tensors")
            data.update(self.tokenizer.pad({"input_ids": ids}, return_attention_mask=True, **settings))
        return BatchFeature(data, tensor_type=return_tensors if text is None else tensor_type)

    def token_ids(self, prompts: Sequence[str], visual_tokens: Sequence[int]) -> list[list[int]]:
        """Token ids of prompts; each `<image>` becomes image start, its number of visual tokens, and image end.

        Raises ValueError unless the prompts have one place per image.
        """
        places = sum(prompt.count(IMAGE) for prompt in prompts)
        if places != len(visual_tokens):
            raise ValueError(
                f"the prompts have {places} places for images ({IMAGE}), but {len(visual_tokens)} are given"
            )
        counts = iter(visual_tokens)
        return [self._ids(prompt, counts) for prompt in prompts]

    def _ids(self, prompt: str, counts: Any) -> list[int]:
        first, *others = self.tokenizer(prompt.split(IMAGE), add_special_tokens=False)["input_ids"]
        ids = list(first)
        for piece in others:
            ids += [IMAGE_START_ID, *[IMAGE_ID] * next(counts), IMAGE_END_ID, *piece]
        return ids


def _rgb(image: Any) -> Image.Image:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    return picture.convert("RGB")
