"""Captions that a model wrote -> the ratings that it, or its base, reads from each of them alone, without the image.

The second pass of arXiv 2512.16484. The judge is asked the rubric's own question without the image, and its answer has
begun with the caption. It goes on greedily: a reasoning and a rating, read by the parser that scoring has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from iqa_core.assessor.prompts.chat import adds_special_tokens, render_prompt
from iqa_core.rubrics import WrittenRubric
from iqa_core.training.rewards.arrays import Floats
from iqa_core.written.judging import Sample
from iqa_core.written.parsing import Parsed

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
        self._processor, self._rubric, self._max_new_tokens = processor, rubric, max_new_tokens

    def __call__(self, model: Any, captions: Sequence[str | None]) -> Floats:
        """Ratings from 1 (worst) to 5 (best), NaN where there is no caption, or what is written is no rating.

        model: in evaluation mode.
        """
        # each text once, and long ones beside one another: an image's captions are often the same
        known = sorted({caption: None for caption in captions if caption is not None}, key=len)
        ratings: dict[str | None, float] = {None: np.nan}
        for at in range(0, len(known), ROWS):
            begun = [BEGINNING.format(caption) for caption in known[at : at + ROWS]]
            said = zip(begun, self._continued(model, begun), strict=True)
            ratings.update(zip(known[at : at + ROWS], (self._rating(*pair) for pair in said), strict=True))
        return np.array([ratings[caption] for caption in captions], dtype=np.float64)

    def _rating(self, begun: str, more: str) -> float:
        text, end, _ = f"{begun}{more}".partition(END)
        said = Sample(text + end).parsed(self._rubric.form)
        [attribute] = self._rubric.form.attributes
        return attribute.range.rating(said.values[0]) if isinstance(said, Parsed) else np.nan

    def _continued(self, model: Any, begun: Sequence[str]) -> list[str]:
        """What the model writes behind each beginning, the likeliest token at each place, up to its rating."""
        import torch
        from transformers import GenerationConfig

        tokenizer, rubric = self._processor.tokenizer, self._rubric
        asked = [rubric.question]
        texts = [render_prompt(self._processor, asked, one, rubric.system, rubric.template) for one in begun]
        special = adds_special_tokens(tokenizer, texts[0])
        rows = [tokenizer.encode(text, add_special_tokens=special) for text in texts]
        longest, padding = max(map(len, rows)), tokenizer.pad_token_id or 0
        ids = torch.tensor([[padding] * (longest - len(row)) + row for row in rows], device=model.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
        # what is not given is taken from the checkpoint's generation_config.json, such as a penalty of 1.05
        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._max_new_tokens,
            repetition_penalty=1.0,
            pad_token_id=padding,
            eos_token_id=tokenizer.eos_token_id,
        )

        def have_ended(ids_NT: torch.Tensor, _scores: object, **_named: object) -> torch.Tensor:
            last = ids_NT[:, longest:][:, -len(END) :].tolist()  # a token has a letter or more
            return torch.tensor([END in tokenizer.decode(row) for row in last], device=ids_NT.device)

        with torch.no_grad():
            written = model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=settings,
                stopping_criteria=[have_ended],
            )[:, longest:]
        return [str(tokenizer.decode(row, skip_special_tokens=False)) for row in written.tolist()]
