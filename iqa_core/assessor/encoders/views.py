"""Encoded images and views of them -> the same images, each question asked once for each view.

A view is a set of an image's visual tokens. A question that has one sees the text before the image, these tokens and
itself, and no other token of the image. The common prefix ends with the last visual token then: what stands behind it,
such as the mark of the image's end, has seen the whole image, so each view gets its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from iqa_core.assessor.encoders.base import EncodedBatch, PromptTokens
from iqa_core.assessor.protocol import View


def with_views(
    batch: EncodedBatch, image_token: int, views_NB: Sequence[Sequence[View]], questions_B: Sequence[Sequence[int]]
) -> EncodedBatch:
    """Questions about views: all about the first view come first.

    image_token: stands in a prompt for each visual token; questions_B: those asked about each view of any image, by
    number. Raises ValueError on a view that is empty, not in order, or has a token that its image lacks.
    """
    pairs = zip(batch.prompts, views_NB, strict=True)
    return replace(batch, prompts=tuple(_viewed(prompt, image_token, own, questions_B) for prompt, own in pairs))


def _viewed(
    prompt: PromptTokens, image_token: int, views_B: Sequence[View], questions_B: Sequence[Sequence[int]]
) -> PromptTokens:
    places = [place for place, token in enumerate(prompt.prefix) if token == image_token]
    for view in views_B:
        if not view or sorted({*view}) != [*view] or not 0 <= view[0] <= view[-1] < len(places):
            raise ValueError(f"a view of an image of {len(places)} tokens is some of them in order, not {view}")
    head = places[-1] + 1
    text = [place for place in range(head) if prompt.prefix[place] != image_token]
    seen_B = [tuple(sorted((*text, *(places[token] for token in view)))) for view in views_B]
    behind_K = [prompt.prefix[head:] + suffix for suffix in prompt.suffixes]
    return PromptTokens(
        prompt.prefix[:head],
        tuple(behind_K[k] for questions in questions_B for k in questions),
        {name: values[:head] for name, values in prompt.types.items()},
        None if prompt.positions is None else _checked(prompt.positions, head),
        tuple(seen for seen, questions in zip(seen_B, questions_B, strict=True) for _ in questions),
    )


def _checked(positions_AT: torch.Tensor, head: int) -> torch.Tensor:
    """Rotary positions up to the last visual token. Raises ValueError unless those behind it go on by one."""
    first = int(positions_AT[:, :head].max()) + 1
    if not (positions_AT[:, head:] == torch.arange(first, first + positions_AT.shape[1] - head)).all():
        raise ValueError("what stands behind the image has other positions than tokens of text have")
    return positions_AT[:, :head]
