"""Training samples -> a model's inputs, and which of their tokens carry loss: those of the answers alone.

An answer stands at the end of its row, with padding behind it, so places are counted from a row's last token.
Shape suffixes: N samples, T tokens of the longest row, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from iqa_core.assessor.direct import read_file
from iqa_core.assessor.preparing.preparers import ModelPreparer, Ovis2_5Preparer, SmartResizePreparer
from iqa_core.assessor.prompts.chat import adds_special_tokens, with_visual_tokens
from iqa_core.errors import RunError
from iqa_core.images import decode
from iqa_core.records import ImageHeader, Rejection
from iqa_core.rubrics import AnyRubric
from iqa_core.training.sample_text import EncodedText, SampleTexts, with_own_texts
from iqa_core.training.samples import TrainingSample

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from iqa_core.assessor.encoders.patches import Patching
    from iqa_core.records import RgbImage

    PictureKey = tuple[Path, int | None]
    """An image and the bound on its pixels."""
    RowMaker = Callable[[Sequence["EncodedText"], Sequence[NDArray[np.uint8]]], dict[str, torch.Tensor]]
    """Texts and pictures -> arguments of a model's forward, padded on the right."""

IGNORED = -100
"""The label of a token that carries no loss."""

PADDING = -1
"""The token id of an answer that a row's question does not have, where another row's has more."""

KEPT_PICTURE_BYTES = 256 * 2**20
"""Bytes of pictures that a worker keeps: each occurs in a sample per dimension, and in every epoch."""

PIXEL_TOLERANCE = 1e-5
"""Largest difference of `PatchedRows` from the checkpoint's own processor."""


@dataclass(frozen=True)
class Batch:
    """The samples of one forward pass, as tensors."""

    inputs: dict[str, Any]
    """Arguments of the model's forward."""
    labels_NT: torch.Tensor
    """Token ids where cross-entropy applies, else IGNORED; level tokens are IGNORED, as their loss is another."""
    are_numbers_NT: torch.Tensor
    """Whether a label belongs to a number that a written answer gives."""
    level_rows: torch.Tensor
    """Rows that have a level token; the next three tensors have one entry for each, in the same order."""
    level_places: torch.Tensor
    """Place of the level token in its row."""
    level_ids_NL: torch.Tensor
    """Token ids of the level words or other answers; PADDING where another row has more of them."""
    targets_NL: torch.Tensor
    """Target probabilities of the answers; 0 for padding."""
    worths: torch.Tensor
    """What the answers are worth on 1 (worst) to 5 (best): (L,) where all rows have one scale, else (N, L), 0 for
    padding."""
    weights_N: torch.Tensor
    real_tokens: int
    """Number of tokens without padding."""


class PatchedRows:
    """Makes a model's inputs as the processors of the Qwen2-VL family do, in a third of the time."""

    def __init__(self, processor: Any, patching: Patching) -> None:
        self._patching = patching
        self._image_id = int(processor.image_token_id)
        self._padding_id = int(processor.tokenizer.pad_token_id)

    def __call__(self, texts: Sequence[EncodedText], pictures: Sequence[NDArray[np.uint8]]) -> dict[str, torch.Tensor]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        grids = [self._patching.grid(picture) for picture in pictures]
        rows = [torch.tensor(self._row(text.ids, grid)) for text, grid in zip(texts, grids, strict=True)]
        ids_NT = pad_sequence(rows, batch_first=True, padding_value=self._padding_id)
        mask_NT = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return {
            "input_ids": ids_NT,
            "attention_mask": mask_NT,
            "mm_token_type_ids": (ids_NT == self._image_id).long(),
            "pixel_values": torch.cat([self._patching(picture) for picture in pictures]),
            "image_grid_thw": torch.tensor([(1, *grid) for grid in grids]),
        }

    def _row(self, ids: tuple[int, ...], grid: tuple[int, int]) -> list[int]:
        return with_visual_tokens(ids, self._image_id, self._patching.visual_tokens(grid))


class SampleEncoder:
    """Encodes samples with a checkpoint's processor and rubric."""

    def __init__(
        self, processor: Any, rubric: AnyRubric, preparer: ModelPreparer, kept_bytes: int = KEPT_PICTURE_BYTES
    ) -> None:
        """kept_bytes: bound on pictures that are kept, so that they are not decoded again.

        Raises CallerError when the checkpoint has no chat template.
        """
        self.rubric = rubric
        self.preparer = preparer
        self._processor = processor
        self.text = SampleTexts(processor, rubric)
        self._make_rows: RowMaker | None = None
        self._pictures: dict[PictureKey, NDArray[np.uint8]] = {}
        self._expected: frozenset[PictureKey] | None = None
        self._room = kept_bytes

    def text_tokens(self, sample: TrainingSample) -> int:
        """Tokens of question and answer in the longest wording, the image counted as one. Raises as `text` does."""
        wordings = (sample.query, *sample.paraphrases)
        return max(len(self.text(replace(sample, query=query)).ids) for query in wordings)

    def tokens(self, sample: TrainingSample, header: ImageHeader) -> int:
        """Tokens of a sample's whole row: exact where the preparer knows the visual tokens exactly, else estimated.

        With tiles it is a few tokens too many where the tokenizer joins newlines between them.
        """
        preparer = self.preparer_of(sample)
        return self.text_tokens(sample) - 1 + preparer.visual_tokens(*preparer.picture_size(header))

    def preparer_of(self, sample: TrainingSample) -> ModelPreparer:
        """The preparer with the sample's own bound on pixels."""
        return self.preparer if sample.max_pixels is None else replace(self.preparer, max_pixels=sample.max_pixels)

    def expect(self, samples: Iterable[TrainingSample]) -> None:
        """From now on keep pictures of these, at the cost of all others: they are needed several times in a row."""
        self._expected = frozenset(map(_key_of, samples))

    def pixels(self, sample: TrainingSample) -> NDArray[np.uint8]:
        """The image resized as in scoring, (H, W, 3). Raises RunError when it can no longer be read.

        The first pictures are kept, up to the bound in bytes: all are equally likely to be needed again, unless some
        are expected.
        """
        key = _key_of(sample)
        known = self._pictures.get(key)
        if known is not None:
            return known
        picture = self.preparer_of(sample).picture(self._image(sample))
        self._make_room(picture.nbytes)
        if picture.nbytes <= self._room:
            self._pictures[key] = picture
            self._room -= picture.nbytes
        return picture

    def _make_room(self, num_bytes: int) -> None:
        """Let go of as many pictures as need be that are not expected, the oldest first."""
        others = [] if self._expected is None else [key for key in self._pictures if key not in self._expected]
        for key in others:
            if num_bytes <= self._room:
                return
            self._room += self._pictures.pop(key).nbytes

    def prepared(self, sample: TrainingSample) -> NDArray[np.uint8]:
        """The same picture as an assessor takes it. Raises RunError when it can no longer be read."""
        return self.preparer_of(sample).prepare_picture(self.pixels(sample))

    def _image(self, sample: TrainingSample) -> RgbImage:
        image = read_image(sample.image, self.preparer)
        if isinstance(image, Rejection):
            raise RunError(f"{sample.image} was readable when the run began, but now: {image.reason} ({image.detail})")
        return image

    def batch(self, samples: Sequence[TrainingSample], written: Sequence[Sequence[int]] | None = None) -> Batch:
        """The samples as one batch, padded on the right to the longest row.

        written: token ids of an answer to each, in place of the sample's own.
        Raises RunError when an image can no longer be read, or the processor changes the tokens of an answer.
        """
        import torch

        texts = [self.text(sample) for sample in samples]
        if written is not None:
            texts = [text.answered(ids) for text, ids in zip(texts, written, strict=True)]
        pictures = [self.pixels(sample) for sample in samples]
        if self._make_rows is None:
            self._make_rows = self._choose_rows(texts[0], pictures[0])
        inputs = self._make_rows(texts, pictures)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        labels_NT = torch.full_like(inputs["input_ids"], IGNORED)
        are_numbers_NT = torch.zeros_like(labels_NT, dtype=torch.bool)
        levels = []
        for row, (text, sample, length) in enumerate(zip(texts, samples, lengths, strict=True)):
            begin = length - len(text.answer_ids)
            self._require_same(inputs["input_ids"][row, begin:length].tolist(), text)
            labels_NT[row, begin:length] = inputs["input_ids"][row, begin:length]
            are_numbers_NT[row, [begin + place for place in text.number_places]] = True
            if text.level_at is not None and sample.level is not None:
                labels_NT[row, begin + text.level_at] = IGNORED
                levels.append((row, begin + text.level_at, text.level_ids, sample.level))
        return Batch(
            inputs=inputs,
            labels_NT=labels_NT,
            are_numbers_NT=are_numbers_NT,
            level_rows=torch.tensor([level[0] for level in levels], dtype=torch.long),
            level_places=torch.tensor([level[1] for level in levels], dtype=torch.long),
            level_ids_NL=torch.tensor(_padded([level[2] or () for level in levels], PADDING), dtype=torch.long),
            targets_NL=torch.tensor(_padded([level[3].target for level in levels], 0.0), dtype=torch.float32),
            worths=_worths([level[3].worths for level in levels]),
            weights_N=torch.tensor([sample.weight for sample in samples], dtype=torch.float32),
            real_tokens=int(sum(lengths)),
        )

    def _choose_rows(self, text: EncodedText, picture: NDArray[np.uint8]) -> RowMaker:
        """`PatchedRows` if it gives for this sample what the checkpoint's own processor gives, else that processor."""
        import torch

        from iqa_core.assessor.encoders.patches import Patching

        is_family = isinstance(self.preparer, SmartResizePreparer) and not isinstance(self.preparer, Ovis2_5Preparer)
        if not is_family or not text.is_row or text.ids.count(getattr(self._processor, "image_token_id", None)) != 1:
            return self._processed
        own = PatchedRows(self._processor, Patching.of(self._processor.image_processor, torch.device("cpu")))
        found, wanted = (make_rows([text], [picture]) for make_rows in (own, self._processed))
        is_same = found.keys() == wanted.keys() and all(
            value.shape == wanted[name].shape
            and torch.allclose(value.double(), wanted[name].double(), rtol=0, atol=PIXEL_TOLERANCE)
            for name, value in found.items()
        )
        return own if is_same else self._processed

    def _processed(
        self, texts: Sequence[EncodedText], pictures: Sequence[NDArray[np.uint8]]
    ) -> dict[str, torch.Tensor]:
        special = adds_special_tokens(self._processor.tokenizer, texts[0].text)
        inputs = self._processor(
            text=[text.text for text in texts],
            images=[[Image.fromarray(picture)] for picture in pictures],
            # InternVL's and MiniCPM-V's processors would pad on the left
            text_kwargs={"padding": True, "padding_side": "right", "add_special_tokens": special},
            images_kwargs={} if self.preparer.processor_resizes else {"do_resize": False},
            return_tensors="pt",
        )
        inputs.pop("labels", None)  # PaliGemma's processor makes labels of its own
        return with_own_texts(dict(inputs), texts, int(self._processor.tokenizer.pad_token_id))

    def _require_same(self, found: list[int], text: EncodedText) -> None:
        """Raises RunError when the processor changed the answer's tokens: labels would be on other tokens."""
        if tuple(found) != text.answer_ids:
            name = type(self._processor).__name__
            raise RunError(
                f"{name} changed the tokens of an answer: {found} instead of {list(text.answer_ids)}; a checkpoint "
                "with such a processor cannot be trained (PaliGemma's adds a line break behind the answer)"
            )


def read_image(path: Path, preparer: ModelPreparer) -> RgbImage | Rejection:
    """A file decoded inside the preparer's limits, or why it cannot be read."""
    data = read_file(path)
    return data if isinstance(data, Rejection) else decode(data, preparer.limits)


def _key_of(sample: TrainingSample) -> PictureKey:
    return sample.image, sample.max_pixels


def _worths(rows: Sequence[tuple[float, ...]]) -> torch.Tensor:
    import torch

    is_one_scale = len(set(rows)) == 1
    return torch.tensor(rows[0] if is_one_scale else _padded(rows, 0.0), dtype=torch.float32)


def _padded(rows: Sequence[Sequence[float]], padding: float) -> list[list[float]]:
    """The rows, each as long as the longest."""
    longest = max(map(len, rows), default=0)
    return [[*row, *([padding] * (longest - len(row)))] for row in rows]
