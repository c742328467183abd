"""The source tree -> where it breaks its rules: who imports whom, what is heavy, how large, and where each test lies.

docs/architecture.md has the picture. The rules read source text, so they can be shown to fail on small made-up modules
without breaking the tree.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("iqa_core", "jobs", "serve")
JOBS = {path.parent.name for path in (ROOT / "jobs").glob("*/flow.py")}
"""Folders of one job each. What several jobs need lies beside them, or in jobs/on_ray/."""
OTHER_CODE = ("benchmarks", "docs", "cluster")

ROW = {
    "records": 1,
    "errors": 1,
    "addresses": 1,
    "base64_text": 1,
    "hub": 1,
    "differences": 1,
    "deadline": 1,
    "questions": 2,
    "slots": 2,
    "written": 2,
    "flags": 3,
    "storage": 3,
    "images": 3,
    "rubrics": 3,
    "levels": 3,
    "fusion": 3,
    "agreement": 3,
    "endpoint": 3,
    "assessor": 4,
    "corpus": 4,
    "opinions": 4,
    "grounding": 5,
    "reasons": 5,
    "tables": 6,
    "selection": 7,
    "preferences": 7,
    "training": 7,
    "report": 7,
    "demo": 7,
    "inspection": 7,
    "status": 7,
    "client": 7,
    "adapters": 8,
    "__main__": 8,
}
"""Part of iqa_core -> its row in the picture; a part imports itself and the rows below its own."""

ENDPOINT_ROW = {
    "errors": 1,
    "memory": 1,
    "metrics": 1,
    "uri_rules": 1,
    "settings": 2,
    "sharing": 2,
    "admission": 3,
    "decoding": 3,
    "model": 4,
    "protocol": 5,
    "fetching": 6,
    "api": 7,
    "app": 8,
}
"""Room or module of serve -> its row: it imports itself and the rows below its own."""

MAY_NOT_SEE = {
    "iqa_core": {"jobs", "serve", "tests", "benchmarks"},
    "jobs": {"serve", "tests", "benchmarks"},
    "serve": {"jobs", "tests", "benchmarks"},
}

HOMES = {
    "ray": ("jobs/", "serve/"),
    "deepspeed": ("iqa_core/training/",),
    "trl": ("iqa_core/training/",),
    "peft": ("iqa_core/training/",),
}
"""Library -> the only folders that may import it, at any depth of a function."""

HEAVY = {"torch", "transformers"}
HEAVY_AT_IMPORT = (
    "iqa_core/assessor/encoders/",
    "iqa_core/assessor/fast/",
    "iqa_core/assessor/model/",
    "iqa_core/assessor/ovis2_5/",
    "iqa_core/demo/base.py",
    "iqa_core/demo/keeper.py",
    "iqa_core/demo/lessons.py",
    "iqa_core/demo/prompts.py",
    "iqa_core/inspection/plain.py",
    "iqa_core/training/engine.py",
    "iqa_core/training/loop.py",
    "iqa_core/training/ranking/loop.py",
)
"""The only folders and modules that load a heavy library (seconds, hundreds of megabytes) by being imported."""

PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
PICKLES_AT = {"serve/decoding/decoder.py", "serve/protocol/flow_grpo.py"}
"""Where a process takes a preparer from the one that started it, which takes nothing of the kind back, and where an
answer is written and none is read."""
DRAWERS = {"utils", "common", "helpers", "misc", "manager"}
MAX_INIT_LINES = 20
MAX_LINES = 400
MAX_MODULES = 20
"""In one folder, not counting those below it."""

NAMED_MODULE = re.compile(r"\b(?:iqa_core|jobs|serve)/[\w/]+\.py\b")


@dataclass(frozen=True)
class Import:
    """One imported name, absolute and dotted."""

    name: str
    line: int
    at_import: bool
    """Whether importing the module runs it: not inside a function, not under TYPE_CHECKING."""

    @property
    def library(self) -> str:
        return self.name.partition(".")[0]


def imports_of(tree: ast.AST, package: tuple[str, ...], at_import: bool = True) -> Iterator[Import]:
    """Every import below `tree`, a node of a module that lies in `package`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, at_import)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            yield from imports_of(ast.Module(node.body, []), package, at_import=False)
            yield from imports_of(ast.Module(node.orelse, []), package, at_import)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_of(node, package, at_import and not is_function)


def part_of(path: PurePosixPath) -> str:
    """iqa_core/assessor/prompts/level_tokens.py -> assessor; iqa_core/records.py -> records."""
    return PurePosixPath(path.parts[1]).stem


def job_faults(path: PurePosixPath, imported: Import) -> Iterator[str]:
    """A folder below jobs/ that imports what belongs to one job, another than its own."""
    other = imported.name.split(".")[1] if imported.name.startswith("jobs.") else ""
    if path.parts[0] == "jobs" and len(path.parts) > 2 and other in JOBS - {path.parts[1]}:
        yield f"jobs/{path.parts[1]} may not import jobs/{other}"


def layer_faults(path: PurePosixPath, imported: Import) -> Iterator[str]:
    """An import that does not point down."""
    if imported.library in MAY_NOT_SEE[path.parts[0]]:
        yield f"{path.parts[0]} may not import {imported.library}"
    yield from job_faults(path, imported)
    if path.parts[0] != "iqa_core" or not imported.name.startswith("iqa_core."):
        return
    own, other = part_of(path), imported.name.split(".")[1]
    if own == other:
        return
    for part in (own, other):
        if part not in ROW:
            yield f"{part} has no row in the picture"
            return
    if ROW[other] >= ROW[own]:
        yield f"{own} (row {ROW[own]}) may not import {other} (row {ROW[other]})"


def endpoint_faults(path: PurePosixPath, imported: Import) -> Iterator[str]:
    """An import within the endpoint that does not point down."""
    if path.parts[0] != "serve" or not imported.name.startswith("serve."):
        return
    own, other = part_of(path), imported.name.split(".")[1]
    if own != other and not ENDPOINT_ROW.get(other, 9) < ENDPOINT_ROW.get(own, 0):
        yield f"in serve, {own} may not import {other}: it is not in a row below"


def library_faults(path: PurePosixPath, imported: Import) -> Iterator[str]:
    """A library outside its home, or loaded where it should wait until it is needed."""
    homes = HOMES.get(imported.library)
    if homes and not str(path).startswith(homes):
        yield f"{imported.library} belongs in {' and '.join(homes)}"
    if imported.library in HEAVY and imported.at_import and not str(path).startswith(HEAVY_AT_IMPORT):
        yield f"{imported.library} is loaded by importing this module; import it in the function that needs it"
    if imported.library in PICKLES and str(path) not in PICKLES_AT:
        yield f"{imported.library} runs code from data; write JSON, Parquet or safetensors"


def shape_faults(path: PurePosixPath, source: str, tree: ast.Module) -> Iterator[str]:
    """What a module looks like: a docstring, a name that says something, a short `__init__`."""
    if path.name == "__init__.py":
        if len(source.splitlines()) > MAX_INIT_LINES:
            yield f"more than {MAX_INIT_LINES} lines in an __init__"
    elif not ast.get_docstring(tree):
        yield "no docstring"
    if DRAWERS & {PurePosixPath(name).stem for name in path.parts}:
        yield f"{path.stem} says nothing about what is inside"


def remote_code_faults(tree: ast.Module) -> Iterator[str]:
    """trust_remote_code with anything but a literal False."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and ast.unparse(node.value) != "False":
            yield f"line {node.value.lineno}: trust_remote_code runs code from a checkpoint"


def is_heavy(imported: Import) -> bool:
    """Whether it is a heavy library, or a module of ours whose own lines import one."""
    names = (imported.name, imported.name.rpartition(".")[0])  # of a module, or of something in it
    files = [PurePosixPath(f"{name.replace('.', '/')}.py") for name in names]
    found = [own for file in files if (ROOT / file).is_file() for own in imports_of(tree_of(file), ())]
    return imported.library in HEAVY or any(own.library in HEAVY and own.at_import for own in found)


def weight_faults(path: PurePosixPath, tree: ast.Module) -> Iterator[str]:
    """A test module that loads a heavy library by being imported, and that `make check` imports."""
    lines = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    marks = "".join(line for line in lines if line.startswith("pytestmark"))
    if path.name.startswith("test_") and not re.search(r"mark\.(slow|ray|chaos)", marks):
        for imported in imports_of(tree, path.parts[:-1]):
            if imported.at_import and is_heavy(imported):
                yield f"{imported.name} loads torch: mark the module slow"


def faults(path: PurePosixPath, source: str) -> list[str]:
    """Everything that is wrong with one module of the product."""
    tree = ast.parse(source)
    found = [*shape_faults(path, source, tree), *remote_code_faults(tree)]
    for imported in imports_of(tree, path.parts[:-1]):
        reasons = [
            *layer_faults(path, imported),
            *endpoint_faults(path, imported),
            *library_faults(path, imported),
        ]
        found += [f"line {imported.line}: {reason}" for reason in reasons]
    return found


def size_faults(line_counts: Mapping[PurePosixPath, int]) -> Iterator[str]:
    """Modules that are too long, and folders with too many of them."""
    for path, count in line_counts.items():
        if count > MAX_LINES:
            yield f"{path}: {count} lines, more than {MAX_LINES}"
    for folder, count in Counter(path.parent for path in line_counts).items():
        if count > MAX_MODULES:
            yield f"{folder}/: {count} modules, more than {MAX_MODULES}"


def mirrored(path: PurePosixPath) -> PurePosixPath:
    """iqa_core/corpus/sources.py -> tests/corpus/test_sources.py; serve/api.py -> tests/serve/test_api.py."""
    folders = path.parts[path.parts[0] == "iqa_core" : -1]
    return PurePosixPath("tests", *folders, f"test_{path.stem.strip('_')}.py")


def mirror_faults(modules: Iterable[PurePosixPath], docstrings: Mapping[PurePosixPath, str]) -> Iterator[str]:
    """Modules without a test, and tests of no module.

    docstrings: those of the test modules; a module is tested where the tree has its test, or where one names it.
    """
    known = {str(path): mirrored(path) for path in modules if path.name != "__init__.py"}
    named = {name for docstring in docstrings.values() for name in NAMED_MODULE.findall(docstring)}
    for name, test in known.items():
        if test not in docstrings and name not in named:
            yield f"{name}: there is no {test}, and no test module names it in its docstring"
    yield from (f"{name} is named by a test module and is not there" for name in sorted(named - known.keys()))


def modules_of(*folders: str) -> list[PurePosixPath]:
    return [
        PurePosixPath(file.relative_to(ROOT)) for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))
    ]


@cache
def tree_of(path: PurePosixPath) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"))


def test_the_product_follows_the_picture() -> None:
    modules = modules_of(*PRODUCT)
    assert PurePosixPath("iqa_core/records.py") in modules
    assert [f"{path}: {fault}" for path in modules for fault in faults(path, (ROOT / path).read_text("utf-8"))] == []


def rows_below(page: str, heading: str) -> dict[str, int]:
    """Part -> its row, by the table below a heading."""
    section = re.split(r"^#+ ", page.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = re.findall(r"^\| (\d) \| (.+?) \|", section, re.MULTILINE)
    return {part: int(row) for row, parts in lines for part in re.findall(r"`(\w+)`", parts)}


def test_the_rows_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert rows_below(page, "### Rows of the core") == ROW
    assert rows_below(page, "### Rows of the endpoint") == ENDPOINT_ROW
    assert {PurePosixPath(path.parts[1]).stem for path in modules_of("serve")} - {"__init__"} == ENDPOINT_ROW.keys()


def test_no_module_is_too_long_and_no_folder_too_full() -> None:
    modules = modules_of(*PRODUCT, *OTHER_CODE)
    assert list(size_faults({path: len((ROOT / path).read_text("utf-8").splitlines()) for path in modules})) == []


def test_every_module_has_its_test() -> None:
    tests = [path for path in modules_of("tests") if path.name.startswith("test_")]
    docstrings = {path: ast.get_docstring(tree_of(path)) or "" for path in tests}
    assert list(mirror_faults(modules_of(*PRODUCT), docstrings)) == []


def test_a_long_module_and_a_full_folder_are_found() -> None:
    counts = {PurePosixPath(f"jobs/assessing/{number}.py"): MAX_LINES for number in range(MAX_MODULES)}
    assert list(size_faults(counts)) == []
    counts[PurePosixPath("jobs/assessing/run.py")] = MAX_LINES + 1
    assert list(size_faults(counts)) == [
        "jobs/assessing/run.py: 401 lines, more than 400",
        "jobs/assessing/: 21 modules, more than 20",
    ]


def test_a_module_without_a_test_and_a_test_of_no_module_are_found() -> None:
    modules = [PurePosixPath(path) for path in ("iqa_core/__main__.py", "iqa_core/corpus/sources.py", "serve/api.py")]
    tests = [PurePosixPath(path) for path in ("tests/test_main.py", "tests/corpus/test_sources.py")]
    assert list(mirror_faults(modules, dict.fromkeys(tests, "What -> why."))) == [
        "serve/api.py: there is no tests/serve/test_api.py, and no test module names it in its docstring"
    ]
    assert list(mirror_faults(modules, dict.fromkeys(tests, "What -> why.\n\nTests serve/api.py."))) == []
    assert list(mirror_faults(modules, dict.fromkeys(tests, "Tests serve/api.py and jobs/gone.py."))) == [
        "jobs/gone.py is named by a test module and is not there"
    ]


def test_every_test_and_benchmark_says_what_it_is() -> None:
    modules = modules_of("tests", *OTHER_CODE)
    sources = {path: (ROOT / path).read_text("utf-8") for path in modules}
    found = [f"{path}: {fault}" for path in modules for fault in shape_faults(path, sources[path], tree_of(path))]
    assert found == []


def test_what_make_check_imports_loads_no_torch() -> None:
    tests = modules_of("tests")
    assert [f"{path}: {fault}" for path in tests for fault in weight_faults(path, tree_of(path))] == []
    path, light = PurePosixPath("tests/test_x.py"), "def f():\n    import torch\n"
    for line in ("import torch", "from transformers import AutoModel", "from iqa_core.training.loop import loop"):
        assert len([*weight_faults(path, ast.parse(f"{line}\n{light}"))]) == 1
        assert [*weight_faults(path, ast.parse(f"{line}\npytestmark = [pytest.mark.slow]"))] == []
    assert [*weight_faults(path, ast.parse(light))] == []


@pytest.mark.parametrize(
    ("path", "line", "fault"),
    [
        ("iqa_core/records.py", "import iqa_core.errors", "records (row 1) may not import errors (row 1)"),
        (
            "iqa_core/images/decode.py",
            "from iqa_core.corpus import plan",
            "images (row 3) may not import corpus (row 4)",
        ),
        (
            "iqa_core/corpus/plan/plan.py",
            "from iqa_core import assessor",
            "corpus (row 4) may not import assessor (row 4)",
        ),
        (
            "iqa_core/corpus/plan/plan.py",
            "from ...assessor import protocol",
            "corpus (row 4) may not import assessor (row 4)",
        ),
        (
            "iqa_core/levels.py",
            "def f():\n    import iqa_core.fusion",
            "levels (row 3) may not import fusion (row 3)",
        ),
        ("iqa_core/levels.py", "from iqa_core.attic import old", "attic has no row"),
        ("iqa_core/attic.py", "import iqa_core.errors", "attic has no row"),
        ("iqa_core/report/page.py", "import jobs.score_corpus", "iqa_core may not import jobs"),
        ("jobs/score_corpus.py", "from serve import app", "jobs may not import serve"),
        ("serve/app.py", "from jobs.actors import pool", "serve may not import jobs"),
        ("serve/settings.py", "from serve.fetching.fetcher import Fetcher", "settings may not import fetching"),
        ("serve/model/dispatch.py", "from serve import protocol", "model may not import protocol"),
        ("serve/attic.py", "import serve.errors", "attic may not import errors"),
        ("jobs/score_corpus.py", "import tests.images", "jobs may not import tests"),
        ("iqa_core/corpus/plan/plan.py", "def f():\n    import ray.data", "ray belongs in jobs/ and serve/"),
        ("iqa_core/assessor/load.py", "from peft import LoraConfig", "peft belongs in iqa_core/training/"),
        ("jobs/train_sft.py", "import deepspeed", "deepspeed belongs in iqa_core/training/"),
        ("iqa_core/assessor/config.py", "import torch.nn", "torch is loaded by importing"),
        (
            "iqa_core/assessor/config.py",
            "try:\n    from transformers import x\nfinally: ...",
            "transformers is loaded by",
        ),
        ("iqa_core/assessor/config.py", "class A:\n    import torch", "torch is loaded by importing"),
        ("jobs/actors.py", "if True:\n    import torch", "torch is loaded by importing"),
        ("iqa_core/tables/ledger.py", "import pickle", "pickle runs code from data"),
        ("iqa_core/assessor/load.py", "load(trust_remote_code=True)", "trust_remote_code runs code"),
        ("iqa_core/assessor/load.py", "load(trust_remote_code=flag)", "trust_remote_code runs code"),
        ("iqa_core/corpus/utils.py", "", "says nothing about what is inside"),
        ("iqa_core/helpers/paths.py", "", "says nothing about what is inside"),
        ("jobs/training/flow.py", "from jobs.scoring import job", "jobs/training may not import jobs/scoring"),
        ("jobs/on_ray/cluster.py", "from jobs.scoring.job import Pool", "jobs/on_ray may not import jobs/scoring"),
    ],
)
def test_a_module_that_breaks_a_rule_is_found(path: str, line: str, fault: str) -> None:
    [found] = faults(PurePosixPath(path), f'"""What -> why."""\n{line}\n')
    assert fault in found


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("iqa_core/corpus/plan/plan.py", "from iqa_core.corpus import chunks"),
        ("iqa_core/corpus/plan/plan.py", "from iqa_core.records import Reason"),
        ("iqa_core/demo/scenes.py", "import iqa_core.assessor.protocol"),
        ("iqa_core/__main__.py", "from iqa_core.demo import scenes"),
        ("jobs/score_corpus.py", "import iqa_core.corpus\nfrom jobs import actors"),
        ("jobs/score_corpus.py", "def main():\n    import ray"),
        ("serve/app.py", "from ray import serve"),
        ("serve/protocol/answers.py", "from serve.model import dispatch\nfrom serve.protocol import bodies"),
        ("iqa_core/training/trainer.py", "def train():\n    import deepspeed, torch"),
        ("iqa_core/assessor/model/backend.py", "import torch\nimport transformers"),
        ("iqa_core/assessor/config.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("iqa_core/assessor/config.py", "load = lambda: __import__('torch')"),
        ("iqa_core/assessor/load.py", "load(trust_remote_code=False)"),
        ("serve/decoding/decoder.py", "import pickle"),
        ("jobs/score_corpus.py", "from jobs.scoring import flow"),
        (
            "jobs/scoring/flow.py",
            "from jobs import command\nfrom jobs.on_ray import guard\nfrom jobs.scoring import job",
        ),
    ],
)
def test_a_module_that_keeps_the_rules_passes(path: str, line: str) -> None:
    assert faults(PurePosixPath(path), f'"""What -> why."""\n{line}\n') == []


def test_a_type_checking_import_counts_for_the_layers() -> None:
    source = '"""What -> why."""\nif TYPE_CHECKING:\n    from iqa_core.assessor import protocol\n'
    assert faults(PurePosixPath("iqa_core/corpus/plan/plan.py"), source) == [
        "line 3: corpus (row 4) may not import assessor (row 4)"
    ]


def test_a_module_without_a_docstring_is_found() -> None:
    assert faults(PurePosixPath("iqa_core/levels.py"), "LEVELS = 5\n") == ["no docstring"]


def test_an_init_may_be_empty_but_not_long() -> None:
    path = PurePosixPath("iqa_core/corpus/__init__.py")
    assert faults(path, "") == []
    assert faults(path, "a = 1\n" * MAX_INIT_LINES) == []
    assert faults(path, "a = 1\n" * (MAX_INIT_LINES + 1)) == ["more than 20 lines in an __init__"]


FIRST_HEAVY_IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    heavy = {"ray", "torch", "transformers"} & sys.modules.keys()
    if heavy:
        sys.exit(f"importing {name} loads {', '.join(sorted(heavy))}")
"""


def import_all(folder: Path, *names: str) -> str:
    """Import modules of a folder one after another in a fresh interpreter; "" or what the first heavy one loads."""
    command = [sys.executable, "-c", FIRST_HEAVY_IMPORT, *names]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False).stderr.strip()


@pytest.mark.slow
def test_importing_the_core_loads_no_heavy_library() -> None:
    light = [path for path in modules_of("iqa_core") if not str(path).startswith(HEAVY_AT_IMPORT)]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in light]
    assert import_all(ROOT, *names) == ""


def test_a_heavy_import_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "torch.py").touch()
    (tmp_path / "light.py").write_text("import json")
    (tmp_path / "config.py").write_text("import torch")
    assert import_all(tmp_path, "light", "config") == "importing config loads torch"


SCORES = "iqa_core.tables.scores"


def sees_scores(path: PurePosixPath, source: str) -> bool:
    """Whether a module that holds tables of any kind imports what is known of one kind."""
    names = [imported.name for imported in imports_of(ast.parse(source), path.parts[:-1])]
    return path.parent == PurePosixPath("iqa_core/tables") and any(name.startswith(SCORES) for name in names)


def test_what_holds_tables_of_any_kind_does_not_know_scores() -> None:
    sources = {path: (ROOT / path).read_text("utf-8") for path in modules_of("iqa_core/tables")}
    assert [path for path, source in sources.items() if sees_scores(path, source)] == []
    ledger = PurePosixPath("iqa_core/tables/ledger.py")
    assert sees_scores(ledger, f"{sources[ledger]}\nfrom {SCORES}.columns import REWARD")
