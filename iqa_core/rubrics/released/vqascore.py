"""A checkout of VQAScore's code (t2v_metrics) -> a rubric with its question about a prompt, and its answer.

Each model has a module of its own, whose words are constants or defaults of its functions; they differ from model to
model. The words of CLIP-FlanT5, which its paper recommends, stand in the README too. Only the answer that is counted is
there: its opposite is ours. Picture and question stand side by side where the module makes each a part of a message.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.reading import ReleasedWords
from iqa_core.rubrics.released.source import Quote, Source, agreed, is_there, places, python_blocks, python_file

MODELS = "t2v_metrics/models/vqascore_models"
SUFFIX = "_model.py"
RECOMMENDED = "clip_t5"
PAGE = "README.md"
MAX_ENTRIES = 1000
"""Files that are looked at for the names of models; there are fewer than 100."""

OPPOSITES = {"Yes": "No", "yes": "no"}
SLOT = "{prompt}"


def read_vqascore(folder: Path, model: str = RECOMMENDED) -> ReleasedWords:
    """The rubric of one model: `qwen3vl` has its words in `qwen3vl_model.py`.

    Raises CallerError when there is no such model, when the words are not where they were, or when two places do not
    say the same.
    """
    models = _models(folder)
    if model not in models:
        raise CallerError(f"{folder / MODELS} has no {model}{SUFFIX}; models there: {', '.join(models) or 'none'}")
    blocks = [python_file(folder, f"{MODELS}/{model}{SUFFIX}")]
    if model == RECOMMENDED and is_there(folder, PAGE):
        blocks += python_blocks(folder, PAGE)
    questions, answers = (_quotes(blocks, f"{what}_template") for what in ("question", "answer"))
    answer = agreed("answer", answers)
    if answer.value not in OPPOSITES:
        raise CallerError(f"{answer.place} counts the answer {answer.value!r}; the opposite of Yes alone is known")
    return _reading(model, _query(agreed("question", questions)), answer.value, questions, answers, _parts(blocks[0]))


def _models(folder: Path) -> list[str]:
    try:
        with os.scandir(folder / MODELS) as entries:
            names = [entry.name for entry in islice(entries, MAX_ENTRIES)]
    except OSError:
        return []
    return sorted(name.removesuffix(SUFFIX) for name in names if re.fullmatch(r"\w+_model\.py", name))


def _quotes(blocks: Sequence[Source], template: str) -> list[Quote[str]]:
    """The texts of a template: constants of the first block, defaults of its functions, constants of the others."""
    code, constant = blocks[0], f"default_{template}"
    defaults = [code.resolved(node) for node in _defaults(code, template)]
    found = dict.fromkeys(code.text(node) for node in [*code.values.get(constant, ()), *defaults])
    if not found:
        raise CallerError(f"{code.file} has no {template}, as a constant or a default: it is not where it was")
    return [*found, *(page.text(node) for page in blocks[1:] for node in page.values.get(constant, ()))]


def _defaults(code: Source, parameter: str) -> Iterator[ast.expr]:
    for node in code.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            last = [*given.posonlyargs, *given.args][-len(given.defaults) :] if given.defaults else []
            named = zip([*last, *given.kwonlyargs], [*given.defaults, *given.kw_defaults], strict=True)
            yield from (value for name, value in named if name.arg == parameter and value is not None)


def _parts(code: Source) -> list[Quote[str]]:
    """Lists that end in `{"type": "text", "text": question}`; none where the module writes the image's token itself."""
    written = {node.value for node in code.nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {node.id for node in code.nodes if isinstance(node, ast.Name)}
    if "DEFAULT_IMAGE_TOKEN" in names or any("<image>" in one for one in written):
        return []
    lists = [node for node in code.nodes if isinstance(node, ast.List) and node.elts]
    return [code.quote("", node) for node in lists if _is_question(node.elts[-1])]


def _is_question(node: ast.expr) -> bool:
    if not isinstance(node, ast.Dict):
        return False
    entries = {
        key.value: value for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)
    }
    return isinstance(entries.get("text"), ast.Name)


def _query(question: Quote[str]) -> str:
    """The template with our slot in place of its `{}`. Raises CallerError unless that is there once, and no other."""
    query = question.value.replace("{}", SLOT)
    if question.value.count("{}") != 1 or {"{", "}"} & set(query.replace(SLOT, "")):
        raise CallerError(f"{question.place}: the question {question.value!r} has not just one {{}} for the prompt")
    return query


def _reading(
    model: str,
    query: str,
    answer: str,
    questions: Sequence[Quote[str]],
    answers: Sequence[Quote[str]],
    parts: Sequence[Quote[str]],
) -> ReleasedWords:
    opposite = OPPOSITES[answer]
    asked = {"name": "vqascore", "query": query, "answer_prefix": "", "answers": {opposite: 0, answer: 1}}
    content = {
        "id": f"vqascore-{model.replace('_', '-')}",
        "domain": "Any generated image, with the prompt that it was made from.",
        "prompt_version": 1,
        "description": f"VQAScore's own question and answer, as it asks {model}; 1 says that the prompt is shown.",
        "slots": ["prompt"],
        **({"between": ""} if parts else {}),
        "dimensions": [asked],
    }
    sources = {"question": questions, f"answer {answer}": answers, "picture and question": parts}
    notes = [f"the answer {opposite} is ours: VQAScore counts {answer} among all tokens, here it is one of two"]
    if not parts:
        notes.append(
            "the module joins picture and question itself, which is not read: here a line break is between them"
        )
    return ReleasedWords(
        content, tuple((what, places(quotes)) for what, quotes in sources.items() if quotes), tuple(notes)
    )
