"""Prepared images and texts -> level logits -> assessments, by any image-text-to-text checkpoint of transformers.

An encoder turns images and prompts into token ids and pixel tensors (encoders); the prefix that the prompts of an image
share goes through the model once (prefix_sharing); the rows of the answers' first tokens in the output matrix give
their logits in float32 (level_head). Batches hold images of similar size and are bounded by tokens.

Shape suffixes: N images, R rubrics, K questions, L answers, V rows of the output matrix that are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.encoders.base import EncodedBatch, Encoder
from iqa_core.assessor.encoders.views import with_views
from iqa_core.assessor.families import VIEWED
from iqa_core.assessor.model.asking import PROBABILITY_TOLERANCE, TOO_LARGE, Intake, encoder_of, probe_images
from iqa_core.assessor.model.device import bounded_batch_tokens, keep_freed_memory, versions_of, without_denormals
from iqa_core.assessor.model.level_head import LevelColumns, LevelHead, ids_to_keep
from iqa_core.assessor.model.loading import open_checkpoint
from iqa_core.assessor.model.prefix_sharing.choosing import AskedRubric, choose_strategy
from iqa_core.assessor.model.prefix_sharing.strategy import Strategy, TokenCount
from iqa_core.assessor.model.viewing import RubricPart
from iqa_core.assessor.preparing.preparers import ModelPreparer, SmartResizePreparer
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.assessor.prompts.level_tokens import Prompt, prompt_of
from iqa_core.assessor.protocol import View, Viewed, texts_of_images
from iqa_core.assessor.viewed import no_views_in
from iqa_core.levels import Readout
from iqa_core.records import Assessment, Rejection
from iqa_core.rubrics import Rubric
from iqa_core.slots import SAMPLE_TEXT

T = TypeVar("T")

MAX_PADDING = 0.05
"""Largest share of padding among the tokens of a batch's pictures and texts, for strategies that pad."""


class TransformersAssessor:
    """A loaded checkpoint with a rubric; obeys `iqa_core.assessor.protocol.Assessor`.

    Assessors of several rubrics may have one model. Then they take turns: one caller at a time for all of them.
    """

    def __init__(
        self,
        model: Any,
        rubric: Rubric,
        preparer: ModelPreparer,
        encoder: Encoder,
        columns: LevelColumns,
        strategy: Strategy,
        batch_tokens: int,
    ) -> None:
        """Ask the model as `over` arranges it."""
        self.model = model
        self.rubric = rubric
        self.preparer = preparer
        self._encoder = encoder
        self._columns = columns
        self._strategy = strategy
        self._readout = Readout(rubric.questions, rubric.columns)
        self._intake = Intake(model, preparer, encoder)
        self._batch_tokens = bounded_batch_tokens(batch_tokens, model.device)

    @classmethod
    def over(
        cls, model: Any, processor: Any, rubrics: Sequence[tuple[Rubric, ModelPreparer]], batch_tokens: int
    ) -> list[TransformersAssessor]:
        """Take a model over, and make an assessor of each rubric on it, with the preparer that counts its tokens.

        Only the answers' rows of the model's output matrix stay, and its forward may be replaced.
        batch_tokens: bound on the tokens of a batch, all questions together.
        Raises CallerError when the checkpoint has no chat template, or two answers begin with the same token.
        """
        prompts_RK = [sample_prompts(processor, rubric) for rubric, _ in rubrics]
        ids_RKL = [[prompt.answer_ids for prompt in prompts_K] for prompts_K in prompts_RK]
        ids_V = ids_to_keep(ids_RKL)
        model.set_output_embeddings(LevelHead(model.get_output_embeddings(), ids_V))
        model.eval()
        columns_R = [LevelColumns(ids_KL, ids_V) for ids_KL in ids_RKL]
        encoders_R = [
            _encoder(processor, rubric, [prompt.text for prompt in prompts_K], model, preparer)
            for (rubric, preparer), prompts_K in zip(rubrics, prompts_RK, strict=True)
        ]
        asked_R = [AskedRubric(encoder, columns.own) for encoder, columns in zip(encoders_R, columns_R, strict=True)]
        probe = [rubrics[0][1].prepare(image) for image in probe_images()]
        strategy = choose_strategy(model, asked_R, probe, PROBABILITY_TOLERANCE[model.dtype])
        return [
            cls(model, rubric, preparer, encoder, columns, strategy, batch_tokens)
            for (rubric, preparer), encoder, columns in zip(rubrics, encoders_R, columns_R, strict=True)
        ]

    @classmethod
    def load(
        cls, folder: Path, rubrics: Sequence[tuple[Rubric, ModelPreparer]], dtype: str, config: AssessorConfig
    ) -> list[TransformersAssessor]:
        """Load a complete checkpoint folder: safetensors alone, no code from the checkpoint, nothing fetched.

        rubrics: as `over` takes them. dtype: float32 or bfloat16.
        Raises CallerError when the checkpoint cannot be loaded whole.
        """
        keep_freed_memory()
        return cls.over(*open_checkpoint(folder, dtype, config), rubrics, config.batch_tokens)

    @property
    def versions(self) -> Mapping[str, str]:
        """Names of the device and the versions of torch and transformers."""
        return versions_of(self.model)

    def assess(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
    ) -> list[Assessment | Rejection]:
        """One result per prepared image, in order; images of similar size are batched up to `batch_tokens`."""
        asked = texts_of_images(self.rubric.slots, texts, len(images))
        tokens, refused = self._intake(images, asked)

        def ask(some: Sequence[int]) -> list[Assessment | Rejection]:
            logits = self.level_logits([images[i] for i in some], [asked[i] for i in some])
            return self._readout.assessments(logits)

        results = {**refused, **self._in_batches(images, tokens, ask)}
        return [results[i] for i in range(len(images))]

    def view_grid(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """See `Viewer.view_grid`."""
        preparer, _ = self._for_views
        return preparer.grid(image)

    def assess_views(
        self,
        images: Sequence[NDArray[np.uint8]],
        views: Sequence[Sequence[View]],
        names: Sequence[str],
        texts: Sequence[Mapping[str, str]] | None = None,
    ) -> list[list[Assessment | Rejection] | Rejection]:
        """See `Viewer.assess_views`; images of similar size with as many views are batched."""
        part = RubricPart.of(self.rubric, names, self._columns)
        return self._about_views(images, views, texts, lambda count: [part.questions] * count, part.assessments)

    def assess_with_views(
        self,
        images: Sequence[NDArray[np.uint8]],
        views: Sequence[Sequence[View]],
        names: Sequence[str],
        texts: Sequence[Mapping[str, str]] | None = None,
    ) -> list[Viewed | Rejection]:
        """See `Viewer.assess_with_views`; batches as those of `assess_views`."""
        part = RubricPart.of(self.rubric, names, self._columns)
        whole = RubricPart.whole(self.rubric, self._columns, self._readout)
        preparer, _ = self._for_views
        first = [tuple(range(math.prod(preparer.grid(image)))) for image in images]

        def read(logits: torch.Tensor, num_images: int) -> list[Viewed]:
            own, rest = logits[:, : len(whole.questions)], logits[:, len(whole.questions) :]
            pairs = zip(whole.assessments(own, num_images), part.assessments(rest, num_images), strict=True)
            return [Viewed(assessment, said) for [assessment], said in pairs]

        return self._about_views(
            images,
            [(all_of_it, *own) for all_of_it, own in zip(first, views, strict=True)],
            texts,
            lambda count: [whole.questions] + [part.questions] * (count - 1),
            read,
        )

    def _about_views(
        self,
        images: Sequence[NDArray[np.uint8]],
        views: Sequence[Sequence[View]],
        texts: Sequence[Mapping[str, str]] | None,
        questions_of: Callable[[int], Sequence[Sequence[int]]],
        read: Callable[[torch.Tensor, int], Sequence[T]],
    ) -> list[T | Rejection]:
        """One result per image, each in one forward with all of its views.

        questions_of: number of an image's views -> the questions that each is asked, by number; read: their logits
        (N, questions of all views, V), and N -> one result per image.
        """
        asked = texts_of_images(self.rubric.slots, texts, len(images))
        _, image_token = self._for_views

        def ask(some: Sequence[int]) -> Sequence[T]:
            encoded = self._encoder([images[i] for i in some], [asked[i] for i in some])
            own = [views[i] for i in some]
            viewed = with_views(encoded, image_token, own, questions_of(len(own[0])))
            with without_denormals():
                logits = self._logits(viewed) if viewed.num_questions else torch.empty(len(some), 0, 0)
            return read(logits, len(some))

        tokens, refused = self._intake(images, asked)
        results: dict[int, T | Rejection] = {**refused}
        for count in {len(views[i]) for i in tokens}:
            copies = sum(map(len, questions_of(count))) - 1
            alike = {
                i: own + copies * self._text_of_view(asked[i]) for i, own in tokens.items() if len(views[i]) == count
            }
            results.update(self._in_batches(images, alike, ask))
        return [results[i] for i in range(len(images))]

    def _text_of_view(self, texts: Mapping[str, str]) -> int:
        """Bound on the tokens that one more question about a view adds: all text behind the image is asked anew."""
        return self._encoder.longest_prompt_text(texts) or self.preparer.cost.longest

    @property
    def _for_views(self) -> tuple[SmartResizePreparer, int]:
        """What makes a grid of an image, and the id of its tokens. Raises CallerError for families without views."""
        preparer, token = self.preparer, self._encoder.image_token
        model_type = self.model.config.model_type
        windows = "sliding_attention" in (getattr(self.model.config.get_text_config(), "layer_types", None) or ())
        if model_type in VIEWED and isinstance(preparer, SmartResizePreparer) and token is not None and not windows:
            return preparer, token
        raise no_views_in(model_type, windows)

    def _in_batches(
        self,
        images: Sequence[NDArray[np.uint8]],
        tokens: Mapping[int, int],
        ask: Callable[[Sequence[int]], Sequence[T]],
    ) -> dict[int, T | Rejection]:
        """Index -> what is found of each image that can be asked about. ask: indices of a batch -> one of each."""
        results: dict[int, T | Rejection] = {}
        for group in self._groups(images, tokens):
            results.update(zip(group, _asked(group, ask), strict=True))
        return results

    def _groups(self, images: Sequence[NDArray[np.uint8]], tokens: Mapping[int, int]) -> Iterator[list[int]]:
        """Indices of the images of each batch, small images first. tokens: of images that can be asked about."""
        group: list[int] = []
        tokens_of_group = 0
        for i in sorted(tokens, key=lambda i: (tokens[i], images[i].shape)):
            is_over = tokens_of_group + tokens[i] > self._batch_tokens
            if group and (is_over or self._is_wasteful(len(group), tokens_of_group, tokens[i])):
                yield group
                group, tokens_of_group = [], 0
            group.append(i)
            tokens_of_group += tokens[i]
        if group:
            yield group

    def _is_wasteful(self, count: int, tokens: int, longest: int) -> bool:
        """Whether one more image, the longest, would pad a batch too much.

        count, tokens: of the batch so far; longest: tokens of the new image. What differs between images, and is
        padded, are their visual tokens and those of their texts in slots.
        """
        if not self._strategy.pads:
            return False
        own = longest - self.preparer.cost.text_tokens
        padding = count * longest - tokens
        return padding > MAX_PADDING * own * (count + 1)

    def level_logits(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
    ) -> NDArray[np.float32]:
        """Logits of the answers, worst to best, shape (N, K, L), of one batch of prepared images; -inf is padding."""
        with without_denormals():
            logits_NKV = self._logits(self._encoder(images, texts))
        return np.asarray(self._columns.of(logits_NKV).numpy())

    def _logits(self, batch: EncodedBatch) -> torch.Tensor:
        """Logits of the kept rows (N, K, V); half of the questions at a time where one image with all is too much."""
        try:
            return self._strategy.logits(batch)
        except torch.OutOfMemoryError:
            if len(batch.prompts) > 1 or batch.num_questions == 1:
                raise
        # not inside the handler, as in `_asked`
        numbers, half = range(batch.num_questions), batch.num_questions // 2
        return torch.cat([self._logits(batch.asking(some)) for some in (numbers[:half], numbers[half:])], dim=1)

    @property
    def tokens(self) -> TokenCount:
        """Count of the tokens that went through the language model so far."""
        return self._strategy.count


def _asked(group: Sequence[int], ask: Callable[[Sequence[int]], Sequence[T]]) -> list[T | Rejection]:
    """What is found of a batch, half of it at a time where it is too much for the device."""
    try:
        return [*ask(group)]
    except torch.OutOfMemoryError:
        if len(group) == 1:
            return [TOO_LARGE]
    # not inside the handler: its traceback would keep the failed batch's tensors in memory
    half = len(group) // 2
    return _asked(group[:half], ask) + _asked(group[half:], ask)


def sample_prompts(processor: Any, rubric: Rubric) -> list[Prompt]:
    """The prompts of a rubric's K questions, with SAMPLE_TEXT in its slots.

    Raises CallerError when two answers of a question begin with the same token.
    """
    sample = dict.fromkeys(rubric.slots, SAMPLE_TEXT)
    return [prompt_of(processor, question.filled(sample), rubric.system) for question in rubric.questions]


def _encoder(processor: Any, rubric: Rubric, prompts_K: Sequence[str], model: Any, preparer: ModelPreparer) -> Encoder:
    return encoder_of(
        processor,
        model,
        preparer,
        prompts_K,
        [question.slots for question in rubric.questions],
        lambda texts: [build_prompt(processor, one.filled(texts), rubric.system) for one in rubric.questions],
    )
