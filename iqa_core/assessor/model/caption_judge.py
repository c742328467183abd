"""Captions that a model wrote -> the ratings that it, or its base, reads from each of them alone, without the image.

The second pass of arXiv 2512.16484. The judge is asked the rubric's own question without the image, and its answer has
begun with the caption. It goes on greedily: a reasoning and a rating, read by the parser that scoring has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iqa_core.assessor.prompts.chat import adds_special_tokens, render_prompt
from iqa_core.rubrics import WrittenRubric
from iqa_core.rubrics.written import Decoding
from iqa_core.written.judging import Sample
from iqa_core.written.parsing import Parsed

if TYPE_CHECKING:
    from iqa_core.assessor.encoders.base import PromptTokens

BEGINNING = "<caption>{}</caption>\n<reasoning>"
"""An empty reasoning would be an answer such as no model has learnt: the small one of the demo rates none behind it."""
END = "</rating>"
"""A judge has nothing to say behind it."""

ROWS = 64
"""Captions at a time."""


class Judge:
    """Asks without images. Each caption is read by itself, whatever stands beside it in a batch."""

    def __init__(self, processor: Any, rubric: WrittenRubric, max_new_tokens: int) -> None:
        """A judge that says so many tokens at most."""
        self._processor, self._rubric = processor, rubric
        self._decoding = Decoding(max_new_tokens=max_new_tokens, stop=(END,))

    def __call__(self, model: Any, captions: Sequence[str | None]) -> NDArray[np.float64]:
        """Ratings from 1 (worst) to 5 (best), NaN where there is no caption, or what is written is no rating.

        model: in evaluation mode.
        """
        # each text once, and long ones beside one another: an image's captions are often the same
        known = sorted({caption: None for caption in captions if caption is not None}, key=len)
        ratings: dict[str | None, float] = {None: np.nan}
        for at in range(0, len(known), ROWS):
            piece = known[at : at + ROWS]
            begun = [BEGINNING.format(caption) for caption in piece]
            said = [f"{one}{more}" for one, more in zip(begun, self._continued(model, begun), strict=True)]
            ratings.update(zip(piece, map(self._rating, said), strict=True))
        return np.array([ratings[caption] for caption in captions], dtype=np.float64)

    def _rating(self, text: str) -> float:
        said = Sample(text).parsed(self._rubric.form)
        [attribute] = self._rubric.form.attributes
        return attribute.range.rating(said.values[0]) if isinstance(said, Parsed) else np.nan

    def _continued(self, model: Any, begun: Sequence[str]) -> list[str]:
        """What the model writes behind each beginning, the likeliest token at each place, up to its rating."""
        import torch

        from iqa_core.assessor.encoders.base import EncodedBatch
        from iqa_core.assessor.model.generation.decoding import Decoder
        from iqa_core.assessor.model.generation.prefill import prefill
        from iqa_core.assessor.model.writing import ends_of, text_of

        prompts = self._prompts(begun)
        decoder = Decoder(
            model,
            self._decoding,
            lambda ids: text_of(self._processor.tokenizer, ids),
            ends=ends_of(self._processor, self._rubric),
            shares=False,  # a prompt has one answer
        )
        width = max(len(prompt.prefix) for prompt in prompts)
        with torch.inference_mode():
            prefilled = prefill(model, EncodedBatch(prompts, {}), {}, width)
        return [answer.text for [answer] in decoder(prefilled, [[0]] * len(begun))]

    def _prompts(self, begun: Sequence[str]) -> tuple[PromptTokens, ...]:
        """The question without an image, and each beginning."""
        from iqa_core.assessor.encoders.base import PromptTokens

        tokenizer, rubric = self._processor.tokenizer, self._rubric
        asked = [rubric.question]
        texts = [render_prompt(self._processor, asked, one, rubric.system, rubric.template) for one in begun]
        special = adds_special_tokens(tokenizer, texts[0])
        ids = [tokenizer.encode(text, add_special_tokens=special) for text in texts]
        return tuple(PromptTokens(tuple(row), ((),)) for row in ids)
