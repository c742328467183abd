"""Prepared images and texts -> what a model writes about them -> assessments, by any checkpoint of transformers.

Each image's prompt goes through the model once, in batches bounded by tokens. Then all samples of a batch's images
are written token by token, bounded by rows. What a sample says depends on its image alone: the likeliest token is
taken, or noise is added that is a function of the pixels, the fingerprint and the sample's number.

Shape suffixes: N images, S samples.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.encoders.base import Encoder
from iqa_core.assessor.model.asking import PROBABILITY_TOLERANCE, TOO_LARGE, Intake, encoder_of, probe_images
from iqa_core.assessor.model.caption_judge import Judge
from iqa_core.assessor.model.device import bounded_batch_tokens, keep_freed_memory, versions_of, without_denormals
from iqa_core.assessor.model.generation.decoding import Answer, Decoder
from iqa_core.assessor.model.generation.digits import DigitReader
from iqa_core.assessor.model.generation.memory import PROMPT_TOKENS, AnswerMemory
from iqa_core.assessor.model.generation.prefill import Prefill, length
from iqa_core.assessor.model.generation.proving import fastest_way
from iqa_core.assessor.model.loading import open_checkpoint
from iqa_core.assessor.model.rendering import without_room
from iqa_core.assessor.preparing.preparers import ModelPreparer, TokenCost
from iqa_core.assessor.prompts.chat import turn_end, written_prompt
from iqa_core.assessor.prompts.plain_text import ids_of_markup
from iqa_core.assessor.protocol import texts_of_images
from iqa_core.errors import CallerError
from iqa_core.records import Assessment, FreeAnswer, FreeQuestion, Reason, Rejection
from iqa_core.rubrics import WrittenRubric
from iqa_core.rubrics.written.decoding import Decoding
from iqa_core.rubrics.written.rubric import QUESTION
from iqa_core.slots import SAMPLE_TEXT
from iqa_core.written.form import Grammar
from iqa_core.written.judging import NOT_FINITE, Sample, judged
from iqa_core.written.keys import sample_keys
from iqa_core.written.parsing import Parsed

MAX_PADDING = 0.25
"""Largest share by which a prompt is padded, of the shortest prompt beside it: writing many at once saves more."""

PLACEHOLDERS = ("image", "video", "audio", "vision")
"""Parts of names of tokens, in a model's configuration, that stand for what is no text."""


@dataclass(frozen=True, slots=True)
class _Request:
    """An image that is written about."""

    pixels: NDArray[np.uint8]
    texts: Mapping[str, str]
    """Slot -> text."""
    tokens: int
    """Of its prompt."""
    limit: int
    """Tokens at which what is written is cut."""
    keys: Sequence[int] = (0,)
    """Of its samples' noise."""


class WritingAssessor:
    """A loaded checkpoint with a written rubric; obeys `iqa_core.assessor.protocol.Assessor`."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        rubric: WrittenRubric,
        preparer: ModelPreparer,
        fingerprint: str,
        batch_tokens: int,
        decode_rows: int | None = None,
        calibration: Calibration | None = None,
        *,
        keeps_model: bool = False,
        measures: bool = False,
    ) -> None:
        """Take the model over, or (`keeps_model`) write with one that goes on being trained.

        fingerprint: part of the key of each sample's noise; batch_tokens: bound on the tokens of prompts that go
        through the model at once; decode_rows: bound on the samples that are written at once, None is what fits;
        calibration: what becomes of scores, None leaves them as they are written; measures: see `Answer`.
        Raises CallerError when the checkpoint has no chat template, cannot take the rubric's texts or readout, or has a
        context without room for an answer.
        """
        self.rubric = rubric
        self.preparer = preparer
        self.model = model.eval()
        self._fingerprint = fingerprint
        self._calibration = calibration
        self._batch_tokens = bounded_batch_tokens(batch_tokens, model.device)
        self._encoder = _encoder(model, processor, rubric, preparer)
        self._intake = Intake(model, preparer, self._encoder, rubric.decoding.max_new_tokens)
        self._digits = _digit_reader(processor.tokenizer, rubric)
        self._probe = [preparer.prepare(image) for image in probe_images()]
        asked = self._probe_requests()
        with without_denormals():
            self._way = fastest_way(
                model, self._encoder, self._probe, PROBABILITY_TOLERANCE[model.dtype], keeps_model=keeps_model
            )
        self._processor = processor
        self._measures = measures
        self._decoder = self._decoder_by(rubric.decoding, () if self._digits is None else self._digits.watched)
        self._memory = AnswerMemory.of(self._prefilled(asked).cache, rubric.decoding, shares=self._way.shares)
        self._decode_rows = decode_rows or self._memory.rows_that_fit(model.device)
        self._room = self._decode_rows / rubric.decoding.samples * self._memory.image_bytes(PROMPT_TOKENS)

    @classmethod
    def load(
        cls,
        folder: Path,
        rubric: WrittenRubric,
        preparer: ModelPreparer,
        dtype: str,
        fingerprint: str,
        config: AssessorConfig,
        calibration: Calibration | None = None,
    ) -> WritingAssessor:
        """Load a complete checkpoint folder: safetensors alone, no code from the checkpoint, nothing fetched.

        dtype: float32 or bfloat16. Raises CallerError when the checkpoint cannot be loaded whole.
        """
        keep_freed_memory()
        opened = open_checkpoint(folder, dtype, config)
        return cls(*opened, rubric, preparer, fingerprint, config.batch_tokens, config.decode_rows, calibration)

    @property
    def versions(self) -> Mapping[str, str]:
        """Names of the device and the versions of torch and transformers."""
        return versions_of(self.model)

    @property
    def images_at_once(self) -> int:
        """Images that are written about at once at most, each with all its samples."""
        return max(1, self._decode_rows // self.rubric.decoding.samples)

    def assess(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
    ) -> list[Assessment | Rejection]:
        """One result per prepared image, in order."""
        found = self.answers(images, texts)
        return [one if isinstance(one, Rejection) else self._judged(one) for one in found]

    def answers(
        self,
        images: Sequence[NDArray[np.uint8]],
        texts: Sequence[Mapping[str, str]] | None = None,
        limits: Sequence[int] | None = None,
        seed: int | None = None,
    ) -> list[list[Answer] | Rejection]:
        """What is written about each image, a text per sample; images of similar size are written about at once.

        limits: tokens at which what is written about each is cut; seed: of the noise. None is the rubric's.
        """
        decoding = self.rubric.decoding
        seed = decoding.seed if seed is None else seed
        limits = limits or [decoding.max_new_tokens] * len(images)
        asked = texts_of_images(self.rubric.slots, texts, len(images))
        tokens, refused = self._intake(images, asked, limits)
        found: dict[int, list[Answer] | Rejection] = {**refused}
        for group in self._groups(tokens, limits):
            keys = [sample_keys(self._fingerprint, images[i], decoding.samples, seed) for i in group]
            requests = [
                _Request(images[i], asked[i], tokens[i], limits[i], own) for i, own in zip(group, keys, strict=True)
            ]
            found.update(zip(group, self._answers(requests), strict=True))
        return [found[i] for i in range(len(images))]

    def describe(
        self, images: Sequence[NDArray[np.uint8]], questions: Sequence[FreeQuestion]
    ) -> list[FreeAnswer | Rejection]:
        """One answer per prepared image, in order, each to its own question; see `Describer`."""
        free = self._free
        if isinstance(free, Rejection) or not images:
            return [free] * len(images) if isinstance(free, Rejection) else []
        texts = [{QUESTION: question.text} for question in questions]
        found = free.answers(images, texts, [question.max_tokens for question in questions])
        return [one if isinstance(one, Rejection) else _free_answer(one[0]) for one in found]

    def rate_captions(self, captions: Sequence[str]) -> NDArray[np.float64]:
        """What the model reads from each caption alone; see `CaptionReader`. Numbers are not calibrated."""
        if self.rubric.output.grammar is not Grammar.PERCEPTION:
            raise TypeError(f"answers by {self.rubric.id} have no caption")
        judge = Judge(self._processor, self.rubric, self.rubric.decoding.max_new_tokens)
        with without_denormals():
            return judge(self.model, captions)

    @cached_property
    def _free(self) -> WritingAssessor | Rejection:
        """The same model, asked any question; why not, where its prompts take no texts. Made with the first one."""
        free = copy.copy(self)
        free.rubric = self.rubric.free
        free.preparer = replace(self.preparer, cost=TokenCost.of(free.rubric))
        try:
            free._encoder = self._way.fitted(_encoder(self.model, self._processor, free.rubric, free.preparer))
        except CallerError as error:
            return Rejection(Reason.ASSESSOR_FAILED, f"this checkpoint takes no free questions: {error}")
        free._intake = Intake(self.model, free.preparer, free._encoder, free.rubric.decoding.max_new_tokens)
        free._decoder = self._decoder_by(free.rubric.decoding)
        free._memory = replace(self._memory, decoding=free.rubric.decoding)
        return free

    def _decoder_by(self, decoding: Decoding, watched: Sequence[int] = ()) -> Decoder:
        tokenizer = self._processor.tokenizer
        return Decoder(
            self.model,
            decoding,
            lambda ids: text_of(tokenizer, ids),
            ends=ends_of(self._processor, self.rubric),
            suppressed=_placeholders(self.model) if decoding.suppress_image else (),
            watched=watched,
            shares=self._way.shares,
            measures=self._measures,
        )

    def _groups(self, tokens: Mapping[int, int], limits: Sequence[int]) -> Iterator[list[int]]:
        """Indices of the images that are written about at once, small images first, with little padding.

        Large prompts are fewer at once, and so are long answers: memory is set aside for rows of PROMPT_TOKENS.
        """
        images = self._decode_rows / self.rubric.decoding.samples
        group: list[int] = []
        longest = 0
        for i in sorted(tokens, key=lambda i: (tokens[i], i)):
            longest = max(longest, limits[i])
            most = min(images, self._room / self._memory.image_bytes(tokens[i], longest))
            if group and (len(group) + 1 > most or tokens[i] > (1 + MAX_PADDING) * tokens[group[0]]):
                yield group
                group, longest = [], limits[i]
            group.append(i)
        if group:
            yield group

    def _answers(self, requests: Sequence[_Request]) -> list[list[Answer] | Rejection]:
        """Answers about each image of a group; half at a time where they are too many, or do not fit into memory."""
        num_rows = sum(len(one.keys) for one in requests)
        if num_rows <= self._decode_rows:
            try:
                with without_denormals():
                    keys, limits = [one.keys for one in requests], [one.limit for one in requests]
                    return [*self._decoder(self._prefilled(requests), keys, limits)]
            except torch.OutOfMemoryError:
                if num_rows == 1:
                    return [TOO_LARGE]
        # not inside the handler: its traceback would keep the failed batch's tensors in memory
        if len(requests) > 1:
            half = len(requests) // 2
            return self._answers(requests[:half]) + self._answers(requests[half:])
        [one] = requests
        half = len(one.keys) // 2
        first, second = (self._answers([replace(one, keys=keys)])[0] for keys in (one.keys[:half], one.keys[half:]))
        return [TOO_LARGE if isinstance(first, Rejection) or isinstance(second, Rejection) else first + second]

    @torch.inference_mode()
    def _prefilled(self, requests: Sequence[_Request]) -> Prefill:
        """The prompts of the images, through the model in batches of up to `batch_tokens`."""
        count = max(1, self._batch_tokens // max(one.tokens for one in requests))
        parts = [requests[at : at + count] for at in range(0, len(requests), count)]
        slots = self.rubric.slots
        batches = [
            self._encoder([one.pixels for one in part], [one.texts for one in part] if slots else None)
            for part in parts
        ]
        width = max(length(prompt) for batch in batches for prompt in batch.prompts)
        return Prefill.join([self._way.prefilled(batch, width) for batch in batches])

    def _judged(self, answers: Sequence[Answer]) -> Assessment | Rejection:
        if not all(answer.is_finite for answer in answers):
            return NOT_FINITE
        found = judged([self._sample(answer) for answer in answers], self.rubric.form)
        if self._calibration is None or isinstance(found, Rejection):
            return found
        return self._calibration.given(found, self.rubric.names)

    def _sample(self, answer: Answer) -> Sample:
        sample = Sample(answer.text, answer.finish)
        if self._digits is None or not isinstance(said := sample.parsed(self.rubric.form), Parsed):
            return sample
        return Sample(answer.text, answer.finish, self._digits.readings(answer, said.spans))

    def _probe_requests(self) -> list[_Request]:
        """The images that the model is tried on. Raises CallerError where the context has no room for an answer."""
        texts = [dict.fromkeys(self.rubric.slots, SAMPLE_TEXT)] * len(self._probe)
        tokens, refused = self._intake(self._probe, texts)
        for rejection in refused.values():
            raise without_room(self.rubric, rejection.detail)
        limit = self.rubric.decoding.max_new_tokens
        return [_Request(pixels, texts[i], tokens[i], limit) for i, pixels in enumerate(self._probe)]


def _free_answer(answer: Answer) -> FreeAnswer | Rejection:
    return FreeAnswer(answer.text, answer.finish) if answer.is_finite else NOT_FINITE


def _encoder(model: Any, processor: Any, rubric: WrittenRubric, preparer: ModelPreparer) -> Encoder:
    """The encoder of the rubric's one prompt. Raises CallerError where texts do not fit into its slots."""

    def prompts_of(texts: Mapping[str, str]) -> list[str]:
        return [written_prompt(processor, rubric, texts)]

    sample = dict.fromkeys(rubric.slots, SAMPLE_TEXT)
    return encoder_of(processor, model, preparer, prompts_of(sample), [rubric.slots], prompts_of)


def _digit_reader(tokenizer: Any, rubric: WrittenRubric) -> DigitReader | None:
    """What reads numbers as distributions, where the rubric has them read so."""
    if rubric.decoding.readout == "parsed":
        return None
    texts = [text_of(tokenizer, [token]) for token in range(len(tokenizer))]
    markup = [token for token, added in tokenizer.added_tokens_decoder.items() if len(str(added)) > 1]
    return DigitReader(texts, rubric.form, markup)


def ends_of(processor: Any, rubric: WrittenRubric) -> set[int]:
    """Ids of the tokens that end a turn: the tokenizer's own, and the one that the chat template puts there."""
    tokenizer = processor.tokenizer
    of_turn = tokenizer.encode(turn_end(processor, rubric.system, rubric.template), add_special_tokens=False)
    return {tokenizer.eos_token_id, *(of_turn if len(of_turn) == 1 else ())} - {None}


def _placeholders(model: Any) -> list[int]:
    """Ids of tokens that stand for what is no text, and that no answer can have."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    found = ids_of_markup(model.config.to_dict(), PLACEHOLDERS)
    return sorted({token for token in found if 0 <= token < vocabulary})


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, verbatim, markup included."""
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
