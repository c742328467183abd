"""Modules -> the tree that ends docs/architecture.md: a line for each, how its docstring begins."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
FOLDERS = ("iqa_core", "jobs", "serve", "benchmarks", "docs")
MARK = "<!-- `make tree` writes all that follows -->\n"
TEXT_COLUMN = 32
"""Where a line's text begins; two more than the longest name with its indentation."""


def opening(module: Path) -> str:
    """The first paragraph of a module's docstring, on one line; "" where the module has none."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def lines_of(folder: Path, depth: int = 0) -> Iterator[str]:
    """One line for a folder and each module below it: its modules first, then the folders in it."""
    package = folder / "__init__.py"
    modules = sorted(set(folder.glob("*.py")) - {package})
    yield line(depth, f"{folder.name}/", opening(package) if package.exists() else "")
    for module in modules:
        yield line(depth + 1, module.name, opening(module))
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from lines_of(inner, depth + 1)


def line(depth: int, name: str, text: str) -> str:
    return f"{'  ' * depth + name:{TEXT_COLUMN}}{text}".rstrip()


def with_tree(page: str, root: Path) -> str:
    """The page with the tree of a checkout behind its mark, in place of the tree that it had."""
    head, mark, _ = page.partition(MARK)
    lines = [written for name in FOLDERS for written in lines_of(root / name)]
    return "\n".join([head + mark, "```", *lines, "```", ""])


if __name__ == "__main__":
    PAGE.write_text(with_tree(PAGE.read_text(encoding="utf-8"), ROOT), encoding="utf-8")
