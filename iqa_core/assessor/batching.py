"""Settings and a rubric -> how much one call of the assessor takes, and how long it may take. No torch."""

from __future__ import annotations

import sys

from iqa_core.assessor.config import AssessorConfig
from iqa_core.rubrics import AnyRubric, WrittenRubric

MAX_ROWS = 256
"""Most answers that are written at once, where their number is not given: beyond it, a step takes longer for each."""

MOST_IMAGES = 256
"""Images of one batch at most."""


GRACE_S = 60.0
"""Seconds beyond a process's own time limit before it is given up from outside."""


def batch_bounds(config: AssessorConfig, rubric: AnyRubric) -> tuple[int, int]:
    """Tokens and images of one batch at most.

    Where answers are written, a batch holds as many images as are written about at once; the assessor itself sends
    their prompts through the model in smaller ones.
    """
    if not isinstance(rubric, WrittenRubric):
        return config.batch_tokens, MOST_IMAGES
    rows = config.decode_rows or MAX_ROWS
    return sys.maxsize, min(MOST_IMAGES, max(1, rows // rubric.decoding.samples))


def time_limit_s(config: AssessorConfig, rubric: AnyRubric, num_images: int, passes: int = 1) -> float:
    """Seconds that a batch may take; with written answers it grows with the images, and the tokens of an answer.

    passes: how often an image goes through the model at most, which is once but where many parts of it are asked about.
    """
    if not isinstance(rubric, WrittenRubric):
        return config.timeout_s * passes
    hundreds = rubric.decoding.max_new_tokens / 100
    return config.timeout_s + config.timeout_per_image_s * num_images + config.timeout_per_100_tokens_s * hundreds


def quiet_limit_s(config: AssessorConfig, rubric: AnyRubric, stall_timeout_s: float, passes: int = 1) -> float:
    """Seconds without any result after which a run ends.

    Never sooner than a full batch may take where answers are written, or images go through the model several times.
    """
    if not isinstance(rubric, WrittenRubric) and passes == 1:
        return stall_timeout_s
    _, most = batch_bounds(config, rubric)
    return max(stall_timeout_s, time_limit_s(config, rubric, most, passes) + GRACE_S)
