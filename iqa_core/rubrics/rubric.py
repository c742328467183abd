"""What a rubric is: the questions an assessor asks, and the rules that they keep.

A dimension is one question with a closed set of answers. A checklist is many statements that share one question; each
is a column, or a part of its group's. `questions` says what a model is asked, `columns` what becomes of its answers.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from iqa_core.questions import (
    BETWEEN,
    PLACEHOLDER,
    STATEMENT,
    Column,
    ColumnScale,
    Question,
    placeholders,
    replaced,
    yes_column,
)
from iqa_core.records import FIVE_LEVELS, AnswerScale, ScoreRange
from iqa_core.rubrics.base import BaseRubric, ColumnName, Model, Text

MAX_STATEMENTS = 256
MIN_ANSWERS, MAX_ANSWERS = 2, 20


def _answer_prefix(template: str) -> str:
    """A level word follows after one space, so the template itself ends without one."""
    fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template)]
    if any(field not in {(None, None, None), ("dimension", "", None)} for field in fields):
        raise ValueError("{dimension} is the only placeholder; write { as {{")
    if template != template.rstrip():
        raise ValueError("must not end with white space: the answer brings its own")
    return template


def _white_space(value: str) -> str:
    if value.strip():
        raise ValueError(f"{value!r} is more than white space; what the model reads as words belongs to the query")
    return value


def _answers(worths: dict[str, float]) -> dict[str, float]:
    if not MIN_ANSWERS <= len(worths) <= MAX_ANSWERS:
        raise ValueError(f"{len(worths)} answers; a closed set has {MIN_ANSWERS} to {MAX_ANSWERS}")
    if any(not word.strip() or word != word.strip() for word in worths):
        raise ValueError(f"answers must be words with no white space around them: {list(worths)}")
    if len(set(worths.values())) == 1:
        raise ValueError(f"all answers are worth {next(iter(worths.values())):g}; a score needs at least two worths")
    return worths


AnswerPrefix = Annotated[str, AfterValidator(_answer_prefix)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]
Weight = Annotated[float, Field(gt=0, le=1e6)]
Answers = Annotated[dict[str, Number], AfterValidator(_answers)]

TAG = re.compile(r"<\w+>")
"""Such as `<lighting>`: part of a format, not a word."""


class ClosedSet(Model):
    """Answers of a question, where they are not the rubric's level words."""

    answers: Answers | None = None
    """Word or short phrase -> worth; None: the five levels of the rubric, worth 1 to 5."""
    worst: Number | None = None
    """The end of the range that is worst; above `best` where less is better. None: the worth at that end."""
    best: Number | None = None
    """The end of the range that is best. None: the worth at that end, the largest unless less is better."""
    answer_prefix: AnswerPrefix | None = None
    """Beginning of the answer, up to the word; None: the rubric's. Empty: the word is the whole answer."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.answers is None:
            if self.worst is not None or self.best is not None:
                raise ValueError("worst and best say the range of answers; there are none beside the rubric's levels")
            return self
        scale = self.scale(())
        if any(not scale.range.low <= worth <= scale.range.high for worth in scale.worths):
            ends = f"worst {scale.range.worst:g} and best {scale.range.best:g}"
            raise ValueError(f"worths {list(scale.worths)} must lie between {ends}")
        return self

    def scale(self, levels: tuple[str, ...]) -> AnswerScale:
        """The answers, worst to best. levels: of the rubric."""
        if self.answers is None:
            return AnswerScale(levels, tuple(map(float, FIVE_LEVELS.levels)))
        low, high = min(self.answers.values()), max(self.answers.values())
        is_less_better = (self.worst is not None and self.worst >= high) or (self.best is not None and self.best <= low)
        worst, best = (high, low) if is_less_better else (low, high)
        worst, best = worst if self.worst is None else self.worst, best if self.best is None else self.best
        ordered = sorted(self.answers.items(), key=lambda answer: abs(answer[1] - worst))
        words, worths = zip(*ordered, strict=True)
        return AnswerScale(words, worths, ScoreRange(worst, best))

    @property
    def own(self) -> dict[str, Any]:
        """What is set, for digests."""
        own = {"answers": self.answers and sorted(self.answers.items()), "worst": self.worst, "best": self.best}
        return {
            name: value for name, value in (own | {"answer_prefix": self.answer_prefix}).items() if value is not None
        }


class RubricDimension(ClosedSet):
    """One quality that is judged."""

    name: ColumnName
    """Column of the score table, and what `{dimension}` stands for in the answer prefix."""
    query: Text
    """What the model is asked, verbatim but for slots; any tag such as `<lighting>` is part of it."""
    paraphrases: tuple[Text, ...] = ()
    """Other wordings of the query, which training may draw from; scoring never does."""
    description: str = ""
    """One sentence for people; not shown to the model."""
    weight: Weight = 1.0
    """How much it counts in the reward, until weights are fitted; never part of a score."""
    local: bool = False
    """Whether a part of an image has it too, as noise does and layout, a relation of parts, does not; see
    `iqa_core.grounding`. Never part of a score."""

    @model_validator(mode="after")
    def _other_words(self) -> Self:
        wordings = (self.query, *self.paraphrases)
        if len(set(wordings)) != len(wordings):
            raise ValueError(f"paraphrases of {self.name} must differ from its query and from one another")
        for what, pattern in {"tags": TAG, "placeholders": PLACEHOLDER}.items():
            if any(pattern.findall(wording) != pattern.findall(self.query) for wording in wordings):
                wanted = pattern.findall(self.query)
                raise ValueError(f"paraphrases of {self.name} must have the {what} of its query: {wanted}")
        return self


class Checklist(ClosedSet):
    """How each statement of a checklist is asked, and what is yes."""

    query: Text
    """What the model is asked; `{statement}` is replaced by the statement's text."""
    answers: Answers
    """The two answers, worth 0 and 1: `{ no = 0, yes = 1 }`."""

    @model_validator(mode="after")
    def _yes_or_no(self) -> Self:
        if sorted(self.answers.values()) != [0, 1]:
            raise ValueError(f"a checklist has two answers, worth 0 and 1, not {self.answers}")
        if self.worst is not None or self.best is not None:
            raise ValueError("a checklist's range is 0 to 1; leave worst and best out")
        if STATEMENT not in placeholders(self.query):
            raise ValueError(f"the query of a checklist must have {{{STATEMENT}}} in it: {self.query!r}")
        return self


class Statement(Model):
    """One thing that may be true of an image."""

    name: ColumnName
    """Column of the score table, where it is in no group."""
    text: Text
    """What stands for `{statement}` in the checklist's query."""
    group: ColumnName | None = None
    """Column that it shares with the others of its group: their weighted share of yes."""
    weight: Weight = 1.0
    """How much it counts in its group, or in the reward where it is a column of its own."""


class Rubric(BaseRubric):
    """Dimensions and statements, the questions about them, and the beginning of the answer that a word completes."""

    between: Annotated[str, AfterValidator(_white_space)] = BETWEEN
    """White space between the image and each query, or none."""
    answer_prefix: AnswerPrefix | None = None
    """Beginning of the answer, up to the word; `{dimension}` is replaced by the dimension's name."""
    levels: tuple[Text, ...] = ()
    """Five words, worst to best, worth 1 to 5; none where every dimension has answers of its own."""
    dimensions: tuple[RubricDimension, ...] = ()
    checklist: Checklist | None = None
    statements: Annotated[tuple[Statement, ...], Field(max_length=MAX_STATEMENTS)] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if not self.dimensions and not self.statements:
            raise ValueError("there is nothing to ask: give [[dimensions]], or a [checklist] with [[statements]]")
        if (self.checklist is None) != (not self.statements):
            raise ValueError("[checklist] and [[statements]] need each other")
        asked = [*(d.name for d in self.dimensions), *(s.name for s in self.statements)]
        for what, names in {"dimension": self.names, "question": asked}.items():
            if len(set(names)) != len(names):
                raise ValueError(f"{what} names must differ: {names}")
        if lists := {yes_column(column.name) for column in self.columns if column.scale.is_group} & set(self.names):
            raise ValueError(f"{min(lists)!r} is the column of a group's statements; choose another name")
        return self

    @model_validator(mode="after")
    def _answered(self) -> Self:
        if any(dimension.answers is None for dimension in self.dimensions):
            _require_levels(self.levels)
        elif self.levels:
            raise ValueError("levels are set, but every dimension has answers of its own; leave levels out")
        asked = (*self.dimensions, *([self.checklist] if self.checklist else []))
        if self.answer_prefix is None and any(one.answer_prefix is None for one in asked):
            raise ValueError("answer_prefix: give one for the rubric, or one for each dimension and the checklist")
        if self.answer_prefix is not None and all(one.answer_prefix is not None for one in asked):
            raise ValueError("answer_prefix is set, but each question has one of its own; leave the rubric's out")
        return self

    @model_validator(mode="after")
    def _slots_are_used(self) -> Self:
        found = set(chain.from_iterable(placeholders(question.query) for question in self.questions))
        self._check_slots(found, not self.slots and ("slots" in self.model_fields_set or not self._used()))
        return self

    @property
    def asked_texts(self) -> tuple[tuple[str, str], ...]:
        """See `BaseRubric.asked_texts`."""
        return tuple((question.query, question.answer_start) for question in self.questions)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """What is asked of a model about each image: dimensions, then statements."""
        return (*map(self._question, self.dimensions), *map(self._statement_question, self.statements))

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What becomes of the answers, in order."""
        return (*self._dimension_columns(), *self._statement_columns())

    @property
    def local_names(self) -> tuple[str, ...]:
        """Dimensions that a part of an image has too."""
        return tuple(dimension.name for dimension in self.dimensions if dimension.local)

    def answer_start(self, dimension: RubricDimension) -> str:
        """The forced beginning of the answer; a space and an answer complete it; where it is empty, the answer."""
        return self._answer_start(dimension, dimension.name)

    def _content(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "answer_prefix": self.answer_prefix,
            "levels": self.levels,
            "dimensions": [(dimension.name, dimension.query) for dimension in self.dimensions],
            **self._used(),
        }

    def _used(self) -> dict[str, Any]:
        """What not every rubric has: it enters the digests only of those that do."""
        content = {
            "slots": self.slots,
            "answers": {dimension.name: dimension.own for dimension in self.dimensions if dimension.own},
            "checklist": self.checklist and [self.checklist.query, self.checklist.own],
            "statements": [(one.name, one.text, one.group, one.weight) for one in self.statements],
        }
        between = {} if self.between == BETWEEN else {"between": self.between}
        return between | {name: value for name, value in content.items() if value}

    def _answer_start(self, asked: ClosedSet, name: str) -> str:
        template = self.answer_prefix if asked.answer_prefix is None else asked.answer_prefix
        return (template or "").format(dimension=name)

    def _question(self, dimension: RubricDimension) -> Question:
        scale = dimension.scale(self.levels)
        return Question(
            dimension.name,
            dimension.query,
            self.answer_start(dimension),
            scale,
            self._slots_in(dimension.query),
            self.between,
        )

    def _statement_question(self, statement: Statement) -> Question:
        assert self.checklist is not None
        query = replaced(self.checklist.query, {STATEMENT: statement.text})
        start = self._answer_start(self.checklist, statement.name)
        return Question(statement.name, query, start, self.checklist.scale(()), self._slots_in(query), self.between)

    def _slots_in(self, query: str) -> tuple[str, ...]:
        found = placeholders(query)
        return tuple(slot for slot in self.slots if slot in found)

    def _dimension_columns(self) -> Iterator[Column]:
        for k, dimension in enumerate(self.dimensions):
            scale = dimension.scale(self.levels)
            yield Column(dimension.name, ColumnScale(scale.range, scale.worths), (k,), (1.0,), dimension.weight)

    def _statement_columns(self) -> Iterator[Column]:
        members: dict[tuple[str, bool], list[int]] = {}
        for i, statement in enumerate(self.statements):
            members.setdefault((statement.group or statement.name, statement.group is not None), []).append(i)
        for (name, is_group), found in members.items():
            weights = [self.statements[i].weight for i in found]
            total = sum(weights)
            shares = tuple(weight / total for weight in weights)
            places = tuple(len(self.dimensions) + i for i in found)
            scale = ColumnScale(ScoreRange(0.0, 1.0), () if is_group else (0.0, 1.0), is_group)
            yield Column(name, scale, places, shares, total)


def _require_levels(levels: tuple[str, ...]) -> None:
    wanted = FIVE_LEVELS.num_levels
    if len(levels) != wanted or len(set(levels)) != wanted:
        raise ValueError(f"levels must be {wanted} distinct words, worst to best, not {levels}")
    if any(word != word.strip() for word in levels):
        raise ValueError(f"levels must have no white space around them: {levels}")
