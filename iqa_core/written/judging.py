"""Answers that a model wrote about one image -> its scores and their spread, or its rejection where none is parsed.

Shape suffixes: S answers that were parsed, K attributes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iqa_core.records import Assessment, Finish, Reason, Rejection, Written
from iqa_core.written.form import Form
from iqa_core.written.parsing import Parsed, Unparsed, parsed

SHOWN = 200
"""Characters of an answer's beginning that a rejection shows."""

NOT_FINITE = Rejection(Reason.ASSESSOR_FAILED, "the model returned the logit of a token that is not finite")

VISIBLE = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (
        ord("\\"),
        *range(32),
        *range(127, 160),
        0x200E,
        0x200F,
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
}
"""Characters that control a screen, or the direction of a text -> how they are shown."""

REPLACED = dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
"""Lone surrogates -> what stands for them; a letter such as `?` would be one that nobody wrote."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A number as a distribution over digits, where the rubric has it read so."""

    mean: float
    """In the attribute's own range."""
    std: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer, as the model wrote it."""

    text: str
    """With the text that stopped it."""
    finish: Finish = Finish.STOP
    readings: tuple[Reading, ...] = ()
    """One per attribute, where numbers are read as distributions and the answer is parsed."""

    def parsed(self, form: Form) -> Parsed | Unparsed:
        """What it says."""
        return parsed(self.text, form, is_cut=self.finish is Finish.LENGTH)


def judged(samples: Sequence[Sample], form: Form) -> Assessment | Rejection:
    """The mean of what the answers say, each number brought to 1 (worst) to 5 (best).

    The spread is that over answers, unbiased, and NaN for a single one; of numbers read as distributions, that of the
    answers' distributions put together. samples: at least one, in order. The first that is parsed lends its texts.
    """
    found = [sample.parsed(form) for sample in samples]
    codes = tuple(one.code for one in found if isinstance(one, Unparsed))
    if len(codes) == len(samples):
        begin = _encodable(samples[0].text[:SHOWN]).translate(VISIBLE)
        return Rejection(Reason.UNPARSABLE, f"{codes[0]}: {begin}", codes=codes)
    good = [(sample, one) for sample, one in zip(samples, found, strict=True) if isinstance(one, Parsed)]
    scores_K, stds_K = _scored(good, form)
    if not np.isfinite(scores_K).all():
        return NOT_FINITE
    (first, said), *_ = good
    return Assessment(
        scores_K,
        stds_K,
        (),
        Written(
            caption=None if said.caption is None else _encodable(said.caption),
            reasoning=None if said.reasoning is None else _encodable(said.reasoning),
            finish=first.finish,
            answers=tuple(_encodable(sample.text) for sample in samples),
            parsed=len(good),
            codes=codes,
            lenient=tuple(switch for _, one in good for switch in one.lenient),
        ),
    )


def tally(results: Iterable[Assessment | Rejection]) -> Counter[str]:
    """How the answers about some images were parsed: `parsed`, codes and lenient switches -> number of answers."""
    counts: Counter[str] = Counter()
    for result in results:
        if isinstance(result, Rejection):
            counts.update(result.codes)
        elif (written := result.written) is not None:
            counts.update({"parsed": written.parsed})
            counts.update((*written.codes, *written.lenient))
    return counts


def _encodable(text: str) -> str:
    """The text with Unicode's replacement character for lone surrogates, which no file can have."""
    return text.translate(REPLACED)


def _scored(good: Sequence[tuple[Sample, Parsed]], form: Form) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means and spreads, shape (K,), in float64 until the last step."""
    readings = [sample.readings or tuple(Reading(value, np.nan) for value in one.values) for sample, one in good]
    means_SK = np.array([[one.mean for one in of_sample] for of_sample in readings], np.float64)
    stds_SK = np.array([[one.std for one in of_sample] for of_sample in readings], np.float64)
    for k, attribute in enumerate(form.attributes):
        means_SK[:, k] = attribute.range.rating(means_SK[:, k])
        stds_SK[:, k] = attribute.range.points(stds_SK[:, k])
    if all(sample.readings for sample, _ in good):
        variances_K = (stds_SK**2).mean(axis=0) + means_SK.var(axis=0)
    else:
        variances_K = means_SK.var(axis=0, ddof=1) if len(good) > 1 else np.full(len(form.attributes), np.nan)
    return means_SK.mean(axis=0).astype(np.float32), np.sqrt(variances_K).astype(np.float32)
