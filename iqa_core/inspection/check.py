"""A described checkpoint -> findings about the faults that give plausible scores and no error.

A wrong chat template, an untuned model, a tokenizer that splits a level word, an image that never reaches the model:
each yields numbers between 1 and 5. So the model is asked what it would say by itself, on images that ship with this
project, and its scores are held against those that it should give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.golden import TOLERANCE, Scores, sample_scores
from iqa_core.assessor.load import golden_of, load_unverified
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.assessor.prompts.level_tokens import Prompt, prompt_of
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.assessor.samples import FEW, SAMPLES, read_sample
from iqa_core.errors import CallerError, listed
from iqa_core.inspection.findings import (
    SPREAD_LEAST,
    SPREAD_OK,
    Finding,
    Verdict,
    failed,
    golden_finding,
    graded,
    require_model,
    rubric_finding,
)
from iqa_core.inspection.written_check import written_findings
from iqa_core.levels import expected_score, level_probabilities
from iqa_core.questions import LEVELS, Question
from iqa_core.records import RATING, Rejection, RgbImage, ScoreRange
from iqa_core.rubrics import Rubric, WrittenRubric, closed_set
from iqa_core.slots import SAMPLE_TEXT

if TYPE_CHECKING:
    from iqa_core.inspection.plain import PlainModel

SAID_SHARE = 0.9
"""Share of the images, per dimension, on which the model must say the answer by itself."""
MASS_OK, MASS_LEAST = 0.9, 0.5
"""Mean probability of a question's answers in the whole vocabulary; below the second the model would say others."""
SHOWN_CHARACTERS = 60
MOST_ASKED = 16
"""Questions that a job waits for: a checklist has up to 256, and each takes a forward of its own per image."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the model would say of one image about one dimension."""

    says_it: bool
    """Whether it says the beginning of the answer and one of the words; if it was trained on words alone, a word."""
    mass: float
    """Probability of all answers together, behind the beginning of the answer."""
    score: float


def check(spec: AssessorSpec, config: AssessorConfig, images: Sequence[str] = SAMPLES) -> list[Finding]:
    """All findings: those of `quick_check`, and the assessor's own scores held against them.

    Raises CallerError when the checkpoint cannot be loaded, or is no model.
    """
    if isinstance(spec.rubric, WrittenRubric):
        return written_findings(spec, config, images)
    findings, plain = _look(spec, config, images)
    if not plain:
        return findings
    own = sample_scores(load_unverified(spec, config), images)
    return [*findings, _same_as_plain(plain, own, spec), golden_finding(golden_of(spec), own, spec)]


def quick_check(spec: AssessorSpec, config: AssessorConfig) -> list[Finding]:
    """The findings that a job waits for before it starts: few images, and one model in memory.

    Raises CallerError when the checkpoint cannot be loaded, or is no model.
    """
    images = SAMPLES[:FEW]
    if isinstance(spec.rubric, WrittenRubric):
        return written_findings(spec, config, images)
    findings, plain = _look(spec, config, images, most=MOST_ASKED)
    golden = tuple(entry for entry in golden_of(spec) if entry.image in images)
    is_whole = len(_asked_of(spec).questions) <= MOST_ASKED
    return [*findings, golden_finding(golden if is_whole else (), plain, spec)] if plain else findings


def _look(
    spec: AssessorSpec, config: AssessorConfig, images: Sequence[str], most: int | None = None
) -> tuple[list[Finding], dict[str, Scores | Rejection]]:
    """Findings of the untouched model, and its scores of the images; none where answers cannot be told apart.

    most: bound on the questions that it is asked, the first of the rubric; columns of others have no scores.
    """
    require_model(spec)
    from iqa_core.assessor.model.processors import load_processor
    from iqa_core.inspection.plain import PlainModel

    folder = materialise(spec.checkpoint, spec.storage_options)
    manifest = read_manifest(folder)
    rubric = _asked_of(spec)
    first = [rubric_finding(spec, manifest), _level_words(load_processor(folder), rubric)]
    if failed(first):
        return first, {}
    is_level_only = manifest is not None and manifest.trained_on == "level"
    bound = spec.fingerprint_parts["max_pixels"]
    model = PlainModel.load(
        folder, spec.fingerprint_parts["dtype"], config, None if bound == "processor" else int(bound)
    )
    asked = [q.filled(dict.fromkeys(q.slots, SAMPLE_TEXT)) for q in rubric.questions[:most]]
    prompts = [prompt_of(model.processor, question, rubric.system) for question in asked]
    answers = {
        prompt.question.name: [_answer(model, prompt, read_sample(image), is_level_only) for image in images]
        for prompt in prompts
    }
    own_answer = _own_answer(model, prompts, answers, images, is_level_only)
    scores_QN = [[answer.score for answer in answers[question.name]] for question in asked]
    return [*first, own_answer, _mass(answers, asked), _spread(answers, asked)], {
        image: {
            column.name: sum(share * scores_QN[q][i] for q, share in zip(column.questions, column.shares, strict=True))
            for column in rubric.columns
            if max(column.questions) < len(asked)
        }
        for i, image in enumerate(images)
    }


def _asked_of(spec: AssessorSpec) -> Rubric:
    return closed_set(spec.rubric, "check")


def _level_words(processor: Any, rubric: Rubric) -> Finding:
    """Whether each answer begins a token of its own behind each beginning of an answer."""
    name, split = "level words" if _are_levels(rubric.questions) else "answers", set[str]()
    # a checkpoint without a template is the caller's mistake, and no finding
    build_prompt(processor, rubric.questions[0], rubric.system)
    for question in rubric.questions:
        try:
            prompt = prompt_of(processor, question, rubric.system)
        except CallerError as error:
            return Finding(name, Verdict.FAIL, f"{question.name}: {error}", forbids_loading=True)
        tokens = len(processor.tokenizer.encode(prompt.text, add_special_tokens=False))
        begun = f"{prompt.text}{prompt.joint}"
        split |= {
            word
            for word in question.scale.answers
            if len(processor.tokenizer.encode(f"{begun}{word}", add_special_tokens=False)) > tokens + 1
        }
    if split:
        return Finding(name, Verdict.WARNING, f"{', '.join(sorted(split))}: several tokens, of which the first is read")
    words = dict.fromkeys(word for question in rubric.questions for word in question.scale.answers)
    return Finding(name, Verdict.OK, f"{listed([*words])}: one token each, all different")


def _answer(model: PlainModel, prompt: Prompt, image: RgbImage, is_level_only: bool) -> _Answer:
    """One forward pass: each token of the answer must be the likeliest behind those before it."""
    levels = list(prompt.answer_ids)
    answer = [] if is_level_only else _answer_tokens(model.processor.tokenizer, prompt.text, _asked(prompt))
    logits_PV = model.read(prompt.text, image, len(answer) + 1).logits_PV.astype(np.float64)
    likeliest = logits_PV.argmax(axis=1).tolist()
    last_V = logits_PV[-1]
    mass = np.exp(last_V[levels] - last_V.max()).sum() / np.exp(last_V - last_V.max()).sum()
    is_sound = np.isfinite(last_V[levels]).all()
    worths = prompt.question.scale.worths
    score = float(expected_score(level_probabilities(last_V[levels]), worths)) if is_sound else math.nan
    says_it = likeliest[-1] in levels and is_said(model.processor.tokenizer, likeliest[:-1], answer)
    return _Answer(says_it, float(mass), score)


def is_said(tokenizer: Any, likeliest: Sequence[int], answer: Sequence[int]) -> bool:
    """Whether the likeliest tokens are those of the answer, but for a space before it.

    A rubric may have one there, as some judges read their models behind one, and no model says it by itself.
    """
    said, wanted = (tokenizer.decode(tokens) for tokens in (likeliest, answer))
    return list(likeliest) == list(answer) or (wanted[:1].isspace() and said.lstrip() == wanted.lstrip())


def _asked(prompt: Prompt) -> str:
    """The prompt without the beginning of the answer; white space before that is the answer's."""
    start = prompt.question.answer_start
    return prompt.text.removesuffix(start).rstrip(" ") if start else prompt.text


def _answer_tokens(tokenizer: Any, prompt: str, asked: str) -> list[int]:
    """The tokens of the prompt that come after what it has in common with the question alone."""
    whole, question = (list(tokenizer.encode(text, add_special_tokens=False)) for text in (prompt, asked))
    common = next((i for i, (a, b) in enumerate(zip(whole, question, strict=False)) if a != b), len(question))
    return whole[common:]


def _own_answer(
    model: PlainModel,
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[_Answer]],
    images: Sequence[str],
    is_level_only: bool,
) -> Finding:
    """Whether the model answers like this of its own accord, and if not, what it says instead."""
    needed = math.ceil(SAID_SHARE * len(images))
    counts = {name: sum(answer.says_it for answer in found) for name, found in answers.items()}
    told = ", ".join(f"{name} {count}/{len(images)}" for name, count in counts.items())
    word = "a level word" if _are_levels([prompt.question for prompt in prompts]) else "one of its answers"
    what = f"{word} behind its beginning (all that it was trained on)" if is_level_only else "by itself"
    failing = [k for k, count in enumerate(counts.values()) if count < needed]
    if not failing:
        return Finding("own answer", Verdict.OK, f"said {what}: {told}")
    k = failing[0]
    prompt, question = prompts[k], prompts[k].question
    begun = prompt.text if is_level_only else _asked(prompt)
    image = next(i for i, answer in enumerate(answers[question.name]) if not answer.says_it)
    wanted = len(_answer_tokens(model.processor.tokenizer, prompt.text, begun)) + 4
    instead = model.say(begun, read_sample(images[image]), wanted).strip()[:SHOWN_CHARACTERS]
    return Finding(
        "own answer",
        Verdict.FAIL,
        f"said {what}: {told}; of {images[image]} it says {instead!r} about {question.name} instead of "
        f"{question.answer_start!r} and {word}: another template or rubric than it was trained on, or "
        "an untuned model",
    )


def _are_levels(asked: Sequence[Question]) -> bool:
    return all(question.scale.worths == LEVELS.worths for question in asked)


def _mass(answers: Mapping[str, Sequence[_Answer]], asked: Sequence[Question]) -> Finding:
    means = {name: float(np.mean([answer.mass for answer in found])) for name, found in answers.items()}
    told = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    name = "level mass" if _are_levels(asked) else "answer mass"
    return Finding(name, graded(min(means.values()), MASS_OK, MASS_LEAST), f"of 1: {told}")


def _spread(answers: Mapping[str, Sequence[_Answer]], asked: Sequence[Question]) -> Finding:
    """Whether scores differ between images, as parts of a range of 4: all levels; of other questions at least one."""
    scores = {name: [answer.score for answer in found] for name, found in answers.items()}
    told = ", ".join(f"{name} {min(found):.2f} to {max(found):.2f}" for name, found in scores.items())
    ranges = [question.scale.range for question in asked]
    spreads = [one.points(max(found) - min(found)) for found, one in zip(scores.values(), ranges, strict=True)]
    spread = min(spreads) if all(one == RATING for one in ranges) else max(spreads)
    return Finding("spread", graded(spread, SPREAD_OK, SPREAD_LEAST), told)


def _same_as_plain(
    plain: Mapping[str, Scores | Rejection], own: Mapping[str, Scores | Rejection], spec: AssessorSpec
) -> Finding:
    """Whether the assessor, with all its short cuts, computes what the untouched model does."""
    tolerance = TOLERANCE[spec.fingerprint_parts["dtype"]]
    ranges = {column.name: column.scale.range for column in spec.rubric.columns}
    gap = max(_gap(plain[image], own[image], ranges) for image in plain)
    verdict = Verdict.OK if gap <= tolerance else Verdict.FAIL
    return Finding("short cuts", verdict, f"at most {gap:.6f} from the plain forward, {tolerance:g} allowed")


def _gap(plain: Scores | Rejection, own: Scores | Rejection, ranges: Mapping[str, ScoreRange]) -> float:
    """The largest difference, in points of 1 to 5. ranges: of the dimensions."""
    if isinstance(plain, Rejection) or isinstance(own, Rejection):
        return math.inf
    gaps = [ranges[name].points(abs(plain[name] - own[name])) for name in plain]
    return math.inf if any(map(math.isnan, gaps)) else max(gaps)
