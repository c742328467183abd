"""Somebody's Python file or Markdown page -> literals in it, with their lines; it is parsed and never run or imported.

The folder is not trusted: only regular files inside of it are read, up to MAX_FILE_BYTES each, and what no parser can
read is the caller's error.
"""

from __future__ import annotations

import ast
import os
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from iqa_core.errors import CallerError

T = TypeVar("T")

MAX_FILE_BYTES = 2**17
"""Five times the largest of the files that are read, of 26 kB. The worst that we could write into so much (f-strings)
takes 2 s to parse, the largest tree 200 MB."""

MAX_TEXT = 2000
"""Characters of one text; the longest that is known has 920."""

NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What parsing raises: a null byte and a number of 5,000 digits are ValueError, a thousand brackets the last two."""


@dataclass(frozen=True, slots=True)
class Quote(Generic[T]):
    """What stands in a file, and where."""

    value: T
    file: str
    """Path within the folder, with slashes."""
    first: int
    last: int
    """Lines, counted from 1, the last one included."""

    @property
    def place(self) -> str:
        """Such as `qalign/prompts.py, lines 3-9`."""
        lines = f"line {self.first}" if self.first == self.last else f"lines {self.first}-{self.last}"
        return f"{self.file}, {lines}"


@dataclass(frozen=True, slots=True)
class Source:
    """The syntax of one Python file, or of one block of a page."""

    file: str
    nodes: Sequence[ast.AST]
    """All of its syntax tree."""
    values: Mapping[str, Sequence[ast.expr]]
    """Name -> what is assigned to it, anywhere in the file; `a, b = 1, 2` assigns to both."""
    lines_above: int
    """Lines of the page before the block."""

    def assigned_once(self, name: str) -> ast.expr:
        """The one value of the name. Raises CallerError where it has none or several."""
        found = self.values.get(name, ())
        if len(found) != 1:
            lines = " and ".join(f"on line {self.lines_above + value.lineno}" for value in found[:2]) or "nowhere"
            raise CallerError(
                f"{self.file} assigns to {name} {lines}; it was once, so the words are not where they were"
            )
        return found[0]

    def resolved(self, node: ast.expr) -> ast.expr:
        """What a name stands for, if it is one. Raises CallerError as `assigned_once` does."""
        return self.assigned_once(node.id) if isinstance(node, ast.Name) else node

    def text(self, node: ast.expr) -> Quote[str]:
        """A literal text. Raises CallerError for anything else, and for control characters."""
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            raise CallerError(f"{self.place(node)}: a plain text is expected here; it is not where it was")
        if len(node.value) > MAX_TEXT:
            raise CallerError(f"{self.place(node)}: the text has {len(node.value):,} characters, over {MAX_TEXT:,}")
        if unreadable := [c for c in node.value if unicodedata.category(c)[0] == "C" and c not in "\n\t"]:
            raise CallerError(
                f"{self.place(node)}: the text has the character {unreadable[0]!r}, which nobody can read"
            )
        return self.quote(node.value, node)

    def texts(self, node: ast.expr) -> list[Quote[str]]:
        """A list or tuple of literal texts. Raises CallerError for anything else."""
        return [self.text(element) for element in self._elements(node)]

    def number(self, node: ast.expr) -> Quote[float]:
        """A literal number, not negative. Raises CallerError for anything else."""
        value = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise CallerError(f"{self.place(node)}: a plain number is expected here; it is not where it was")
        return self.quote(value, node)

    def truth(self, node: ast.expr) -> Quote[bool]:
        """A literal True or False. Raises CallerError for anything else."""
        if not isinstance(node, ast.Constant) or not isinstance(node.value, bool):
            raise CallerError(f"{self.place(node)}: a plain True or False is expected here; it is not where it was")
        return self.quote(node.value, node)

    def numbers(self, node: ast.expr) -> list[Quote[float]]:
        """A list or tuple of literal numbers. Raises CallerError for anything else."""
        return [self.number(element) for element in self._elements(node)]

    def entry(self, node: ast.expr, key: str) -> ast.expr:
        """The value of a literal dictionary's key. Raises CallerError where there is none."""
        if isinstance(node, ast.Dict):
            for name, value in zip(node.keys, node.values, strict=True):
                if isinstance(name, ast.Constant) and name.value == key:
                    return value
        raise CallerError(f"{self.place(node)}: no dictionary with the key {key!r}; it is not where it was")

    def quote(self, value: T, node: ast.expr) -> Quote[T]:
        """A value that stands at a node."""
        first, last = node.lineno, node.end_lineno or node.lineno
        return Quote(value, self.file, self.lines_above + first, self.lines_above + last)

    def place(self, node: ast.expr) -> str:
        """File and lines of the node."""
        return self.quote(None, node).place

    def _elements(self, node: ast.expr) -> list[ast.expr]:
        if not isinstance(node, ast.List | ast.Tuple):
            raise CallerError(f"{self.place(node)}: a plain list is expected here; it is not where it was")
        return node.elts


def summands(node: ast.expr) -> list[ast.expr]:
    """The parts that `a + b + c` adds up, in order; the node itself where it is no sum."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*summands(node.left), *summands(node.right)]
    return [node]


def python_file(folder: Path, name: str) -> Source:
    """The syntax of a Python file. name: path within the folder, with slashes. Raises CallerError as `read` does."""
    try:
        return _parsed(name, read(folder, name), 0)
    except NO_PYTHON as error:
        raise CallerError(f"{folder / name} cannot be parsed as Python: {_reason(error)}") from None


def python_blocks(folder: Path, name: str) -> Iterator[Source]:
    """The fenced Python blocks of a Markdown page; a block that is no Python, such as a sketch, is passed over."""
    language, block, above = None, list[str](), 0
    for number, line in enumerate(read(folder, name).split("\n"), start=1):
        if not line.startswith("```"):
            block.append(line)
            continue
        if language == "python" and (source := _block(name, block, above)):
            yield source
        language = line[3:].strip() if language is None else None
        block, above = [], number


def is_there(folder: Path, name: str) -> bool:
    """Whether the folder has something of this name, be it a link to nothing; never an error."""
    return os.path.lexists(folder / name)


def read(folder: Path, name: str) -> str:
    """The text of a file within the folder.

    Raises CallerError where it is not there, is no regular file, leads out of the folder, is larger than MAX_FILE_BYTES
    or is not UTF-8.
    """
    path = folder / name
    try:
        inside, found = folder.resolve(), path.resolve()
        if not found.is_relative_to(inside):
            raise CallerError(
                f"{path} is a link out of the folder, to {str(found)!r}; nothing but the folder's own is read"
            )
        if not found.is_file():
            raise CallerError(f"{path} is not there, or is no file: the words are not where they were")
        with found.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise CallerError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes, so it is not the file that it was")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CallerError(f"{path} is not UTF-8: {error}") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to one another, before Python 3.13
        raise CallerError(f"{path} cannot be read: {error}") from None


def places(quotes: Sequence[Quote[T]]) -> str:
    """All their places, in one text."""
    return "; ".join(quote.place for quote in quotes)


def agreed(what: str, quotes: Sequence[Quote[T]]) -> Quote[T]:
    """The first of the quotes, which must all say the same. Raises CallerError with two places that do not."""
    first, *others = quotes
    for other in others:
        if other.value != first.value:
            raise CallerError(
                f"the {what} is not the same everywhere, so it cannot be told which one holds: {first.place} has "
                f"{first.value!r}, but {other.place} has {other.value!r}"
            )
    return first


def together(quotes: Sequence[Quote[T]]) -> Quote[tuple[T, ...]]:
    """Quotes from one file as one, from the first line to the last."""
    first, last = min(quote.first for quote in quotes), max(quote.last for quote in quotes)
    return Quote(tuple(quote.value for quote in quotes), quotes[0].file, first, last)


def _block(file: str, lines: Sequence[str], above: int) -> Source | None:
    try:
        return _parsed(file, "\n".join(lines), above)
    except NO_PYTHON:
        return None


def _parsed(file: str, text: str, lines_above: int) -> Source:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a `\d` in a text is theirs to mend
        nodes = list(ast.walk(ast.parse(text)))
    values: dict[str, list[ast.expr]] = {}
    for name, value in (assignment for node in nodes for assignment in _assignments(node)):
        values.setdefault(name, []).append(value)
    return Source(file, nodes, values, lines_above)


def _assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        yield from _bound(node.target, node.value)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _bound(target, node.value)


def _bound(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, its_value in zip(target.elts, value.elts, strict=True):
            yield from _bound(one, its_value)


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{error.msg}, line {error.lineno}"
    return str(error) or "nested too deeply"
