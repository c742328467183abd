"""A prompt of one's own and an image -> what the model computes at the level word's place, as one JSON value.

For debugging a prompt: nothing of a rubric or of assessor.toml is used but the bound on pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.checkpoint.system_prompt import checkpoints_own
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.fake import PREFIX
from iqa_core.assessor.load import dtype_of
from iqa_core.assessor.prompts.chat import render_prompt
from iqa_core.assessor.prompts.level_tokens import level_token_ids
from iqa_core.errors import CallerError, RunError
from iqa_core.images import decode
from iqa_core.levels import NOT_FINITE, expected_score, level_probabilities, score_std
from iqa_core.records import FIVE_LEVELS, ImageLimits, Rejection, RgbImage

IMAGE = "<image>"
"""Where the image stands in the user's turn."""
TOP = 5
"""Likeliest next tokens of the whole vocabulary that are shown."""


def probe(
    config: AssessorConfig, image: Path, user: str, answer_prefix: str, levels: Sequence[str], system: str | None
) -> dict[str, Any]:
    """Logits and probabilities by level word, score, spread, token counts, and the likeliest next tokens of all.

    user: shows the image as `<image>`, once. levels: best to worst; a space and one of them would follow answer_prefix.
    system: None is what args.json beside the weights says, else none.
    Raises CallerError on a prompt or an image that cannot be used; RunError when a level's logit is not finite.
    """
    if config.checkpoint.startswith(PREFIX):
        raise CallerError(f"{config.checkpoint} has no model that could be probed; give a checkpoint")
    before, after = _around_image(user)
    _check_answer(answer_prefix, levels)
    pixels = _read(image)
    from iqa_core.inspection.plain import PlainModel

    folder = materialise(config.checkpoint)
    manifest = read_manifest(folder)
    text, origin = _system(folder, system)
    max_pixels = config.max_pixels or (manifest.max_pixels if manifest else None)
    model = PlainModel.load(folder, dtype_of(config, manifest, folder), config, max_pixels)
    parts = [part for part in (before, None, after) if part != ""]
    prompt = render_prompt(model.processor, parts, answer_prefix, text)
    worst_first = list(reversed(levels))
    ids_L = level_token_ids(model.processor.tokenizer, prompt, worst_first)
    reading = model.read(prompt, pixels)
    logits_V = reading.logits_PV[-1]
    if not np.isfinite(logits_V[ids_L]).all():
        raise RunError(NOT_FINITE.detail)
    probs_L = level_probabilities(logits_V[ids_L])
    return {
        "logits": _best_first(worst_first, logits_V[ids_L].tolist()),
        "probabilities": _best_first(worst_first, probs_L.tolist()),
        "score": float(expected_score(probs_L)),
        "std": float(score_std(probs_L)),
        "visual_tokens": reading.visual_tokens,
        "prompt_tokens": reading.prompt_tokens,
        "system": text,
        "system_from": origin,
        "top": _top(model.processor.tokenizer, logits_V),
    }


def _around_image(user: str) -> tuple[str, str]:
    if user.count(IMAGE) != 1:
        raise CallerError(f"--user shows the image {user.count(IMAGE)} times; write {IMAGE} once, where it stands")
    before, _, after = user.partition(IMAGE)
    return before, after


def _check_answer(answer_prefix: str, levels: Sequence[str]) -> None:
    if answer_prefix != answer_prefix.rstrip() or not answer_prefix:
        raise CallerError(
            f"--answer-prefix {answer_prefix!r} is empty or ends with white space; a level brings its own"
        )
    if (
        len(levels) != FIVE_LEVELS.num_levels
        or len(set(levels)) != len(levels)
        or any(w != w.strip() or not w for w in levels)
    ):
        raise CallerError(f"--levels {','.join(levels)}: give {FIVE_LEVELS.num_levels} different words, best to worst")


def _read(path: Path) -> RgbImage:
    try:
        image = decode(path.read_bytes(), ImageLimits())
    except OSError as error:
        raise CallerError(f"--image {path} cannot be read: {error.strerror}") from None
    if isinstance(image, Rejection):
        raise CallerError(f"--image {path}: {image.reason} ({image.detail})")
    return image


def _system(folder: Path, given: str | None) -> tuple[str | None, str]:
    """The system prompt and where it comes from."""
    if given is not None:
        return given or None, "--system"
    own = checkpoints_own(folder)
    return own.text, own.origin if own.text else own.describe()


def _best_first(words: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    return dict(reversed(list(zip(words, values, strict=True))))


def _top(tokenizer: Any, logits_V: np.ndarray) -> list[dict[str, Any]]:
    weights = np.exp(logits_V.astype(np.float64) - logits_V.max())
    likeliest = np.argsort(-weights, kind="stable")[:TOP]
    return [
        {"token": tokenizer.decode([int(i)]), "id": int(i), "probability": float(weights[i] / weights.sum())}
        for i in likeliest
    ]
