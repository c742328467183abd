"""Messages, calls and flags in somebody's Python -> what is asked, in which order, and how answers are decoded."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.source import Quote, Source, agreed, together

SETTINGS = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
)
"""Numbers by which answers are decoded, named alike in transformers and in a written rubric."""

NO_SETTINGS = frozenset({"generation_config", "use_cache"})
"""Arguments of `generate` that change no text."""

RENDERING = frozenset({"tokenize", "add_generation_prompt"})
"""Arguments of a chat template that the program gives itself."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's turn with one image and one text."""

    parts: Quote[tuple[str, ...]]
    """`image` and `text`, in order."""
    text: ast.expr
    """What stands for the text."""


def user_turns(source: Source) -> list[Turn]:
    """Turns that are literal lists of one image and one text; others, such as those of several images, are left out."""
    found = []
    for content in _contents(source, "user"):
        parts = content.elts if isinstance(content, ast.List) else []
        kinds = tuple(_constant(_entry(part, "type")) for part in parts)
        if sorted(map(str, kinds)) == ["image", "text"]:
            text = _entry(parts[kinds.index("text")], "text")
            if text is not None:
                found.append(Turn(source.quote(tuple(map(str, kinds)), content), text))
    return found


def order(source: Source, turns: Sequence[Turn]) -> Quote[tuple[str, ...]]:
    """Order of image and text. Raises CallerError where there is no turn, or where two have them otherwise."""
    if not turns:
        raise CallerError(
            f"{source.file} has no user's turn of one image and one text any more, so their order is not known"
        )
    return agreed("order of image and text", [turn.parts for turn in turns])


def has_system_turn(source: Source) -> bool:
    """Whether a system's turn is among its messages."""
    return any(True for _ in _contents(source, "system"))


def asked_text(source: Source, node: ast.expr) -> Quote[str] | None:
    """A literal text, the name of one, or a `template.format(Name=text)` of both.

    None for a name that the file gives no value, such as a parameter. Raises CallerError for anything else.
    """
    if isinstance(node, ast.Name) and node.id not in source.values:
        return None
    if isinstance(node, ast.Call):
        return _filled(source, node)
    return source.text(source.resolved(node))


def call_settings(source: Source) -> dict[str, Quote[float]]:
    """Settings that stand in calls of `generate` and `GenerationConfig`; no temperature where one does not sample.

    Raises CallerError where there is no such call, two say otherwise, or one has a setting that a rubric cannot say.
    """
    arguments = [each for name in ("generate", "GenerationConfig") for each in _keywords(source, name)]
    if not arguments:
        raise CallerError(f"{source.file} calls no generate any more, so how answers are decoded is not known")
    found: dict[str, list[Quote[float]]] = {}
    samples = False
    for name, node in (argument for argument in arguments if argument[0] not in NO_SETTINGS):
        if name == "do_sample":
            samples = source.truth(node).value
        elif name in SETTINGS:
            found.setdefault(name, []).append(source.number(node))
        else:
            raise CallerError(f"{source.place(node)}: {name} is set for decoding, which a written rubric cannot say")
    if not samples:
        raise CallerError(f"{source.file} draws no samples any more (do_sample=True): its decoding is not what it was")
    return {name: agreed(name, quotes) for name, quotes in found.items()}


def template_arguments(source: Source) -> dict[str, Quote[bool]]:
    """Switches that `apply_chat_template` is called with. Raises CallerError where two calls have them otherwise."""
    found: dict[str, list[Quote[bool]]] = {}
    for name, node in _keywords(source, "apply_chat_template"):
        if name not in RENDERING:
            found.setdefault(name, []).append(source.truth(node))
    return {name: agreed(name, quotes) for name, quotes in found.items()}


def flag_defaults(source: Source, names: Sequence[str]) -> dict[str, Quote[float]]:
    """Defaults of flags, from `add_argument("--name", default=…)`. Raises CallerError where one is not there."""
    return {name: source.number(_default(source, name)) for name in names}


def _default(source: Source, name: str) -> ast.expr:
    for node in source.nodes:
        if _is_call(node, "add_argument") and node.args and _constant(node.args[0]) == f"--{name}":
            for keyword in node.keywords:
                if keyword.arg == "default":
                    return keyword.value
    raise CallerError(f"{source.file} has no flag --{name} with a default any more, so how it decodes is not known")


def _contents(source: Source, role: str) -> Iterator[ast.expr]:
    """The x of each `{"role": role, "content": x}`."""
    for node in source.nodes:
        if isinstance(node, ast.Dict) and _constant(_entry(node, "role")) == role:
            content = _entry(node, "content")
            if content is not None:
                yield content


def _filled(source: Source, call: ast.Call) -> Quote[str]:
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "format" or call.args or len(call.keywords) != 1:
        raise CallerError(f"{source.place(call)}: a text is made in a way that is not known; it is not where it was")
    template = source.text(source.resolved(call.func.value))
    slot = f"{{{call.keywords[0].arg}}}"
    text = source.text(source.resolved(call.keywords[0].value))
    if template.value.count(slot) != 1 or {"{", "}"} & set(template.value.replace(slot, "")):
        raise CallerError(f"{template.place}: the text {template.value!r} has not just one {slot}")
    both = together([template, text])
    return Quote(template.value.replace(slot, text.value), source.file, both.first, both.last)


def _keywords(source: Source, function: str) -> Iterator[tuple[str, ast.expr]]:
    for node in source.nodes:
        if _is_call(node, function):
            yield from ((keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg is not None)


def _is_call(node: ast.AST, function: str) -> TypeGuard[ast.Call]:
    """Whether it calls a function or method of this name."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    return function == (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None))


def _entry(node: ast.expr | None, key: str) -> ast.expr | None:
    """The value of a literal dictionary's key, if there is one."""
    if not isinstance(node, ast.Dict):
        return None
    return next((value for name, value in zip(node.keys, node.values, strict=True) if _constant(name) == key), None)


def _constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None
