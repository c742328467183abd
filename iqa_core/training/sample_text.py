"""A sample's question, texts and answer -> their tokens, and which of these are the answer and its level word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from iqa_core.assessor.prompts.chat import render_prompt, turn_end
from iqa_core.assessor.prompts.level_tokens import level_token_ids
from iqa_core.assessor.prompts.plain_text import PlainText, TextRefused, ids_of_markup
from iqa_core.assessor.prompts.slot_texts import SlotTails
from iqa_core.errors import CallerError, RunError
from iqa_core.opinions.opinion import Texts
from iqa_core.questions import replaced
from iqa_core.rubrics import AnyRubric, WrittenRubric
from iqa_core.slots import SAMPLE_TEXT
from iqa_core.training.samples import TrainingSample
from iqa_core.written.parsing import Parsed, parsed

if TYPE_CHECKING:
    import torch

KNOWN_TEXTS = 4096
"""Encoded texts that are kept: enough for all wordings of a rubric, not for each one with words left out."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Question and answer of a sample, as text and as tokens."""

    text: str
    """Chat markup with the image's placeholder, the answer, and the end of the turn; SAMPLE_TEXT stands in slots."""
    ids: tuple[int, ...]
    """Token ids of the sample, in which one placeholder stands for all visual tokens, and its own texts in slots."""
    answer_ids: tuple[int, ...]
    """Token ids of answer and end of the turn, which carry loss; they are the last of the row."""
    level_at: int | None
    """Index of the level token in them."""
    level_ids: tuple[int, ...] | None
    """Token ids of the level words, or of the question's other answers, worst to best."""
    tail: tuple[int, ...] = ()
    """The last of `ids`, from the markup before the first slot; none where there are no slots."""
    tail_of_text: tuple[int, ...] = ()
    """The last token ids of `text`, in whose place they stand."""
    is_row: bool = True
    """Whether `ids` are those of the row. Where a processor puts more than visual tokens into a text (Gemma 3: empty
    lines about them, which merge with the next), they are as many."""
    number_places: tuple[int, ...] = ()
    """Indices in `answer_ids` of the tokens of the numbers that a written answer gives."""

    def answered(self, ids: Sequence[int]) -> EncodedText:
        """The same question with tokens that a model wrote behind it, in place of answer and end of the turn.

        Their text is not encoded: a tokenizer may have other tokens for it.
        """
        written, own = tuple(ids), len(self.answer_ids)
        return replace(
            self,
            ids=self.ids[: len(self.ids) - own] + written,
            answer_ids=written,
            tail=self.tail[: len(self.tail) - own] + written,
            tail_of_text=self.tail_of_text or self.answer_ids,
            number_places=(),
        )


class SampleTexts:
    """Encodes samples with a checkpoint's processor and a rubric's system prompt."""

    def __init__(self, processor: Any, rubric: AnyRubric) -> None:
        """Raises CallerError when the checkpoint has no chat template."""
        self._processor = processor
        self._rubric = rubric
        self._template = rubric.template if isinstance(rubric, WrittenRubric) else {}
        self.turn_end = turn_end(processor, rubric.system, self._template)
        self._encoded = lru_cache(KNOWN_TEXTS)(self._encode)
        self._with_texts = lru_cache(KNOWN_TEXTS)(self._encode_with_texts)
        self._tails = lru_cache(KNOWN_TEXTS)(self._make_tails)

    def __call__(self, sample: TrainingSample) -> EncodedText:
        """Question and answer of a sample, encoded once for samples that share them.

        Raises CallerError when the tokenizer merges the answer, or the level word, with the text before it, or cannot
        be kept from taking texts for markup; TextRefused when a text cannot stand in the question.
        """
        level = sample.level
        asked = (level.answer_start, level.answers) if level else (None, ())
        return self._with_texts(sample.query, sample.texts, sample.answer, *asked)

    def _encode_with_texts(
        self, query: str, texts: Texts, answer: str, start: str | None, answers: tuple[str, ...]
    ) -> EncodedText:
        if not texts:
            return self._encoded(query, answer, start, answers)
        slots = tuple(slot for slot, _ in texts)
        sample = self._encoded(replaced(query, dict.fromkeys(slots, SAMPLE_TEXT)), answer, start, answers)
        tails = self._tails(query, slots, answer)
        [tail], [of_text] = tails(dict(texts)), tails.sample
        if tail[len(tail) - len(sample.answer_ids) :] != sample.answer_ids:
            raise TextRefused("the text changes the tokens of the answer")
        head = sample.ids[: len(sample.ids) - len(of_text)]
        is_row = head + of_text == sample.ids
        return replace(sample, ids=head + tail, tail=tail, tail_of_text=of_text, is_row=is_row)

    def _make_tails(self, query: str, slots: tuple[str, ...], answer: str) -> SlotTails:
        """What encodes texts into a question with this answer; it keeps none, since `_with_texts` does."""
        from iqa_core.assessor.encoders.processor import given_to_tokenizer

        markers = {slot: self._plain.marker(self._rubric.slots.index(slot)) for slot in slots}
        whole = self._whole(replaced(query, markers), answer) + self.turn_end
        return SlotTails(self._plain, markers, [given_to_tokenizer(self._processor, whole)], known_tokens=0)

    @cached_property
    def _plain(self) -> PlainText:
        return PlainText(self._processor.tokenizer, ids_of_markup(vars(self._processor)))

    def _whole(self, query: str, answer: str) -> str:
        """The question's markup with an answer, or up to where one comes if it is empty."""
        rubric = self._rubric
        if isinstance(rubric, WrittenRubric):
            user = [None if part == "image" else query for part in rubric.parts]
        else:
            user = [None, f"{rubric.between}{query}"]
        return render_prompt(self._processor, user, answer, rubric.system, self._template)

    def _encode(self, query: str, answer: str, start: str | None, answers: tuple[str, ...]) -> EncodedText:
        tokenizer, whole = self._processor.tokenizer, self._whole(query, answer)
        asked, text = whole[: len(whole) - len(answer)], whole + self.turn_end
        joint = " "
        # what the template puts before an answer belongs to its first token, as in scoring and in writing
        if start == "" or isinstance(self._rubric, WrittenRubric):
            asked = self._whole(query, "")
            joint = whole[len(asked) : len(whole) - len(answer)]
        ids, asked_ids = (list(tokenizer.encode(part, add_special_tokens=False)) for part in (text, asked))
        if ids[: len(asked_ids)] != asked_ids or len(ids) == len(asked_ids):
            raise CallerError(
                f"the tokenizer merges the answer {answer[:40]!r} with what stands before it, so it is not clear which "
                "tokens carry loss; change the chat template or the rubric's answer_prefix"
            )
        level_at, level_ids = None, None
        if start is not None:
            level_ids = tuple(level_token_ids(tokenizer, asked + start, answers, joint))
            level_at = len(tokenizer.encode(asked + start, add_special_tokens=False)) - len(asked_ids)
            if ids[len(asked_ids) + level_at] not in level_ids:
                raise CallerError(f"none of {', '.join(answers)} stands behind {start!r} in the answer {answer!r}")
        numbers = self._number_places(query, answer, text, len(whole) - len(answer), len(asked_ids))
        answer_ids = tuple(ids[len(asked_ids) :])
        return EncodedText(text, tuple(ids), answer_ids, level_at, level_ids, number_places=numbers)

    def _number_places(self, query: str, answer: str, text: str, answer_at: int, begin: int) -> tuple[int, ...]:
        """Where the numbers stand, if it is an answer to a written rubric's question.

        text: with the answer at that character, whose tokens begin at `begin`. A token that holds a blank and a digit
        belongs to the number.
        """
        rubric = self._rubric
        said = parsed(answer, rubric.form) if isinstance(rubric, WrittenRubric) and query == rubric.question else None
        if not isinstance(said, Parsed):
            return ()
        encoded = self._processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = [(answer_at + first, answer_at + last) for first, last in said.spans]
        return tuple(
            place
            for place, (first, last) in enumerate(encoded["offset_mapping"][begin:])
            if any(first < end and start < last for start, end in spans)
        )


def with_own_texts(
    inputs: Mapping[str, torch.Tensor], texts: Sequence[EncodedText], padding_id: int
) -> dict[str, torch.Tensor]:
    """A processor's rows of `EncodedText.text`, with each sample's own texts in its slots; padded on the right.

    Tensors of other things per token, such as token types, are 0 from the first slot on.
    Raises RunError when a row does not end as its text does.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    if not any(text.tail for text in texts):
        return dict(inputs)
    ids_NT, lengths = inputs["input_ids"], inputs["attention_mask"].sum(dim=1).tolist()
    heads = [length - len(text.tail_of_text) for length, text in zip(lengths, texts, strict=True)]
    for ids_T, head, length, text in zip(ids_NT, heads, lengths, texts, strict=True):
        if tuple(ids_T[head:length].tolist()) != text.tail_of_text:
            raise RunError("the processor changed the tokens of a question with slots; train on a rubric without slots")

    def swapped(values_NT: torch.Tensor, tails: Sequence[Sequence[int]], padding: int) -> torch.Tensor:
        rows = [
            torch.cat([values_T[:head], values_T.new_tensor(tail)])
            for values_T, head, tail in zip(values_NT, heads, tails, strict=True)
        ]
        return pad_sequence(rows, batch_first=True, padding_value=padding)

    per_token = {name: values for name, values in inputs.items() if values.shape == ids_NT.shape}
    zeros = [[0] * len(text.tail) for text in texts]
    found = {name: swapped(values_NT, zeros, 0) for name, values_NT in per_token.items()}
    found["input_ids"] = swapped(ids_NT, [text.tail for text in texts], padding_id)
    found["attention_mask"] = swapped(inputs["attention_mask"], [[1] * len(text.tail) for text in texts], 0)
    return {**inputs, **found}
