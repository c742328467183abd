"""Messages and calls in a file's syntax: which turns are of one image and one text, and how a text is put together."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.source import Source, python_file
from iqa_core.rubrics.released.turns import asked_text, order, user_turns


def source(folder: Path, text: str) -> Source:
    (folder / "a.py").write_text(text, encoding="utf-8")
    return python_file(folder, "a.py")


def expression(folder: Path, before: str, text: str) -> tuple[Source, ast.expr]:
    """A file, and what it assigns to x."""
    file = source(folder, f"{before}\nx = {text}\n")
    return file, file.assigned_once("x")


@pytest.mark.parametrize(
    "content",
    [
        '[{"type": "image"}]',
        '[{"type": "image"}, {"type": "image"}, {"type": "text", "text": x}]',
        '[*images, {"type": "text", "text": x}]',
        '[{"type": "video"}, {"type": "text", "text": x}]',
        '[{"type": "image"}, {"type": "text"}]',
        "turns",
    ],
)
def test_other_turns_are_left_out(content: str, tmp_path: Path) -> None:
    file = source(tmp_path, f'[{{"role": "user", "content": {content}}}]')
    assert user_turns(file) == []
    with pytest.raises(CallerError, match=r"a.py has no user's turn of one image and one text"):
        order(file, [])


def test_two_orders_in_one_file(tmp_path: Path) -> None:
    image, text = '{"type": "image"}', '{"type": "text", "text": x}'
    file = source(
        tmp_path, "\n".join(f'{{"role": "user", "content": [{a}, {b}]}}' for a, b in [(image, text), (text, image)])
    )
    with pytest.raises(CallerError, match=r"order of image and text is not the same everywhere.*line 1.*line 2"):
        order(file, user_turns(file))


@pytest.mark.parametrize("text", ['"How?"', "Q", "T.format(Word=W)", '"{W}?".format(W=W)'])
def test_a_text_and_how_it_is_put_together(text: str, tmp_path: Path) -> None:
    found = asked_text(*expression(tmp_path, 'Q, T, W = "How?", "{Word}?", "How"', text))
    assert found is not None
    assert found.value == "How?"


def test_a_parameter_is_no_text(tmp_path: Path) -> None:
    assert asked_text(*expression(tmp_path, "", "prompt")) is None


@pytest.mark.parametrize(
    "text", ["T.format(W)", "T.format(Word=W, Other=W)", "T.upper()", "T.format(Other=W)", "T + W"]
)
def test_a_text_that_is_made_otherwise(text: str, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=r"a.py, line"):
        asked_text(*expression(tmp_path, 'T, W = "{Word}?", "How"', text))
