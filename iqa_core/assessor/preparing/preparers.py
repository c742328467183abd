"""A checkpoint's processor files -> a preparer: what readers do to an image, from its header and its pixels. No torch.

An image costs its visual tokens and 16 tokens of chat markup once, since the prompts of all dimensions share them, and
one token per 4 bytes of every query and answer prefix. A text in a slot costs one token per 4 bytes wherever it goes
through the model: once where all questions begin alike up to its end, else in each question that has it.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from iqa_core.assessor.checkpoint.files import read_json
from iqa_core.assessor.families import OVIS2_5, QWEN2_VL, TILED
from iqa_core.assessor.ovis2_5 import sizes as ovis2_5
from iqa_core.assessor.preparing.grids import smart_size
from iqa_core.assessor.preparing.tiling import TilePlan, Tiling, stacked, unstacked
from iqa_core.assessor.prompts.slot_texts import shared_start
from iqa_core.errors import CallerError
from iqa_core.records import ImageHeader, ImageLimits, PreparedShape, RgbImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqa_core.rubrics import BaseRubric

MARKUP_TOKENS = 16
BYTES_PER_TOKEN = 4

QWEN_PROCESSOR = "Qwen2VLImageProcessor"
"""Image processor of the Qwen2-VL family; its variants are called ...Fast and ...Pil."""

OVIS2_5_DEFAULTS = {
    "patch_size": ovis2_5.PATCH,
    "merge_size": ovis2_5.MERGE,
    "min_pixels": ovis2_5.MIN_PIXELS,
    "max_pixels": ovis2_5.MAX_PIXELS,
    "resample": ovis2_5.RESAMPLE,
}
"""Settings that the files of released Ovis2.5 checkpoints lack, but for the filter."""


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Estimate of the tokens that an image's prompts take together."""

    text_tokens: int
    """Tokens of text in the prompts of all questions, but for what stands in slots."""
    longest: int
    """Those in the longest prompt alone: what one more question about a part of an image adds at most."""
    places: tuple[tuple[str, int], ...] = ()
    """Slot -> how often its text goes through the model."""

    @classmethod
    def of(cls, rubric: BaseRubric) -> TokenCost:
        """The cost under a rubric, estimated from its text: readers have no tokenizer. What is written is not in it."""
        questions = [_tokens(f"{query}{answer_start}") for query, answer_start in rubric.asked_texts]
        around = MARKUP_TOKENS + _tokens(rubric.system or "")
        queries = [query for query, _ in rubric.asked_texts]
        places = tuple((slot, _num_places(f"{{{slot}}}", queries)) for slot in rubric.slots)
        return cls(around + sum(questions), around + max(questions), places)

    def of_texts(self, texts: Mapping[str, str]) -> int:
        """Tokens of an image's texts, slot -> text; none for slots that the rubric lacks."""
        return sum(count * _tokens(texts[slot]) for slot, count in self.places)

    def total(self, visual_tokens: int) -> int:
        """Tokens of an image with so many visual tokens."""
        return visual_tokens + self.text_tokens


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def _num_places(placeholder: str, queries: Sequence[str]) -> int:
    """How often a placeholder's text is computed: what all queries begin with is computed once."""
    alike = shared_start(queries)
    if alike.rfind("{") > alike.rfind("}"):  # the queries differ inside a placeholder
        alike = alike[: alike.rfind("{")]
    return alike.count(placeholder) + sum(query[len(alike) :].count(placeholder) for query in queries)


@dataclass(frozen=True, slots=True)
class ModelPreparer(ABC):
    """What readers do to an image for a checkpoint; obeys `iqa_core.records.Preparer`.

    The picture is the image resized for the checkpoint. A prepared image is its picture, or the tiles cut from that.
    """

    limits: ImageLimits
    cost: TokenCost
    max_pixels: int | None
    """Largest picture in pixels; None is no bound."""

    processor_resizes: ClassVar[bool] = True
    """Whether the checkpoint's own processor still has to resize or cut the picture."""

    @abstractmethod
    def visual_tokens(self, height: int, width: int) -> int:
        """Tokens that stand in a prompt for a picture of this size."""

    def picture_size(self, header: ImageHeader) -> tuple[int, int]:
        """Height and width of an image's picture."""
        return scaled_down(header.height, header.width, self.max_pixels)

    def picture(self, image: RgbImage) -> NDArray[np.uint8]:
        """The image resized to its picture, (H, W, 3)."""
        return resized(image.pixels_HWC, *self.picture_size(image.header), Image.Resampling.BICUBIC)

    def shape(self, header: ImageHeader) -> PreparedShape:
        """Size, tokens and memory of what an image will be prepared to, from its header alone."""
        height, width = self.picture_size(header)
        tokens = self.cost.total(self.visual_tokens(height, width))
        return PreparedShape(height, width, tokens, resizing_bytes((header.height, header.width), (height, width)))

    def prepare(self, image: RgbImage) -> NDArray[np.uint8]:
        """The prepared image, (H, W, 3)."""
        return self.prepare_picture(self.picture(image))

    def prepare_picture(self, picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The prepared image of a picture: the picture itself."""
        return picture_HWC

    def text_tokens(self, texts: Mapping[str, str]) -> int:
        """Tokens of an image's texts, beside those of `shape`."""
        return self.cost.of_texts(texts)

    def tokens(self, prepared_HWC: NDArray[np.uint8]) -> int:
        """Tokens of a prepared image without its texts, equal to those of `shape`."""
        return self.cost.total(self.visual_tokens(*prepared_HWC.shape[:2]))


@dataclass(frozen=True, slots=True)
class FullSizePreparer(ModelPreparer):
    """For any model: an image travels as it is, or scaled down to `max_pixels`; the model's processor does the rest."""

    min_visual_tokens: int
    """Tokens of the smallest image; a model with tiles may take more than is estimated here."""

    def visual_tokens(self, height: int, width: int) -> int:
        """An estimate, one token per 28 x 28 pixels: patches of 14, merged two by two."""
        return max(self.min_visual_tokens, math.ceil(height * width / 28**2))


@dataclass(frozen=True, slots=True)
class TilingPreparer(ModelPreparer):
    """For models that see tiles: images are cut as the checkpoint's own processor cuts them."""

    tiling: Tiling

    def visual_tokens(self, height: int, width: int) -> int:
        """Tokens of all tiles with their markup."""
        return self.tiling.plan(height, width).tokens

    def shape(self, header: ImageHeader) -> PreparedShape:
        """Size of the stacked tiles, their tokens, and the memory that cutting takes."""
        picture = self.picture_size(header)
        plan = self.tiling.plan(*picture)
        height, width = self.tiling.tile
        rows = plan.num_tiles * height + 1
        return PreparedShape(rows, width, self.cost.total(plan.tokens), self._work_bytes(header, picture, plan))

    def _work_bytes(self, header: ImageHeader, picture: tuple[int, int], plan: TilePlan) -> int:
        """Bytes of the largest resize, of the picture if it is not the image itself, and of tiles and their copies."""
        sizes = [(header.height, header.width), picture, *plan.resizes]
        steps = [*itertools.pairwise(sizes), (picture, self.tiling.tile)]
        scaled_bytes = 3 * math.prod(picture) if picture != sizes[0] else 0
        tiles_bytes = 3 * plan.num_tiles * math.prod(self.tiling.tile)
        return max(resizing_bytes(*step) for step in steps) + scaled_bytes + 5 * tiles_bytes

    def prepare_picture(self, picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The tiles and the picture's size in one array, which `unstacked` takes apart."""
        height, width = picture_HWC.shape[:2]
        return stacked(tiles_of(picture_HWC, self.tiling), (height, width))

    def tokens(self, prepared_HWC: NDArray[np.uint8]) -> int:
        """Tokens of stacked tiles, equal to those of `shape`."""
        _, size = unstacked(prepared_HWC, self.tiling.tile)
        return self.cost.total(self.visual_tokens(*size))


@dataclass(frozen=True, slots=True)
class SmartResizePreparer(ModelPreparer):
    """For the Qwen2-VL family: sides become multiples of `factor`, the area stays inside two bounds.

    This is all that the checkpoint's own processor does in 8 bits; normalising and cutting is left to the actor.
    """

    max_pixels: int
    min_pixels: int
    factor: int
    """Side of what becomes one visual token, pixels: patch size x merge size."""
    resample: int
    """Pillow's number of the filter."""

    processor_resizes = False

    def picture_size(self, header: ImageHeader) -> tuple[int, int]:
        """Height and width by `smart_size`."""
        return smart_size(header.height, header.width, self.factor, self.min_pixels, self.max_pixels)

    def visual_tokens(self, height: int, width: int) -> int:
        """One token per `factor` x `factor` pixels."""
        return height * width // self.factor**2

    def grid(self, prepared_HWC: NDArray[np.uint8]) -> tuple[int, int]:
        """Rows and columns of a prepared image's visual tokens; each covers an equal part of the whole picture."""
        height, width = prepared_HWC.shape[:2]
        return height // self.factor, width // self.factor

    def picture(self, image: RgbImage) -> NDArray[np.uint8]:
        """The image resized with the checkpoint's own filter."""
        return resized(image.pixels_HWC, *self.picture_size(image.header), self.resample)


class Ovis2_5Preparer(SmartResizePreparer):
    """For Ovis2.5, whose sizes are rounded otherwise."""

    __slots__ = ()

    def picture_size(self, header: ImageHeader) -> tuple[int, int]:
        """Height and width by Ovis2.5's own rule."""
        return ovis2_5.image_size(header.height, header.width, self.min_pixels, self.max_pixels)


def make_preparer(folder: Path, rubric: BaseRubric, limits: ImageLimits, max_pixels: int | None) -> ModelPreparer:
    """The preparer that a checkpoint's processor files ask for.

    max_pixels: replaces the bound of a processor that has one; else images above it are scaled down first.
    Raises CallerError when max_pixels is below what the processor allows.
    """
    model = read_json(folder / "config.json")
    processor = read_json(folder / "processor_config.json")
    vision = processor.get("image_processor") or read_json(folder / "preprocessor_config.json")
    cost = TokenCost.of(rubric)
    model_type = str(model.get("model_type"))
    if model_type == OVIS2_5:
        return _smart_resize({**OVIS2_5_DEFAULTS, **vision}, cost, limits, max_pixels, Ovis2_5Preparer)
    name = vision.get("image_processor_type") or (QWEN_PROCESSOR if model_type in QWEN2_VL else "")
    if name.startswith(QWEN_PROCESSOR) and vision.get("do_resize", True):
        return _smart_resize(vision, cost, limits, max_pixels)
    if model_type in TILED and (tiling := TILED[model_type].tiling(processor, vision)):
        return TilingPreparer(limits, cost, max_pixels, tiling)
    sources = (processor, model, model.get("text_config", {}))
    counts = [source.get(key) for source in sources for key in ("image_seq_len", "image_seq_length")]
    counts.append(model.get("mm_tokens_per_image"))
    return FullSizePreparer(limits, cost, max_pixels, max((c for c in counts if c), default=1))


def _smart_resize(
    vision: dict[str, Any],
    cost: TokenCost,
    limits: ImageLimits,
    max_pixels: int | None,
    kind: type[SmartResizePreparer] = SmartResizePreparer,
) -> SmartResizePreparer:
    """The preparer by an image processor's settings; absent ones are those of transformers' Qwen2VLImageProcessor."""
    size = vision.get("size") or {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    smallest = vision.get("min_pixels") or size["shortest_edge"]
    largest = max_pixels or vision.get("max_pixels") or size["longest_edge"]
    factor = vision.get("patch_size", 14) * vision.get("merge_size", 2)
    if largest < max(smallest, factor**2):
        raise CallerError(
            f"max_pixels {largest} is below what the checkpoint's processor needs, {max(smallest, factor**2)}; raise it"
        )
    resample = vision.get("resample")
    return kind(limits, cost, largest, smallest, factor, 3 if resample is None else resample)


def scaled_down(height: int, width: int, max_pixels: int | None) -> tuple[int, int]:
    """The largest height and width of the same shape inside max_pixels, at least 1 x 1."""
    if max_pixels is None or height * width <= max_pixels:
        return height, width
    shrink = math.sqrt(max_pixels / (height * width))
    return max(1, math.floor(height * shrink)), max(1, math.floor(width * shrink))


def tiles_of(picture_HWC: NDArray[np.uint8], tiling: Tiling) -> NDArray[np.uint8]:
    """Tiles of a picture row by row, with its overview first or last, (N, H, W, 3)."""
    plan = tiling.plan(*picture_HWC.shape[:2])
    whole = picture_HWC
    for size in plan.resizes:
        whole = resized(whole, *size, tiling.resample)
    (rows, columns), (height, width) = plan.grid, tiling.tile
    tiles = _on_black(whole, rows * height, columns * width).reshape(rows, height, columns, width, 3)
    parts = [tiles.swapaxes(1, 2).reshape(-1, height, width, 3)]
    if plan.has_overview:
        seen = whole if tiling.overview_is_of_resized else picture_HWC
        overview = resized(seen, height, width, tiling.resample)[None]
        parts.insert(0 if tiling.overview_is_first else 1, overview)
    return np.concatenate(parts)


def _on_black(pixels_HWC: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Pixels centred on a black canvas; the larger half of an odd margin lies below and on the right."""
    if pixels_HWC.shape[:2] == (height, width):
        return pixels_HWC
    top, left = (height - pixels_HWC.shape[0]) // 2, (width - pixels_HWC.shape[1]) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[top : top + pixels_HWC.shape[0], left : left + pixels_HWC.shape[1]] = pixels_HWC
    return canvas


def resized(pixels_HWC: NDArray[np.uint8], height: int, width: int, resample: int) -> NDArray[np.uint8]:
    """Pixels resized to height and width, C-contiguous; not resampled when they have that size."""
    if pixels_HWC.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels_HWC)
    return np.asarray(Image.fromarray(pixels_HWC).resize((width, height), resample=Image.Resampling(resample)))


def resizing_bytes(old: tuple[int, int], new: tuple[int, int]) -> int:
    """Bytes that `resized` takes beside the pixels that it is given; sizes are height and width.

    These are Pillow's copy at 4 bytes a pixel, the image with one side scaled (the smaller of the two), and the result
    twice. Resizing in strips would take less, but Pillow's order of sides, and so its rounding, differs by version.
    """
    if old == new:
        return 0
    return 4 * (math.prod(old) + min(old[0] * new[1], new[0] * old[1])) + 10 * math.prod(new)
