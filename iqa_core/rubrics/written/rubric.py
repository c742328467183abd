"""What a written rubric is: a question that a model answers in its own words, the answer's grammar, and its numbers.

`form` says how an answer is parsed, `columns` what becomes of its numbers: each is brought to 1 (worst) to 5 (best).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from iqa_core.questions import LEVELS, Column, placeholders, replaced
from iqa_core.records import RATING, ScoreRange
from iqa_core.rubrics.base import BaseRubric, ColumnName, Model, Text
from iqa_core.rubrics.written.decoding import Decoding
from iqa_core.written.form import ANSWERING, LABELLED, THINKING, Attribute, Form, Grammar

OVERALL = "quality"
"""Column of the overall number, which is the reward unless weights say otherwise."""

RESERVED_PREFIX = "written_"
"""Of the columns that only written outputs have."""

QUESTION = "question"
"""Slot of a free question."""

MAX_ATTRIBUTES = 32
LARGEST = 1000
"""Number that an answer may have to say at most."""

Part = Literal["image", "text"]
TemplateValue = bool | int | str

RESERVED_ARGUMENTS = frozenset(
    "conversation messages tools documents chat_template tokenize add_generation_prompt continue_final_message "
    "return_tensors return_dict padding truncation".split()
)
"""Arguments of a chat template that the program itself gives, or that change what it gets back."""


def _attribute_name(name: str) -> str:
    if name.startswith(RESERVED_PREFIX):
        raise ValueError(f"{name!r}: columns of written answers begin with {RESERVED_PREFIX}; choose another name")
    return name


def _label(label: str) -> str:
    if label != label.strip() or not label.isprintable() or set(label) & set('<>:,"\\'):
        raise ValueError(f'{label!r} must be printable, without <>:,"\\ and without white space around it')
    return label


def _keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(keys)) != len(keys):
        raise ValueError(f"keys must differ: {keys}")
    return keys


def _argument(name: str) -> str:
    if not name.isidentifier() or name in RESERVED_ARGUMENTS:
        raise ValueError(f"{name!r} is no argument of a chat template, or one that the program gives")
    return name


Label = Annotated[Text, AfterValidator(_label)]


class WrittenAttribute(Model):
    """A number that an answer says."""

    name: Annotated[ColumnName, AfterValidator(_attribute_name)]
    """Column of the score table; the overall number is called `quality`."""
    label: Label | None = None
    """What stands before it in the answer; the key, in JSON. None where the grammar has one number without a label."""
    worst: float = Field(default=RATING.worst, ge=0, le=LARGEST)
    """The end of the range that is worst; above `best` where less is better."""
    best: float = Field(default=RATING.best, ge=0, le=LARGEST)
    """The end of the range that is best."""
    decimals: int = Field(default=2, ge=0, le=4)
    """Digits behind the point, at most."""
    weight: float | None = Field(default=None, ge=0, le=1e6)
    """How much it counts in the reward, until weights are fitted; None: 1 for `quality`, and 0 for others."""
    description: str = ""
    """One sentence for people; not shown to the model."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.worst == self.best:
            raise ValueError(f"worst and best of {self.name} are both {self.best:g}")
        if any(round(end, self.decimals) != end for end in (self.worst, self.best)):
            raise ValueError(
                f"worst and best of {self.name} have more than {self.decimals} decimals: none could say them"
            )
        return self

    @property
    def counts(self) -> float:
        """Its weight in the reward."""
        return float(self.name == OVERALL) if self.weight is None else self.weight

    @property
    def form(self) -> Attribute:
        """What parsing needs to know of it."""
        return Attribute(self.name, self.label or "", ScoreRange(self.worst, self.best), self.decimals)


class Output(Model):
    """The grammar of an answer."""

    grammar: Grammar
    thought: Literal["think", "thinking", "none"] | None = None
    """Tag around the thought that comes first; `think` by default, and `none` where there is no thought."""
    reasoning: Annotated[tuple[Label, ...], Field(max_length=MAX_ATTRIBUTES), AfterValidator(_keys)] = ()
    """In `json`: keys of the texts in the object called `reasoning`."""
    quoted: bool = False
    """In JSON: whether numbers are strings."""
    last_answer: bool = False
    """Lenient: where there are several `<answer>`, the last one counts."""
    strip_prefix: bool = False
    """Lenient: an empty `<think></think>` before the answer is taken off."""

    @property
    def thought_tag(self) -> str | None:
        """Tag of the thought; None where there is none."""
        if self.grammar not in THINKING or self.thought == "none":
            return None
        return self.thought or "think"

    @model_validator(mode="after")
    def _none_is_ignored(self) -> Self:
        is_json = self.grammar in {Grammar.JSON, Grammar.TAGGED_JSON}
        for name, is_used in {
            "thought": self.grammar in THINKING,
            "reasoning": self.grammar is Grammar.JSON,
            "quoted": is_json,
            "last_answer": self.grammar in ANSWERING,
        }.items():
            if getattr(self, name) and not is_used:
                raise ValueError(f"{name} would be ignored by the grammar {self.grammar}; leave it out")
        if self.strip_prefix and self.thought_tag == "think":
            raise ValueError("strip_prefix takes off an empty <think>, which this answer begins with; leave it out")
        return self


def _words(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        if not word.isalnum() or word != word.lower():
            raise ValueError(f"{word!r} is no single word in lower case")
    return words


Words = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_words)]


class Opposites(Model):
    """Words by which a text says one thing or the opposite, such as sharp and blurry."""

    name: Text
    """What they are about, for people."""
    one: Words
    """Words of one side, with all their forms."""
    other: Words
    """Words of the other side."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if both := sorted(set(self.one) & set(self.other)):
            raise ValueError(f"{', '.join(both)} cannot be on both sides of {self.name}")
        return self


class WrittenRubric(BaseRubric):
    """A question about an image that is answered in words and numbers."""

    kind: Literal["written"]
    parts: tuple[Part, ...] = ("image", "text")
    """Order of image and question in the turn."""
    template: dict[Annotated[str, AfterValidator(_argument)], TemplateValue] = Field(default_factory=dict)
    """Arguments of the chat template, such as `add_vision_id = true`."""
    question: Text
    """What the model is asked, verbatim but for slots; it says in which form to answer."""
    output: Output
    attributes: Annotated[tuple[WrittenAttribute, ...], Field(min_length=1, max_length=MAX_ATTRIBUTES)]
    decoding: Decoding = Decoding()
    opposites: tuple[Opposites, ...] = ()
    """For evaluation alone: what a text must not say where people say the opposite. Not shown to the model."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if sorted(self.parts) != ["image", "text"]:
            raise ValueError(f'parts are "image" and "text" in some order, not {list(self.parts)}')
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"attribute names must differ: {self.names}")
        if len({one.name for one in self.opposites}) != len(self.opposites):
            raise ValueError(f"names of opposites must differ: {[one.name for one in self.opposites]}")
        if not any(attribute.counts for attribute in self.attributes):
            raise ValueError(f"nothing counts in the reward: call an attribute {OVERALL}, or give a weight")
        self._check_slots(set(placeholders(self.question)), not self.slots and "slots" in self.model_fields_set)
        return self

    @model_validator(mode="after")
    def _labelled(self) -> Self:
        labels = [attribute.label for attribute in self.attributes if attribute.label is not None]
        if self.output.grammar in LABELLED:
            if len(set(labels)) != len(self.attributes):
                raise ValueError(
                    f"the grammar {self.output.grammar} needs a label for each attribute, none of them twice"
                )
            if self.output.reasoning and "reasoning" in labels:
                raise ValueError('label "reasoning" is the key of the texts; choose another label')
        elif labels or len(self.attributes) > 1:
            raise ValueError(f"the grammar {self.output.grammar} has one number without a label: give one attribute")
        return self

    @property
    def asked_texts(self) -> tuple[tuple[str, str], ...]:
        """See `BaseRubric.asked_texts`; a written answer has no given beginning."""
        return ((self.question, ""),)

    @property
    def free(self) -> WrittenRubric:
        """The rubric with any question in the slot QUESTION instead of its own, behind the image, answered greedily.

        For its prompt and decoding: an answer to it has no form.
        """
        own = self.decoding
        return self.model_copy(
            update={
                "question": f"{{{QUESTION}}}",
                "slots": (QUESTION,),
                "parts": ("image", "text"),
                "decoding": Decoding(max_new_tokens=own.max_new_tokens, suppress_image=own.suppress_image),
            }
        )

    def asked(self, texts: Mapping[str, str]) -> str:
        """The question about an image with these texts, slot -> text."""
        return replaced(self.question, {slot: texts[slot] for slot in self.slots})

    @cached_property
    def form(self) -> Form:
        """How an answer is parsed."""
        output = self.output
        return Form(
            grammar=output.grammar,
            attributes=tuple(attribute.form for attribute in self.attributes),
            thought=output.thought_tag,
            reasoning=output.reasoning,
            is_quoted=output.quoted,
            last_answer=output.last_answer,
            strip_prefix=output.strip_prefix,
        )

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """One per attribute, from 1 (worst) to 5 (best), whatever range it is said in."""
        return tuple(Column(one.name, LEVELS, (), (), one.counts) for one in self.attributes)

    def _content(self) -> dict[str, Any]:
        """Decoding is not part of it: it stands in the fingerprint by itself. Opposites never reach the model."""
        return {
            "kind": self.kind,
            "system": self.system,
            "slots": self.slots,
            "parts": self.parts,
            "template": self.template,
            "question": self.question,
            "output": {**self.output.model_dump(mode="json"), "thought": self.output.thought_tag},
            "attributes": [(one.name, one.label, one.worst, one.best, one.decimals) for one in self.attributes],
        }
