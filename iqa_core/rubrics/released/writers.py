"""Words, form and decoding of a released model that writes -> the reading of a written rubric, all of it explicit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iqa_core.errors import CallerError
from iqa_core.records import RATING
from iqa_core.rubrics.released.reading import ReleasedWords
from iqa_core.rubrics.released.source import Quote, is_there, read
from iqa_core.rubrics.written.decoding import Decoding
from iqa_core.rubrics.written.rubric import OVERALL

GENERATION = "generation_config.json"
"""File of a checkpoint whose settings transformers would mix into those of a call."""

LEAKING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty")
OF_SAMPLING = ("top_k", "top_p", "min_p")
"""Settings without effect at temperature 0."""

NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Writer:
    """What was read of a model that writes a number from 1 to 5."""

    id: str
    description: str
    question: Quote[str]
    parts: Quote[tuple[str, ...]]
    output: Mapping[str, Any]
    """The grammar of its answer, as a written rubric has it."""
    asks_for: tuple[str, ...]
    """Tags and keys of that grammar, which question or system must name."""
    decoding: Mapping[str, Quote[float]]
    system: Quote[str] | None = None
    label: str | None = None
    """Key of the number, in JSON."""
    template: Mapping[str, Quote[bool]] = field(default_factory=dict)
    assumed: Mapping[str, float] = field(default_factory=dict)
    """Settings of decoding that stand nowhere, and what they are then."""
    sources: tuple[tuple[str, str], ...] = ()
    """Of what else was read."""
    notes: tuple[str, ...] = ()


def written_reading(folder: Path, writer: Writer) -> ReleasedWords:
    """The written rubric. Raises CallerError where the words do not ask for what the grammar reads."""
    _check_words(writer)
    decoding, ignored = _decoded(writer)
    label = {} if writer.label is None else {"label": writer.label}
    content = {
        "kind": "written",
        "id": writer.id,
        "domain": "Any photograph or generated image.",
        "prompt_version": 1,
        "description": writer.description,
        **({} if writer.system is None else {"system": writer.system.value}),
        "slots": [],
        "parts": list(writer.parts.value),
        "question": writer.question.value,
        **({"template": {name: one.value for name, one in writer.template.items()}} if writer.template else {}),
        "output": dict(writer.output),
        "decoding": decoding,
        "attributes": [{"name": OVERALL, **label, "worst": RATING.worst, "best": RATING.best, "decimals": 2}],
    }
    notes = (*writer.notes, *_of_system(writer), *_of_decoding(writer, ignored), *_of_checkpoint(folder))
    return ReleasedWords(content, tuple(_sources(writer)), notes)


def _check_words(writer: Writer) -> None:
    words = writer.question.value + (writer.system.value if writer.system else "")
    for marker in writer.asks_for:
        if marker not in words:
            raise CallerError(
                f"{writer.question.place}: neither question nor system names {marker}, which the answer is to have; "
                "the words are not those that they were"
            )
    named = {float(number) for number in NUMBER.findall(words)}
    if named != {RATING.worst, RATING.best}:
        told = ", ".join(f"{number:g}" for number in sorted(named)) or "none"
        raise CallerError(
            f"{writer.question.place}: the words name the numbers {told}, and named {RATING.worst:g} and "
            f"{RATING.best:g}, the ends of the range; they are not those that they were"
        )


def _decoded(writer: Writer) -> tuple[dict[str, Any], list[str]]:
    """All settings, with those not found turned off, and names of those that have no effect at temperature 0."""
    settings = {**writer.assumed, **{name: quote.value for name, quote in writer.decoding.items()}}
    ignored = [] if settings["temperature"] else [name for name in OF_SAMPLING if name in settings]
    effective = {name: value for name, value in settings.items() if name not in ignored}
    return Decoding().model_dump(mode="json") | effective, ignored


def _of_system(writer: Writer) -> Iterator[str]:
    if writer.system is None:
        yield "no system turn is given: what the checkpoint's chat template then puts there is part of the prompt"


def _of_decoding(writer: Writer, ignored: list[str]) -> Iterator[str]:
    for name, value in writer.assumed.items():
        yield f"{name} is set nowhere: {value:g} is transformers' default, where no checkpoint's file says otherwise"
    known = {*writer.decoding, *writer.assumed}
    off = [name for name in LEAKING[1:] if name not in known and (name not in OF_SAMPLING or not ignored)]
    if off:
        yield f"not set where it is asked, and off here: {', '.join(off)}"
    for name in ignored:
        quote = writer.decoding[name]
        yield f"{name} {quote.value:g} ({quote.place}) has no effect at temperature 0 and is left out"


def _of_checkpoint(folder: Path) -> Iterator[str]:
    """What a checkpoint's own file says of decoding, which nothing of ours uses."""
    if not is_there(folder, GENERATION):
        return
    try:
        found = json.loads(read(folder, GENERATION))
    except (ValueError, RecursionError):
        raise CallerError(f"{folder / GENERATION} is not JSON") from None
    if not isinstance(found, dict):
        raise CallerError(f"{folder / GENERATION} is no object of JSON")
    said = [f"{name} {json.dumps(found[name])}" for name in LEAKING if isinstance(found.get(name), int | float)]
    yield f"{GENERATION} says {', '.join(said) or 'nothing of decoding'}: noted here, and never used"


def _sources(writer: Writer) -> Iterator[tuple[str, str]]:
    if writer.system is not None:
        yield "system", writer.system.place
    yield "question", writer.question.place
    yield "order of image and text", writer.parts.place
    yield from ((f"template, {name}", quote.place) for name, quote in writer.template.items())
    yield from ((f"decoding, {name}", quote.place) for name, quote in writer.decoding.items())
    yield from writer.sources
