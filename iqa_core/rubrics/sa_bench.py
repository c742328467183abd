"""SA-BENCH's own JSONL annotation lines -> the rubric whose exact words a checkpoint was trained on.

A line is `{"query": "<image><lighting>…", "response": "The spatial aesthetic lighting quality level of this image is
good.", "images": ["…"]}`; a file `{dimension}_{size}_{split}_prompt{1..4}.jsonl` holds one dimension. arXiv 2512.05098.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.hub import HUB_NAME, fetch_from_hub
from iqa_core.questions import own_scales
from iqa_core.rubrics.rubric import Rubric, RubricDimension

KIND = "sa-bench"
LEVELS = ("bad", "poor", "fair", "good", "excellent")
"""Worst to best, worth 1 to 5."""

IMAGE_TAG = "<image>"
NAME = re.compile(r"[a-z][a-z0-9]*")
FILE = re.compile(rf"(?P<dimension>{NAME.pattern})_\w+_prompt(?P<prompt>[1-9]\d*)\.jsonl")
ANSWER = re.compile(rf"(?P<prefix>.*\S) (?P<level>{'|'.join(LEVELS)})\.?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One example of one dimension."""

    place: str
    """File and line, for messages."""
    system: str | None
    query: str
    """Without the image tag; otherwise to the letter."""
    answer_prefix: str
    """The answer up to the level word."""
    level: int
    """1 (bad) to 5 (excellent)."""
    image: str
    """As the file writes it."""


def rubric_of(place: str, prompt: int) -> Rubric:
    """The questions and the answer of one prompt version, the same in every line of a dimension; dimensions by name.

    place: the folder of the data set, or its `annotations`; else the hub id of a data set, of which only the JSONL
    files of this prompt version are fetched.
    Raises CallerError when there are no such files, or when two lines of a dimension ask or answer in other words; the
    message has the file, the line and both texts.
    """
    files = _files(annotation_folder(place, f"*_prompt{prompt}.jsonl"), prompt)
    first = {dimension: _same_in_all(paths) for dimension, paths in files.items()}
    _require_equal("system prompt", {line.place: line.system for line in first.values()})
    templates = {line.place: _template(line, dimension) for dimension, line in first.items()}
    _require_equal("answer", templates)
    return Rubric(
        id=f"{KIND}-prompt{prompt}",
        domain="Interior rooms, generated or photographed.",
        prompt_version=prompt,
        description=f"Questions and answers of SA-BENCH (arXiv 2512.05098), prompt version {prompt}, word for word.",
        system=next(iter(first.values())).system,
        answer_prefix=next(iter(templates.values())),
        levels=LEVELS,
        dimensions=tuple(RubricDimension(name=name, query=line.query) for name, line in first.items()),
    )


def annotation_folder(place: str, wanted: str) -> Path:
    """The folder of annotation files, local or fetched.

    wanted: which files to fetch where `place` is a hub id. Raises CallerError when there is no such folder.
    """
    folder = Path(place).expanduser()
    if place and folder.is_dir():
        inner = folder / "annotations"
        return inner if inner.is_dir() else folder
    name = HUB_NAME.fullmatch(place)
    if name is None or name["folder"]:
        raise CallerError(f"{KIND}:{place}: neither a local folder nor the hub id of a data set (org/name)")
    try:
        return fetch_from_hub(place, "dataset", [f"annotations/{wanted}"]) / "annotations"
    except OSError as error:
        raise CallerError(f"{KIND}:{place} is no local folder, and {error}") from None


def prompt_lines(path: Path) -> Iterator[PromptLine]:
    """The examples of one file. Raises CallerError that names the first line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also cut at U+2028 inside a text
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _prompt_line(line, f"{path}, line {number}")


def prompt_line(rubric: Rubric, dimension: RubricDimension, level: int, image: str) -> str:
    """One line of a JSONL file, without its end; the inverse of `prompt_lines`. level: 1 (bad) to 5 (excellent)."""
    content = {
        "query": f"{IMAGE_TAG}{dimension.query}",
        "response": f"{rubric.answer_start(dimension)} {rubric.levels[level - 1]}.",
        "images": [image],
    }
    return json.dumps(content | ({"system": rubric.system} if rubric.system else {}), ensure_ascii=False)


def require_expressible(rubric: Rubric) -> None:
    """Raises CallerError when `rubric_of` would not read the same words again from lines of this rubric."""
    if own_scales(rubric.columns) or rubric.slots:
        raise CallerError(f"rubric {rubric.id} has answers or slots of its own, which SA-BENCH's lines do not have")
    if rubric.levels != LEVELS:
        raise CallerError(f"rubric {rubric.id} answers with {', '.join(rubric.levels)}; SA-BENCH's are {LEVELS}")
    for dimension in rubric.dimensions:
        place = f"rubric {rubric.id}, {dimension.name}"
        if not NAME.fullmatch(dimension.name):
            raise CallerError(f"{place}: names of SA-BENCH's files hold a dimension of letters and digits only")
        line = _prompt_line(prompt_line(rubric, dimension, 1, "x.jpg"), place)
        written = (rubric.system, dimension.query, rubric.answer_prefix)
        if (line.system, line.query, _template(line, dimension.name)) != written:
            raise CallerError(f"{place}: SA-BENCH's lines cannot tell what in them is the dimension's name or is empty")


def _files(folder: Path, prompt: int) -> dict[str, list[Path]]:
    """Dimension -> its files of this prompt version, sorted."""
    there = {path: name for path in sorted(folder.glob("*.jsonl")) if (name := FILE.fullmatch(path.name))}
    found: dict[str, list[Path]] = {}
    for path, name in there.items():
        if int(name["prompt"]) == prompt:
            found.setdefault(name["dimension"], []).append(path)
    if not found:
        versions = ", ".join(sorted({name["prompt"] for name in there.values()})) or "none"
        raise CallerError(
            f"{folder} has no annotations of prompt version {prompt} (files <dimension>_*_prompt{prompt}.jsonl); "
            f"versions there: {versions}"
        )
    return found


def _prompt_line(text: str, place: str) -> PromptLine:
    try:
        content = json.loads(text)
        query, response, images = content["query"], content["response"], content["images"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CallerError(f"{place}: no JSON object with query, response and images ({error})") from None
    system = content.get("system") or None
    answer = ANSWER.fullmatch(response) if isinstance(response, str) else None
    if answer is None:
        raise CallerError(f"{place}: the response {response!r} does not end with one of {', '.join(LEVELS)}")
    if not isinstance(query, str) or not query.startswith(IMAGE_TAG) or query.count(IMAGE_TAG) != 1:
        raise CallerError(f"{place}: the query {query!r} does not begin with {IMAGE_TAG}, once")
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], str):
        raise CallerError(f"{place}: images is {images!r}; a list of one path is wanted")
    if system is not None and not isinstance(system, str):
        raise CallerError(f"{place}: the system prompt {system!r} is no text")
    level = LEVELS.index(answer["level"]) + 1
    return PromptLine(place, system, query.removeprefix(IMAGE_TAG), answer["prefix"], level, images[0])


def _same_in_all(paths: list[Path]) -> PromptLine:
    """The first line of a dimension, once all others have been found to say the same."""
    first: PromptLine | None = None
    for line in (line for path in paths for line in prompt_lines(path)):
        first = first or line
        for what, texts in {
            "query": (first.query, line.query),
            "answer": (first.answer_prefix, line.answer_prefix),
            "system prompt": (first.system, line.system),
        }.items():
            _require_equal(what, dict(zip((first.place, line.place), texts, strict=True)))
    if first is None:
        raise CallerError(f"{', '.join(map(str, paths))}: no lines")
    return first


def _require_equal(what: str, texts: dict[str, str | None] | dict[str, str]) -> None:
    """texts: file and line -> what stands there."""
    (first, expected), *others = texts.items()
    for place, found in others:
        if found != expected:
            raise CallerError(
                f"the {what} is not the same everywhere, so it cannot be told which one a model was trained on: "
                f"{place} has {found!r}, but {first} has {expected!r}"
            )


def _template(line: PromptLine, dimension: str) -> str:
    """The answer prefix with a placeholder for the dimension's name."""
    escaped = line.answer_prefix.replace("{", "{{").replace("}", "}}")
    return escaped.replace(dimension, "{dimension}")
