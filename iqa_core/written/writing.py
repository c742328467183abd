"""Numbers, a caption, a reasoning and a form -> the answer that says them, for training and for trying things out."""

from __future__ import annotations

import json
from collections.abc import Sequence

from iqa_core.written.form import ANSWERING, Form, Grammar
from iqa_core.written.parsing import Unparsed, parsed


def written_as(values: Sequence[float], form: Form, caption: str | None = None, reasoning: str | None = None) -> str:
    """The answer, which parses to the values, each rounded to its attribute's decimals.

    values: one per attribute, in its own range. reasoning: in JSON, a line for each of its texts.
    Raises ValueError for what the form cannot say: a value out of range, a tag in a text, a text too many or too few.
    """
    thought = f"<{form.thought}>{reasoning or ''}</{form.thought}>\n" if form.thought else ""
    body = _perception(values, form, caption, reasoning) if form.grammar is Grammar.PERCEPTION else _body(values, form)
    if form.reasoning:
        texts = dict(zip(form.reasoning, (reasoning or "").split("\n"), strict=True))
        body = f'{{"reasoning": {json.dumps(texts, ensure_ascii=False)}, {body[1:]}'
    text = thought + (f"<answer>{body}</answer>" if form.grammar in ANSWERING else body)
    found = parsed(text, form)
    if isinstance(found, Unparsed):
        raise ValueError(f"{text!r} would not parse: {found.code}")
    if (found.caption or None, found.reasoning or None) != (caption or None, reasoning or None):
        raise ValueError(f"{text!r} has no place for {caption!r} and {reasoning!r}, or white space around them")
    return text


def _perception(values: Sequence[float], form: Form, caption: str | None, reasoning: str | None) -> str:
    texts = f"<caption>{caption or ''}</caption>\n<reasoning>{reasoning or ''}</reasoning>\n"
    return f"{texts}<rating>{_body(values, form)}</rating>"


def _body(values: Sequence[float], form: Form) -> str:
    """The numbers, with their labels where the grammar has any."""
    numbers = [f"{value:.{one.decimals}f}" for value, one in zip(values, form.attributes, strict=True)]
    labels = [attribute.label for attribute in form.attributes]
    if form.grammar is Grammar.ATTRIBUTES:
        return ", ".join(f"{label}: {found}" for label, found in zip(labels, numbers, strict=True))
    if form.grammar in {Grammar.JSON, Grammar.TAGGED_JSON}:
        said = (f'"{found}"' if form.is_quoted else found for found in numbers)
        members = (f'"{label}": {found}' for label, found in zip(labels, said, strict=True))
        return f"{{{', '.join(members)}}}"
    return numbers[0]
