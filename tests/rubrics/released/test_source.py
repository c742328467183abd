"""Files of a stranger's folder: their literals with lines, and a clear error for whatever else stands there."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.source import (
    MAX_FILE_BYTES,
    MAX_TEXT,
    agreed,
    places,
    python_blocks,
    python_file,
    together,
)


def test_literals_have_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        '\nA: str = "on\\te"\n(B, C), D = (\n    ["x",\n     "y"], 3), {"k": "v"}\n', encoding="utf-8-sig"
    )
    source = python_file(tmp_path, "a.py")
    one = source.text(source.assigned_once("A"))
    assert (one.value, one.place) == ("on\te", "a.py, line 2")
    both = together(source.texts(source.assigned_once("B")))
    assert (both.value, both.place) == (("x", "y"), "a.py, lines 4-5")
    assert source.number(source.assigned_once("C")).value == 3
    assert source.text(source.entry(source.assigned_once("D"), "k")).value == "v"
    with pytest.raises(CallerError, match=r"a.py, line 2 has 'on\\te', but a.py, line 4 has 'x'"):
        agreed("word", [one, *source.texts(source.assigned_once("B"))])
    assert places([one, one]) == "a.py, line 2; a.py, line 2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("B = 1", "a.py assigns to A nowhere"),
        ("A = 'x'\nif B:\n    A = 'x'", "a.py assigns to A on line 1 and on line 3"),
        ("A = f'{x}'", "a.py, line 1: a plain text is expected"),
        ("A = open('x').read()", "a plain text is expected"),
        ("A = 3", "a plain text is expected"),
        (r"A = 'x\x1b[2J'", r"has the character '\\x1b', which nobody can read"),
        (r"A = 'x\u202e'", r"has the character '\\u202e'"),
        (r"A = '\ud800'", r"has the character '\\ud800'"),
        (f"A = '{'x' * (MAX_TEXT + 1)}'", "the text has 2,001 characters"),
    ],
)
def test_a_text_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(text)
    source = python_file(tmp_path, "a.py")
    with pytest.raises(CallerError, match=said):
        source.text(source.assigned_once("A"))


@pytest.mark.parametrize("text", ["A = [1, True]", "A = [1, 'x']", "A = [-1]", "A = x", "A = {1: 2}", "A = [*x]"])
def test_numbers_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(text)
    source = python_file(tmp_path, "a.py")
    with pytest.raises(CallerError, match=r"a.py, line 1: a plain (number|list) is expected here"):
        source.numbers(source.assigned_once("A"))
    with pytest.raises(CallerError, match="no dictionary with the key 'k'"):
        source.entry(source.assigned_once("A"), "k")


@pytest.mark.parametrize(
    "text",
    [
        b"A = (",
        b"A = '\0'",
        b"(" * MAX_FILE_BYTES,
        b"-" * (MAX_FILE_BYTES - 1) + b"1",
        b"1+" * (MAX_FILE_BYTES // 2 - 1) + b"1",
        b"a" + b".a" * (MAX_FILE_BYTES // 2 - 1),
        b"f" + b"()" * (MAX_FILE_BYTES // 2 - 1),
        b"A = " + b"9" * 5000,
    ],
    ids=["unclosed", "null", "parentheses", "signs", "sum", "attributes", "calls", "digits"],
)
def test_what_cannot_be_parsed(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(text)
    with pytest.raises(CallerError, match=r"a.py cannot be parsed as Python: "):
        python_file(tmp_path, "a.py")
    (tmp_path / "page.md").write_bytes(b"```python\n%b\n```\n```python\nA = 1\n```\n" % text[: MAX_FILE_BYTES - 50])
    assert [block.lines_above for block in python_blocks(tmp_path, "page.md")] == [4]


def test_their_warnings_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("A = '\\d'\nassert (1, 'x')\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "A" in python_file(tmp_path, "a.py").values


def test_blocks_that_are_of_other_languages_or_never_end_are_passed_over(tmp_path: Path) -> None:
    page = "A = 1\n```toml\nA = 2\n```\n```python\nA = 3\n```\n```\n```python\n```\n```python\nA = 4\n"
    (tmp_path / "page.md").write_text(page)
    [block] = python_blocks(tmp_path, "page.md")
    assert block.number(block.assigned_once("A")).place == "page.md, line 6"


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("A = 'secret'")
    inside = tmp_path / "copy"
    (inside / "real").mkdir(parents=True)
    (inside / "real" / "a.py").write_text("A = 'theirs'")
    (inside / "out.py").symlink_to("../secret.py")
    (inside / "out").symlink_to(tmp_path)
    (inside / "gone.py").symlink_to("../nowhere.py")
    for name in ("out.py", "out/secret.py", "gone.py"):
        with pytest.raises(CallerError, match=f"{name} is a link out of the folder, to "):
            python_file(inside, name)
    (inside / "in").symlink_to("real")
    (tmp_path / "linked").symlink_to("copy")
    assert "A" in python_file(tmp_path / "linked", "in/a.py").values


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "latin.py").write_bytes(b"A = '\xff'")
    (tmp_path / "large.py").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    for name, said in {
        "pipe.py": "is not there, or is no file",
        "folder.py": "is not there, or is no file",
        "none.py": "is not there, or is no file",
        "loop.py": "cannot be read",
        "latin.py": "is not UTF-8",
        "large.py": "is larger than 131,072 bytes",
    }.items():
        with pytest.raises(CallerError, match=f"{name} ({said})"):
            python_file(tmp_path, name)
    with (tmp_path / "large.py").open("r+b") as file:
        file.truncate(2**40)  # a hole on disk; reading it whole would take the machine's memory
    with pytest.raises(CallerError, match="is larger than"):
        python_file(tmp_path, "large.py")
