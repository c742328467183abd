"""A training task and its best figures -> a model card: the model, its data and its agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from iqa_core.errors import listed
from iqa_core.questions import Column, Question, own_scales
from iqa_core.records import RATING, AnswerScale, ScoreRange
from iqa_core.rubrics import AnyRubric, WrittenRubric
from iqa_core.training.ranking.calibrating import Change
from iqa_core.training.ranking.task import RankingTask
from iqa_core.training.task import TrainingTask
from iqa_core.training.validation import PARSED

CARD = "README.md"

FIGURES = {"plcc": "PLCC", "srcc": "SRCC", "auc": "AUC", "mae": "MAE"}
"""Figure of validation -> head of its column."""
CORRELATIONS = frozenset({"plcc", "srcc"})
"""Columns that are there whatever is known."""


def model_card(task: TrainingTask, figures: Mapping[str, float], changes: Sequence[Change] = ()) -> str:
    """The card's Markdown; the hub reads the fields at its top. changes: what calibration does to each attribute."""
    lines = [*_head(task), *_data(task), *_numbers(task, figures), *_calibration(task, changes), *_recipe(task)]
    return "\n".join([*lines, *_use(task)]) + "\n"


def _head(task: TrainingTask) -> Iterator[str]:
    yield from ("---", "library_name: transformers", "pipeline_tag: image-text-to-text", "---", "")
    yield f"# Assessor for {listed(task.rubric.names)}"
    yield ""
    yield (
        f"Fine-tuned from `{_base_name(task)}` to answer the questions of rubric `{task.rubric.id}` "
        f"(prompt version {task.rubric.prompt_version}) {_answers(task.rubric)}. "
        "The licence of the base and of the data apply."
    )
    yield ""


def _answers(rubric: AnyRubric) -> str:
    """What can be answered and what a score is; by dimension, where one has answers of its own."""
    if isinstance(rubric, WrittenRubric):
        return "in writing; a score is a number that the answer says, brought to 1 (worst) to 5 (best)"
    if not own_scales(rubric.columns):
        return "with one of five level words; the score is their expectation, 1 (worst) to 5 (best)"
    asked = [_answered(question.name, question.scale) for question in rubric.questions[: len(rubric.dimensions)]]
    if rubric.checklist:
        asked.append(_answered(f"each of {len(rubric.statements)} statements", rubric.checklist.scale(())))
    return f"with one of its answers; a score is their expectation ({'; '.join(asked)})"


def _answered(name: str, scale: AnswerScale) -> str:
    return f"{name}: {', '.join(scale.answers)}, {scale.range.worst:g} (worst) to {scale.range.best:g} (best)"


def _base_name(task: TrainingTask) -> str:
    """The base's name, without the path of the machine that it was trained on."""
    return task.base.rstrip("/").rpartition("/")[2] if task.base.startswith("/") else task.base


def _data(task: TrainingTask) -> Iterator[str]:
    yield from ("## Data", "", "| data set | training samples | validation samples |", "|---|---|---|")
    held_out = task.validation or tuple(each.sample for each in task.rated)
    train, validation = (Counter(sample.dataset for sample in part) for part in (task.train, held_out))
    for name in sorted(train | validation):
        yield f"| {name} | {train[name]:,} | {validation[name]:,} |"
    yield ""
    yield "No image is in both parts, and neither is a test set: figures below chose the checkpoint."
    yield ""


def _numbers(task: TrainingTask, figures: Mapping[str, float]) -> Iterator[str]:
    yield f"## Validation, step {figures['step']:.0f} of {figures['steps']:.0f}"
    yield ""
    columns = [column for column in FIGURES if column in CORRELATIONS or _has(figures, column)]
    rows = {
        name if ends == RATING else f"{name}, {ends.worst:g} to {ends.best:g}": [
            figures.get(f"{column}_{name}") for column in columns
        ]
        for name, ends in _ranges(task.rubric)
    }
    rows["mean"] = [figures.get(column) for column in columns]
    if any(value is not None for row in rows.values() for value in row):
        yield f"| dimension | {' | '.join(FIGURES[column] for column in columns)} |"
        yield f"|{'---|' * (1 + len(columns))}"
        yield from (f"| {name} | {' | '.join(map(_shown, row))} |" for name, row in rows.items())
        yield ""
    if PARSED in figures:
        yield (
            f"Of {len(task.rated)} images, {figures[PARSED]:.1%} of the answers could be parsed; figures are of these."
        )
        yield ""
    validated = f", {figures['validation_loss']:.4f} in validation" if "validation_loss" in figures else ""
    yield f"Loss {figures['loss']:.4f} in training{validated}."
    yield ""


def _calibration(task: TrainingTask, changes: Sequence[Change]) -> Iterator[str]:
    """What is done to written scores, of a training that could be calibrated."""
    if not isinstance(task, RankingTask):
        return
    yield from ("## Calibration", "")
    if not changes:
        yield from ("None: scores are given as they are written.", "")
        return
    curves = [change for change in changes if change.reason is None]
    if curves:
        yield (
            "Figures above are of what is written. A strictly rising curve per attribute, in `assessor.toml`, brings "
            "it to the scale of opinions, and changes no order; it was fitted on the validation part."
        )
        yield ""
        yield "| attribute | images | MAE as written | given | left out of the fit | SRCC as written | given |"
        yield f"|{'---|' * 7}"
        for one in curves:
            figures = (*one.mae, one.mae_left_out, *one.srcc)
            yield f"| {one.attribute} | {one.images:,} | {' | '.join(map(_shown, figures))} |"
        yield ""
    for one in changes:
        if one.reason is not None:
            yield from (f"No curve for {one.attribute}: {one.reason}.", "")


def _has(figures: Mapping[str, float], column: str) -> bool:
    return any(name.startswith(f"{column}_") for name in figures)


def _ranges(rubric: AnyRubric) -> list[tuple[str, ScoreRange]]:
    """Names of questions, or of what is written, with the range of their figures."""
    asked: Sequence[Column | Question] = rubric.columns if isinstance(rubric, WrittenRubric) else rubric.questions
    return [(one.name, one.scale.range) for one in asked]


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _recipe(task: TrainingTask) -> Iterator[str]:
    recipe = task.recipe
    samples = f"{recipe.steps(len(task.train)):,} steps of {recipe.global_batch} samples; "
    yield from ("## Training", "")
    yield (
        f"Vision {recipe.vision}, aligner {recipe.aligner}, language model {recipe.language}; "
        f"{_ranking(task) if isinstance(task, RankingTask) else f'{recipe.targets} targets; '}{samples}"
        f"AdamW, learning rate {recipe.learning_rate:g}, warm-up {recipe.warmup_ratio:g}, cosine, "
        f"weight decay {recipe.weight_decay:g}; {recipe.precision}, DeepSpeed ZeRO {recipe.zero_stage}; "
        f"seed {recipe.seed}. "
        "All settings are in `training.json`."
    )
    yield ""


def _ranking(task: RankingTask) -> str:
    """How answers were drawn, and what each reward counted."""
    recipe = task.ranking
    composition = recipe.rewards.composition
    weights = ", ".join(f"{name} {weight:g}" for name, weight in composition.weights.items())
    return (
        f"by ranking (GRPO): {recipe.rollouts} answers about each of {recipe.images} images in a step, at temperature "
        f"{recipe.temperature:g}; rewards {weights} ({composition.aggregation.replace('_', ' ')}, pairs "
        f"{recipe.rewards.alignment}); divergence from the base {recipe.kl_weight:g}; "
    )


def _use(task: TrainingTask) -> Iterator[str]:
    yield from ("## Use", "", "```", "python jobs/score_corpus.py --input photos/ --output scores/ \\")
    slots = "".join(f" --slot {slot}=<column>" for slot in task.rubric.slots)
    yield from (f"    --assessor.checkpoint <this folder>{slots}", "```", "")
    yield f"Meant for: {task.rubric.domain} Scores of other images say nothing."
