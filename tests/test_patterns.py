"""What is matched or walked through takes time in proportion to its length: twice the text, at most 2.5 times the time.

The patterns are found in the sources, so that a new one is tried as well, or is said here to see no text of strangers.
Those of `iqa_core/images` have tests of their own, of what a whole image costs.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from iqa_core.addresses import parse_address
from iqa_core.base64_text import bytes_of, is_base64
from iqa_core.corpus.readers.tar import _extension
from iqa_core.storage.uris import canonical
from serve.protocol.json_values import Room, values_of
from serve.protocol.multipart import options_of, parts_of
from serve.uri_rules import FetchableUri
from tests.clock import least_cpu_s

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("iqa_core", "jobs", "serve")

OWN_TEXT = {
    "serve/api.py": {"<%s>(.*?)</%s>": "the page that ships"},
    "iqa_core/endpoint/attempts.py": {
        "<(style|script|head)\\b.*?</\\1>|<[^>]*>": "4000 characters of an answer at most; 20 ms at worst",
    },
}
"""Patterns that are not linear, and why that does no harm."""

JOINED = {
    "iqa_core/assessor/prompts/plain_text.py": """'|'.join(self._names.values()) or '(?!)'""",
    "iqa_core/assessor/prompts/slot_texts.py": "'|'.join(self._names)",
}
"""Patterns that are known only while the program runs: one of several names of equal length, letters and digits."""

CHARACTERS = " /:;.%<-_a0\n"
"""Repeated alone, in pairs, and behind what a pattern begins with: where patterns that are not linear show it."""
FORM_PART = b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n\r\n'
UNITS = [*CHARACTERS, *(a + b for a in CHARACTERS for b in CHARACTERS if a < b)]
BEGINNINGS = {
    "serve/uri_rules.py": ["", "[", "a"],
    "serve/admission/head.py": ["", "[", "a", "null://", "a://", "a:"],
    "iqa_core/base64_text.py": ["data:", "data:;", "data:;base64"],
    "iqa_core/endpoint/attempts.py": ["http://", "/v1", "/v1/", "4"],
    "iqa_core/corpus/plan/plan.py": ["000000"],
    "iqa_core/tables/packs.py": ["000000-000000", "000000-000000-000000"],
    "iqa_core/storage/local.py": ["0"],
    "iqa_core/storage/uris.py": ["file:", "file://localhost", "s"],
    "iqa_core/hub.py": ["a/", "a/a/"],
    "iqa_core/opinions/sa_bench.py": ["a_", "a_a_train_prompt1", "a_train"],
    "iqa_core/reasons/opposites.py": ["isn't", "isn'"],
    "iqa_core/rubrics/sa_bench.py": ["a_", "a_a_prompt1", "a good", "good "],
    "iqa_core/rubrics/base.py": ["input_", "a", "a_std"],
    "iqa_core/rubrics/rubric.py": ["<"],
    "iqa_core/rubrics/load.py": ["1"],
    "iqa_core/rubrics/released/toml_text.py": ["a"],
    "iqa_core/rubrics/released/writers.py": ["", "1.", "1"],
    "iqa_core/rubrics/released/vqascore.py": ["a", "a_model"],
    "iqa_core/questions.py": ["{", "{a"],
    "iqa_core/selection/condition.py": ["iqa_carried_", "\nLINE"],
    "iqa_core/selection/exports/imagefolder.py": ["2026-01-01", "2026-01-01 10:10:10"],
    "iqa_core/selection/rows.py": ["iqa_carried_", "\nLINE"],
    "iqa_core/training/parts.py": ["visual", "merger", "."],
    "iqa_core/training/augmenting.py": ["a"],  # a query is never blank
    "iqa_core/corpus/readers/tar.py": [""],
}
NUM_CHARACTERS = 8_000
NO_TIME_S = 5e-3
"""Of twice as many; with a step for each pair of characters it would be 0.1 s."""


METHODS = r"\.(match|fullmatch|search|sub|split|findall|finditer)\("


@dataclass(frozen=True)
class Found:
    """A pattern in a source, and the ways in which it is used."""

    file: str
    pattern: str | bytes
    flags: int
    methods: frozenset[str]

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"

    @property
    def text(self) -> str:
        return self.pattern.decode("latin-1") if isinstance(self.pattern, bytes) else self.pattern


def found_in(path: Path) -> Iterator[Found]:
    tree = ast.parse(path.read_text())
    names = {id(node.value): node.targets[0].id for node in ast.walk(tree) if is_assignment(node)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "re":
            if ast.unparse(node.args[0]).endswith(JOINED.get(str(path.relative_to(ROOT)), "?")):
                continue
            known = {"re": re} if is_constant(node.args[0]) else vars(importlib.import_module(module(path)))
            flags = [word.value for word in node.keywords if word.arg == "flags"]
            flags += node.args[1:] if node.func.attr == "compile" else []
            value = eval(ast.unparse(flags[0]), {"re": re}) if flags else 0
            methods = uses(path, names.get(id(node), "")) if node.func.attr == "compile" else {node.func.attr}
            yield Found(str(path.relative_to(ROOT)), literal(node.args[0], known), int(value), frozenset(methods))


def is_assignment(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)


def is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant | ast.BinOp)


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def literal(node: ast.expr, known: dict[str, Any]) -> str | bytes:
    """The pattern; of one that is put together from a tag of the page, what stands in the source."""
    found: str | bytes = eval(ast.unparse(node.left if isinstance(node, ast.BinOp) else node), known)
    return found


def uses(path: Path, name: str) -> set[str]:
    """Methods that are called of a compiled pattern: in its own file, or where it is imported."""
    own = set(re.findall(rf"\b{name}{METHODS}", path.read_text()))
    return own or {method for source in SOURCES for method in re.findall(rf"\b{name}{METHODS}", source.read_text())}


SOURCES = [path for top in PRODUCT for path in sorted((ROOT / top).rglob("*.py"))]
FOUND = [found for path in SOURCES if "iqa_core/images" not in str(path) for found in found_in(path)]


ROUNDS = 3
"""Of measuring: what is busy beside it makes one of them say the wrong thing, hardly all."""


def is_linear(work: Callable[[int], Callable[[], object]], size: int) -> bool:
    """Whether twice the size takes at most 2.5 times as long; what takes next to no time need not be compared."""
    if least_cpu_s(work(2 * size), NO_TIME_S) <= NO_TIME_S:
        return True
    once_s = least_cpu_s(work(size), 0)
    return least_cpu_s(work(2 * size), 2.5 * once_s) <= 2.5 * once_s


@pytest.mark.parametrize("found", FOUND, ids=str)
def test_every_pattern_is_linear(found: Found) -> None:
    if found.text in OWN_TEXT.get(found.file, {}):
        return
    pattern = re.compile(found.pattern, found.flags)
    assert found.methods
    for method in sorted(found.methods):
        use = getattr(pattern, method) if method != "sub" else partial(pattern.sub, "")
        for beginning in BEGINNINGS[found.file]:
            for unit in UNITS:

                def work(size: int, start: str = beginning, unit: str = unit, use: Any = use) -> Callable[[], object]:
                    text = start + unit * (size // len(unit))
                    return partial(use, text.encode() if isinstance(found.pattern, bytes) else text)

                assert any(is_linear(work, NUM_CHARACTERS) for _ in range(ROUNDS)), (method, beginning, unit)


def test_every_exception_is_still_there() -> None:
    assert {(file, pattern) for file, why in OWN_TEXT.items() for pattern in why} <= {(f.file, f.text) for f in FOUND}
    assert {found.file for found in FOUND} == {*BEGINNINGS, *OWN_TEXT}


@pytest.mark.parametrize(("pattern", "unit", "size"), [(r"\s+$", " ", 1500), (r"(a|b)*c", "a", 400)])
def test_a_pattern_that_is_not_linear_is_found(pattern: str, unit: str, size: int) -> None:
    search = re.compile(pattern).search
    assert not all(is_linear(lambda size: partial(search, unit * size + "y"), size) for _ in range(ROUNDS))


def pax(size: int) -> bytes:
    return b"6 a=b\n" * (size // 6)


WALKS: dict[str, tuple[Callable[[Any], object], Callable[[int], Any], int]] = {
    "base64 of lines": (bytes_of, lambda size: "QUJD\n" * (size // 5), 2**17),
    "base64 of spaces": (bytes_of, lambda size: "QUJD " * (size // 5 // 4 * 4), 2**17),
    "base64 of escapes": (bytes_of, lambda size: "data:;base64," + "%41%41%41%41" * (size // 12), 2**17),
    "blanks before base64": (bytes_of, lambda size: " " * size, 2**17),
    "head of a data URI": (is_base64, lambda size: "data:" + ";base64" * (size // 7), 2**20),
    "strings of JSON": (partial(values_of, room=Room.of(64)), lambda size: b"[" + b'"",' * size + b"0]", 9_000),
    "backslashes of JSON": (partial(values_of, room=Room.of(64)), lambda size: b'["' + b"\\\\" * size + b'"]', 2**19),
    "quotes of JSON": (partial(values_of, room=Room.of(64)), lambda size: b'["' + b'a\\"' * size + b'"]', 9_000),
    "parts of a form": (lambda body: [*parts_of(body, b"b", 10**6)], lambda size: FORM_PART * size + b"--b--", 1_000),
    "edges of a form": (
        lambda body: [*parts_of(body, b"b", 1)],
        lambda size: FORM_PART[:-2] + b"\r\n--" * size + b"\r\n--b--",
        2**18,
    ),
    "options of a header": (options_of, lambda size: b'form-data; name="' + b'\\"' * size + b'"', 2_000),
    "address of an input": (
        partial(parse_address, kinds=frozenset()),
        lambda size: "a?" + "&".join(map("{}=1".format, range(size))),
        2_000,
    ),
    "URI of a caller": (FetchableUri.parse, lambda size: "https://" + "a." * (size // 2), 1_000),
    "URI of a store": (canonical, lambda size: "a+" * (size // 2), 2**15),
    "keywords of a tar": (partial(_extension, b"x"), pax, 2**15),
}
"""What goes through texts of strangers step by step: the walk, its text at a size, and the smaller size."""


@pytest.mark.parametrize("what", WALKS)
def test_every_walk_is_linear(what: str) -> None:
    walk, text, size = WALKS[what]
    assert any(is_linear(lambda size: partial(walk, text(size)), size) for _ in range(ROUNDS))
