"""Prepared images and texts -> what a model writes about them -> assessments, by any checkpoint of transformers.

Each image's prompt goes through the model once, in batches bounded by tokens. Then all samples of a batch's images
are written token by token, bounded by rows. What a sample says depends on its image alone: the likeliest token is
taken, or noise is added that is a function of the pixels, the fingerprint and the sample's number.

Shape suffixes: N images, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.encoders.base import EncodedBatch, Encoder
from iqa_core.assessor.model.backend import (
    CPU_BATCH_TOKENS,
    MAX_PADDING,
    TOO_LARGE,
    keep_freed_memory,
    make_encoder,
    probe_images,
    require_fitting,
    slot_tails,
    versions_of,
    without_denormals,
)
from iqa_core.assessor.model.generation.decoding import Answer, Decoder
from iqa_core.assessor.model.generation.digits import DigitReader, texts_of_vocabulary
from iqa_core.assessor.model.generation.prefill import Prefill, length, prefill
from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.preparing.preparers import ModelPreparer
from iqa_core.assessor.prompts.chat import turn_end, written_prompt
from iqa_core.assessor.prompts.plain_text import TextRefused
from iqa_core.assessor.protocol import texts_of_images
from iqa_core.records import Assessment, Rejection
from iqa_core.rubrics import WrittenRubric
from iqa_core.slots import SAMPLE_TEXT
from iqa_core.written.judging import Sample, judged
from iqa_core.written.keys import sample_keys
from iqa_core.written.parsing import Parsed

MAX_CACHE_BYTES = {"cpu": 2**31, "cuda": 2**34}
"""Largest cache of the rows that are written at once, where their number is not given."""

MAX_ROWS = 256
"""Most rows that are written at once, where their number is not given: beyond it, a step takes longer for each row."""

PLACEHOLDERS = ("image", "video", "audio", "vision")
"""Parts of names of tokens, in a model's configuration, that stand for what is no text."""


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
    ) -> None:
        """Take the model over.

        fingerprint: part of the key of each sample's noise; batch_tokens: bound on the tokens of prompts that go
        through the model at once; decode_rows: bound on the samples that are written at once, None is what fits.
        Raises CallerError when the checkpoint has no chat template, or cannot take the rubric's texts or readout.
        """
        self.rubric = rubric
        self.preparer = preparer
        self.model = model.eval()
        self._fingerprint = fingerprint
        self._batch_tokens = batch_tokens if model.device.type != "cpu" else min(batch_tokens, CPU_BATCH_TOKENS)
        self._encoder = _encoder(model, processor, rubric, preparer)
        self._digits = _digit_reader(processor.tokenizer, rubric)
        self._decoder = Decoder(
            model,
            rubric.decoding,
            lambda ids: _text_of(processor.tokenizer, ids),
            ends=_ends(processor, rubric),
            suppressed=_placeholders(model) if rubric.decoding.suppress_image else (),
            watched=() if self._digits is None else self._digits.watched,
        )
        self._decode_rows = decode_rows or self._rows_that_fit()

    @classmethod
    def load(
        cls,
        folder: Path,
        rubric: WrittenRubric,
        preparer: ModelPreparer,
        dtype: str,
        fingerprint: str,
        config: AssessorConfig,
    ) -> WritingAssessor:
        """Load a complete checkpoint folder: safetensors alone, no code from the checkpoint, nothing fetched.

        dtype: float32 or bfloat16. Raises CallerError when the checkpoint cannot be loaded whole.
        """
        keep_freed_memory()
        processor = load_processor(folder)
        model = load_model(folder, dtype, config.device, config.threads, config.num_gpus)
        return cls(model, processor, rubric, preparer, fingerprint, config.batch_tokens, config.decode_rows)

    @property
    def versions(self) -> Mapping[str, str]:
        """Names of the device and the versions of torch and transformers."""
        return versions_of(self.model)

    def assess(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
    ) -> list[Assessment | Rejection]:
        """One result per prepared image, in order; images of similar size are written about at once."""
        decoding = self.rubric.decoding
        asked = texts_of_images(self.rubric.slots, texts, len(images))
        results: dict[int, Assessment | Rejection] = {}
        tokens: dict[int, int] = {}
        for i, (pixels, own) in enumerate(zip(images, asked, strict=True)):
            try:
                tokens[i] = self.preparer.tokens(pixels) + self._encoder.text_tokens(own)
            except TextRefused as error:
                results[i] = Rejection(error.reason, str(error))
        for group in self._groups(tokens):
            keys = [sample_keys(self._fingerprint, images[i], decoding.samples, decoding.seed) for i in group]
            answers = self._answers([images[i] for i in group], [asked[i] for i in group], keys)
            results.update((i, self._judged(one)) for i, one in zip(group, answers, strict=True))
        return [results[i] for i in range(len(images))]

    def _groups(self, tokens: Mapping[int, int]) -> Iterator[list[int]]:
        """Indices of the images that are written about at once, small images first, with little padding."""
        most = max(1, self._decode_rows // self.rubric.decoding.samples)
        group: list[int] = []
        for i in sorted(tokens, key=lambda i: (tokens[i], i)):
            if group and (len(group) == most or tokens[i] > (1 + MAX_PADDING) * tokens[group[0]]):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _answers(
        self,
        images: Sequence[NDArray[np.uint8]],
        texts: Sequence[Mapping[str, str]],
        keys_NS: Sequence[Sequence[int]],
    ) -> list[list[Answer] | None]:
        """Answers about each image; None where one alone does not fit into memory. Half at a time where all do not."""
        try:
            with without_denormals():
                return [*self._decoder(self._prefilled(images, texts), keys_NS)]
        except torch.OutOfMemoryError:
            if len(images) == 1 and len(keys_NS[0]) == 1:
                return [None]
        # not inside the handler: its traceback would keep the failed batch's tensors in memory
        if len(images) > 1:
            half = len(images) // 2
            parts = (slice(half), slice(half, None))
            return [one for part in parts for one in self._answers(images[part], texts[part], keys_NS[part])]
        half = len(keys_NS[0]) // 2
        halves = [self._answers(images, texts, [keys])[0] for keys in (keys_NS[0][:half], keys_NS[0][half:])]
        return [None if None in halves else [answer for part in halves if part is not None for answer in part]]

    @torch.inference_mode()
    def _prefilled(self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]]) -> Prefill:
        """The prompts of the images, through the model in batches of up to `batch_tokens`."""
        batch = self._encoder(images, texts if self.rubric.slots else None)
        width = max(map(length, batch.prompts))
        count = max(1, self._batch_tokens // width)
        parts = [
            self._encoder(images[at : at + count], texts[at : at + count] if self.rubric.slots else None)
            for at in range(0, len(images), count)
        ]
        return Prefill.join([prefill(self.model, part, self._pixels(part), width) for part in parts])

    def _pixels(self, batch: EncodedBatch) -> dict[str, torch.Tensor]:
        return {name: value.to(self.model.device) for name, value in batch.pixels.items()}

    def _judged(self, answers: Sequence[Answer] | None) -> Assessment | Rejection:
        if answers is None:
            return TOO_LARGE
        return judged([self._sample(answer) for answer in answers], self.rubric.form)

    def _sample(self, answer: Answer) -> Sample:
        sample = Sample(answer.text, answer.finish)
        if self._digits is None or not isinstance(said := sample.parsed(self.rubric.form), Parsed):
            return sample
        return Sample(answer.text, answer.finish, self._digits.readings(answer, said.spans))

    def _rows_that_fit(self) -> int:
        """Samples whose caches fit into the bound, by what one token of the probe's takes."""
        images = [self.preparer.prepare(image) for image in probe_images()]
        found = self._prefilled(images, [dict.fromkeys(self.rubric.slots, SAMPLE_TEXT)] * len(images))
        tensors = [value for layer in found.cache.layers for value in vars(layer).values()]
        held = sum(value.nbytes for value in tensors if isinstance(value, torch.Tensor))
        row = held / found.mask_NT.numel() * self.rubric.decoding.max_new_tokens
        return int(max(1, min(MAX_ROWS, MAX_CACHE_BYTES[self.model.device.type] // row)))


def _encoder(model: Any, processor: Any, rubric: WrittenRubric, preparer: ModelPreparer) -> Encoder:
    """The encoder of the rubric's one prompt. Raises CallerError where texts do not fit into its slots."""
    sample = dict.fromkeys(rubric.slots, SAMPLE_TEXT)
    encoder = make_encoder(processor, [written_prompt(processor, rubric, sample)], model, preparer)
    if rubric.slots:
        encoder.tails = slot_tails(
            processor, model, [rubric.slots], lambda texts: [written_prompt(processor, rubric, texts)]
        )
        require_fitting(encoder, [preparer.prepare(image) for image in probe_images()])
    return encoder


def _digit_reader(tokenizer: Any, rubric: WrittenRubric) -> DigitReader | None:
    """What reads numbers as distributions, where the rubric has them read so."""
    if rubric.decoding.readout == "parsed":
        return None
    texts = texts_of_vocabulary(lambda ids: _text_of(tokenizer, ids), len(tokenizer), tokenizer.all_special_ids)
    return DigitReader([*texts], rubric.form)


def _ends(processor: Any, rubric: WrittenRubric) -> set[int]:
    """Ids of the tokens that end a turn: the tokenizer's own, and the one that the chat template puts there."""
    tokenizer = processor.tokenizer
    of_turn = tokenizer.encode(turn_end(processor, rubric.system), add_special_tokens=False)
    return {tokenizer.eos_token_id, *(of_turn if len(of_turn) == 1 else ())} - {None}


def _placeholders(model: Any) -> list[int]:
    """Ids of tokens that stand for what is no text, and that no answer can have."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    settings = model.config.to_dict().items()
    found = {
        value
        for name, value in settings
        if isinstance(value, int) and name.endswith(("_token_id", "_token_index")) and name.startswith(PLACEHOLDERS)
    }
    return sorted(value for value in found if 0 <= value < vocabulary)


def _text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, verbatim, markup included."""
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
