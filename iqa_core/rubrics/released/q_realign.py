"""A checkout of Q-ReAlign, or the folder of one of its models -> a rubric in the words that it is asked in.

The checkout has the questions and the beginnings of answers in qalign/prompts.py, the five words and their worths in
qalign/levels.py, says in two modules which question of several is asked, and joins them in qalign/scorer.py; its
README.md shows an example. A model's folder has that example alone, in its card (README.md), about quality. Questions
about videos are left out.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.reading import ReleasedWords
from iqa_core.rubrics.released.source import (
    Quote,
    Source,
    agreed,
    is_there,
    places,
    python_blocks,
    python_file,
    summands,
    together,
)

TASKS = {"quality": "iqa", "aesthetics": "iaa"}
"""Our dimension -> Q-ReAlign's task."""

CODE = "qalign"
CARD = "README.md"
ASKING = (f"{CODE}/infer.py", f"{CODE}/datasets.py")
"""Modules that pick the question to ask, of those that training draws from."""
SCORER = f"{CODE}/scorer.py"
"""Module that joins picture, question and beginning of the answer."""
IMAGE = "<image>"
PICKED = "number of the question that is asked"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Words and worths, best to worst."""

    words: Quote[tuple[str, ...]]
    worths: Quote[tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class _Task:
    """One dimension, as the code or the card asks for it."""

    name: str
    query: Quote[str]
    start: Quote[str]
    """Beginning of the answer."""
    others: tuple[Quote[str], ...] = ()
    """Other wordings of the query."""


@dataclass(frozen=True, slots=True)
class _Joints:
    """Text between what is asked with."""

    between: str
    """Between picture and question."""
    lead: str
    """Before the beginning of the answer."""


def read_q_realign(folder: Path) -> ReleasedWords:
    """The rubric of a checkout or of a model's folder.

    Raises CallerError when the words are not where they were, or when two places do not say the same.
    """
    card = _card(folder) if is_there(folder, CARD) else None
    if is_there(folder, CODE):
        return _of_code(folder, card)
    if card is None:
        raise CallerError(f"{folder} has neither Q-ReAlign's code ({CODE}/) nor a model card ({CARD}) with its example")
    task, scale = card
    content = _content("q-realign-card", [task], scale, _Joints(between="", lead=""))
    return ReleasedWords(content, (*_sources(task), *_scale_sources(scale)), ())


def _of_code(folder: Path, card: tuple[_Task, _Scale] | None) -> ReleasedWords:
    prompts, levels = (python_file(folder, f"{CODE}/{name}.py") for name in ("prompts", "levels"))
    scale = _scale(levels, "DEFAULT_NAMES", "DEFAULT_WEIGHTS")
    indices = [index for name in ASKING for index in _indices(python_file(folder, name))]
    picked = agreed(PICKED, indices)
    tasks = [_task(prompts, name, picked) for name in TASKS]
    joining = python_file(folder, SCORER)
    between, lead = _put_before(joining, "prompt"), _put_before(joining, "stem")
    notes = () if card is None else _held_against(card, tasks[0], scale, lead)
    sources = (*(source for task in tasks for source in _sources(task)), *_scale_sources(scale))
    joints = (("picture and question", between.place), ("before the answer prefix", lead.place))
    content = _content("q-realign", tasks, scale, _Joints(between.value, lead.value))
    return ReleasedWords(content, (*sources, (PICKED, places(indices)), *joints), notes)


def _task(prompts: Source, name: str, picked: Quote[float]) -> _Task:
    pool = prompts.texts(prompts.entry(prompts.assigned_once("PROMPTS"), TASKS[name]))
    start = prompts.text(prompts.entry(prompts.assigned_once("STEMS"), TASKS[name]))
    if picked.value not in range(len(pool)):
        raise CallerError(f"{picked.place} picks question {picked.value} of {TASKS[name]}, which has {len(pool)}")
    query = pool[int(picked.value)]
    others = {quote.value: quote for quote in pool if quote.value != query.value}
    return _Task(name, query, start, tuple(others.values()))


def _indices(source: Source) -> list[Quote[float]]:
    """The n of each `….prompts[n]`. Raises CallerError where there is none."""
    found = [
        source.number(node.slice)
        for node in source.nodes
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "prompts"
    ]
    if not found:
        raise CallerError(f"{source.file} picks no question by its number any more, so which one is asked is not known")
    return found


def _put_before(source: Source, key: str) -> Quote[str]:
    """The text before the value of a key: the x of `"<image>" * n + x + record[key]`, which may be empty.

    Raises CallerError where there is no such sum, or where two say otherwise.
    """
    found = [
        source.quote("".join(source.text(part).value for part in parts[:-1] if not _is_image(part)), node)
        for node in source.nodes
        if isinstance(node, ast.BinOp) and _is_entry((parts := summands(node))[-1], key)
    ]
    if not found:
        raise CallerError(f"{source.file} puts nothing before its {key} any more, so what stands there is not known")
    return agreed(f"text before the {key}", found)


def _is_image(node: ast.expr) -> bool:
    """Whether it is `"<image>" * n`."""
    return isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant) and node.left.value == IMAGE


def _is_entry(node: ast.expr, key: str) -> bool:
    """Whether it is `record[key]`, with white space taken off or not."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "strip":
        node = node.func.value
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == key


def _scale(source: Source, words: str, worths: str) -> _Scale:
    """words, worths: names that the lists are assigned to."""
    its_words, its_worths = source.texts(source.assigned_once(words)), source.numbers(source.assigned_once(worths))
    if not len({word.value for word in its_words}) == len(its_words) == len(its_worths) > 0:
        raise CallerError(
            f"{source.file} has {len(its_words)} words in {words} and {len(its_worths)} numbers in {worths}; it had as "
            "many of both, and no word twice"
        )
    return _Scale(together(its_words), together(its_worths))


def _card(folder: Path) -> tuple[_Task, _Scale] | None:
    """The example that the page shows, if there is one."""
    blocks = [block for block in python_blocks(folder, CARD) if "LEVELS" in block.values]
    if len(blocks) > 1:
        raise CallerError(f"{CARD} has {len(blocks)} blocks of Python with LEVELS; it had one, its example")
    for block in blocks:
        task = _Task("quality", _shown(block, "question", _asked), _shown(block, "beginning of the answer", _begun))
        return task, _scale(block, "LEVELS", "WEIGHTS")
    return None


def _asked(node: ast.AST) -> Iterator[ast.expr]:
    """The x of `{…, "text": x}`, which is a part of the user's turn."""
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "text":
                yield value


def _begun(node: ast.AST) -> Iterator[ast.expr]:
    """The x of `….apply_chat_template(…) + x`."""
    called = node.left.func if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Call) else None
    if isinstance(node, ast.BinOp) and isinstance(called, ast.Attribute) and called.attr == "apply_chat_template":
        yield node.right


def _shown(block: Source, what: str, part: Callable[[ast.AST], Iterator[ast.expr]]) -> Quote[str]:
    found = [block.text(block.resolved(expression)) for node in block.nodes for expression in part(node)]
    if not found:
        raise CallerError(f"{block.file} shows no {what} in its example any more: the words are not where they were")
    return agreed(what, found)


def _held_against(card: tuple[_Task, _Scale], quality: _Task, scale: _Scale, lead: Quote[str]) -> tuple[str, ...]:
    """What the page says otherwise, as a note. Raises CallerError where it contradicts the code."""
    shown, its_scale = card
    agreed("beginning of the answer", [quality.start, shown.start])
    agreed("list of answers", [scale.words, its_scale.words])
    agreed("list of their worths", [scale.worths, its_scale.worths])
    notes = []
    if lead.value:
        notes.append(f"{lead.place}, puts {lead.value!r} before the answer prefix, and the example in {CARD} nothing")
    if shown.query.value == quality.query.value:
        return tuple(notes)
    if shown.query.value not in {quote.value for quote in quality.others}:
        raise CallerError(
            f"{shown.query.place} asks {shown.query.value!r}, which is none of the questions in {quality.query.file}"
        )
    return (*notes, f"{shown.query.place}, asks another question of the same list, which is a paraphrase here")


def _content(id: str, tasks: Sequence[_Task], scale: _Scale, joints: _Joints) -> dict[str, Any]:
    worst_first = sorted(zip(scale.worths.value, scale.words.value, strict=True))
    answers = {word: worth for worth, word in worst_first}
    return {
        "id": id,
        "domain": "Any photograph or generated image.",
        "prompt_version": 1,
        "description": "Q-ReAlign's own questions and answers; its scale, from 0 (worst) to 1 (best).",
        "between": joints.between,
        "dimensions": [_dimension(task, answers, joints.lead) for task in tasks],
    }


def _dimension(task: _Task, answers: dict[str, float], lead: str) -> dict[str, Any]:
    others = {"paraphrases": [quote.value for quote in task.others]} if task.others else {}
    start = (lead + task.start.value).replace("{", "{{").replace("}", "}}")
    return {"name": task.name, "query": task.query.value, **others, "answer_prefix": start, "answers": answers}


def _sources(task: _Task) -> Iterator[tuple[str, str]]:
    yield f"{task.name}, question", task.query.place
    if task.others:
        yield f"{task.name}, paraphrases", together(task.others).place
    yield f"{task.name}, answer prefix", task.start.place


def _scale_sources(scale: _Scale) -> Iterator[tuple[str, str]]:
    yield "answers", scale.words.place
    yield "worths", scale.worths.place
