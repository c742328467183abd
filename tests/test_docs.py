"""The pages for people -> what in them is not so: links, flags, paths, columns, codes and examples against the code."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import BaseModel

from docs import tree
from iqa_core.__main__ import COMMANDS
from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, read_manifest
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe
from iqa_core.corpus.columns import TYPE_NAMES
from iqa_core.corpus.sources import IMAGE_EXTENSIONS, UNSUPPORTED_IMAGE_EXTENSIONS
from iqa_core.errors import CallerError
from iqa_core.fusion import load_fusion
from iqa_core.records import RETRYABLE, ImageLimits, Reason
from iqa_core.rubrics import load_any_rubric, load_rubric, rubric_names, written_names
from iqa_core.rubrics.written import Decoding
from iqa_core.tables.regions.columns import GROUNDING_TABLE, MASK, REGIONS_TABLE
from iqa_core.tables.scores.columns import table_schema
from iqa_core.training.rewards.batch import REWARDS
from iqa_core.training.rewards.scores import WIDTHS
from iqa_core.written.columns import WrittenColumns
from iqa_core.written.form import Grammar
from iqa_core.written.parsing import CODES
from jobs.command import JobSettings, parse
from jobs.compaction.settings import CompactSettings
from jobs.evaluation.settings import EvaluateSettings
from jobs.fusion.settings import FusionSettings
from jobs.grounding.settings import GroundSettings
from jobs.scoring.settings import ScoreSettings
from jobs.selection.settings import SelectSettings
from jobs.training.ranking_settings import RankingSettings
from jobs.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parent.parent
USER_PAGES = sorted([ROOT / "README.md", ROOT / "cluster" / "README.md", *(ROOT / "docs").glob("*.md")])
PAGES = sorted({*USER_PAGES, *ROOT.glob("*.md")})

OTHERS_FLAGS = frozenset(
    "--address --working-dir --runtime-env-json --no-wait --follow --generate".split()  # ray
    + "--build-arg --repo --version --from-literal --device --shape".split()  # docker, helm, kubectl, a benchmark
)
"""Of programs that are not ours, and of a benchmark."""

REPOSITORY_PATH = re.compile(r"(?:iqa_core|jobs|serve|tests|benchmarks|docs|cluster|\.ci|\.github)/[\w./*-]*")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
NAMES = r"`\w+`(?:(?:,|,? and|,? or)\s`\w+`)*"
NAMES_IN_FILE = re.compile(rf"({NAMES}) in `([\w/]+\.py)`")
FILE_WITH_NAMES = re.compile(rf"`([\w/]+\.py)`: ({NAMES})")
COMMAND = re.compile(r"^(?:\$ |ray job submit .* -- )? *python (.+)$", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*")

JOBS: Mapping[str, type[JobSettings]] = {
    "score_corpus": ScoreSettings,
    "ground_corpus": GroundSettings,
    "evaluate_assessor": EvaluateSettings,
    "select_corpus": SelectSettings,
    "train_sft": TrainSettings,
    "train_grpo": RankingSettings,
    "fit_fusion": FusionSettings,
    "compact_scores": CompactSettings,
}

COLUMN_TYPES: Mapping[str, pa.DataType] = {
    **TYPE_NAMES,
    "list<float32>": pa.list_(pa.float32()),
    "list<string>": pa.list_(pa.string()),
}
DIMENSIONS = ("sharpness", "cleanness")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: str) -> set[str]:
    """Of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    """Relative links of a page that lead to no file, or to no heading of it."""
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = target.partition("#")
        if "://" in name:
            continue
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            yield target


def flags_of(settings: type[BaseModel], prefix: str = "") -> set[str]:
    """All flags of a job, as its command line has them."""
    found = set()
    for name, field in settings.model_fields.items():
        kind, flag = field.annotation, prefix + name.replace("_", "-")
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= flags_of(kind, f"{flag}.")
        else:
            found |= {f"--{flag}", f"--no-{flag}"} if kind is bool else {f"--{flag}"}
    return found


def known_flags() -> set[str]:
    flags = set()
    for command in COMMANDS.values():
        parser = argparse.ArgumentParser()
        command.add_flags(parser)
        flags |= {flag for action in parser._actions for flag in action.option_strings}
    return flags.union({"--config", "--help"}, OTHERS_FLAGS, *map(flags_of, JOBS.values()))


def code(page: str) -> str:
    """Everything in a page that is set as code."""
    return "\n".join([*(block for _, block in FENCE.findall(page)), *SPAN.findall(FENCE.sub("", page))])


def table_below(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    below = page.split(f"\n## {heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert lines is not None, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def fenced(page: str, language: str) -> list[str]:
    return [block for found, block in FENCE.findall(page) if found == language]


@pytest.fixture(scope="module")
def score_table() -> str:
    return (ROOT / "docs" / "score-table.md").read_text(encoding="utf-8")


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A folder with the TOML examples of all pages, each under the name that its first line gives."""
    for page in USER_PAGES:
        for block in fenced(page.read_text(encoding="utf-8"), "toml"):
            name = re.match(r"# ([\w-]+\.toml)\n", block)
            assert name, f"{page.name}: an example says in its first line what the file is called:\n{block}"
            assert not (tmp_path / name[1]).exists(), f"{name[1]} is shown twice"
            (tmp_path / name[1]).write_text(block, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](#one-two) [b](#three) [c](none.md) [d](page.md#one-two) [e](https://x.org)\n")
    assert list(broken_links(page)) == ["#three", "none.md"]


@pytest.mark.parametrize("page", USER_PAGES, ids=page_id)
def test_flags_exist(page: Path) -> None:
    named = set(FLAG.findall(code(page.read_text(encoding="utf-8"))))
    assert named - known_flags() == set()


@pytest.mark.parametrize("settings", JOBS.values())
def test_every_flag_of_a_job_is_in_the_docs(settings: type[BaseModel]) -> None:
    named = {flag for page in USER_PAGES for flag in FLAG.findall(code(page.read_text(encoding="utf-8")))}
    wanted = {flag for flag in flags_of(settings) if f"--no-{flag[2:]}" not in named and "--no-" not in flag}
    assert wanted - named == set()


def commands(page: str) -> Iterator[list[str]]:
    """Words of each command line of a job or a small command that a page shows in a block of its own."""
    for block in fenced(page, ""):
        for words in COMMAND.findall(block.replace("\\\n", " ")):
            yield shlex.split(words, comments=True)


@pytest.mark.parametrize("page", USER_PAGES, ids=page_id)
def test_commands_can_be_parsed(page: Path) -> None:
    for first, *rest in commands(page.read_text(encoding="utf-8")):
        if first == "-m":
            module, name, *flags = rest
            assert module == "iqa_core"
            parser = argparse.ArgumentParser(exit_on_error=False)
            COMMANDS[name].add_flags(parser)
            parser.parse_args([flag for flag in flags if flag != "…"])
        elif first.startswith("benchmarks/"):
            assert (ROOT / first).is_file()
        elif "…" not in rest:
            parse(JOBS[Path(first).stem], rest)


def test_a_command_over_several_lines_is_found_and_a_flag_that_it_lacks_refused() -> None:
    [found] = commands("```\n$ python jobs/score_corpus.py --input 'a b' \\\n    --output c  # to c\n```\n")
    assert found == ["jobs/score_corpus.py", "--input", "a b", "--output", "c"]
    with pytest.raises(CallerError, match="--ouput"):
        parse(ScoreSettings, ["--input", "a", "--ouput", "c"])


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_paths_of_the_repository_exist(page: Path) -> None:
    spans = SPAN.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    named = {span for span in spans if REPOSITORY_PATH.fullmatch(span)}
    assert {span for span in named if not any(ROOT.glob(span.rstrip("/")))} == set()


def named_symbols(page: str) -> Iterator[tuple[str, str]]:
    """File and name of each "`file.py`: `name`, `name`" and "`name` in `file.py`"."""
    found = [*FILE_WITH_NAMES.findall(page), *((file, names) for names, file in NAMES_IN_FILE.findall(page))]
    yield from ((file, name) for file, names in found for name in re.findall(r"`(\w+)`", names))


def test_contributing_names_what_is_there() -> None:
    symbols = list(named_symbols((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert len(symbols) >= 20
    absent = [
        f"{name} in {file}"
        for file, name in symbols
        if not (ROOT / file).exists() or not re.search(rf"\b{name}\b", (ROOT / file).read_text(encoding="utf-8"))
    ]
    assert absent == []


def test_names_are_found_before_and_behind_their_file() -> None:
    page = "the map (`a/b.py`: `ONE`, `TWO` and\n`three`), or `four` and `FIVE` in `c.py`; `d.py`, `e.py`"
    found = [*(("a/b.py", name) for name in ("ONE", "TWO", "three")), ("c.py", "four"), ("c.py", "FIVE")]
    assert list(named_symbols(page)) == found


def test_the_readme_is_short() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = next(block for block in fenced(page, "") if block.startswith("jobs/"))
    assert len(page.splitlines()) <= 120
    assert len(folders.splitlines()) <= 25


def test_the_glossary_can_be_remembered() -> None:
    words = [word for word, _ in table_below(tree.PAGE.read_text(encoding="utf-8"), "Glossary")]
    assert len(words) == len(set(words)) <= 25


def test_what_chaos_short_leaves_out_is_there() -> None:
    [left_out] = re.findall(r"^LONG_CHAOS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for place in map(ROOT.joinpath, left_out.split()):
        files = [place] if place.is_file() else place.rglob("test_*.py")
        assert any("pytest.mark.chaos" in file.read_text(encoding="utf-8") for file in files), place


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_targets_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z-]+)", code(page.read_text(encoding="utf-8")), re.MULTILINE)) <= set(targets)


def test_the_tree_is_that_of_the_modules() -> None:
    page = tree.PAGE.read_text(encoding="utf-8")
    assert page == tree.with_tree(page, ROOT), "run `make tree`"


def test_a_new_module_and_a_new_first_line_change_the_tree(tmp_path: Path) -> None:
    for folder in tree.FOLDERS:
        (tmp_path / folder).mkdir()
    module = tmp_path / "jobs" / "new.py"
    before = tree.with_tree(f"# Page\n{tree.MARK}old\n", tmp_path)
    module.write_text('"""Nothing ->\nsomething.\n\nMore."""\n')
    with_module = tree.with_tree(before, tmp_path)
    assert sorted(set(with_module.splitlines()) - set(before.splitlines())) == [
        "  new.py                        Nothing -> something."
    ]
    module.write_text('"""Nothing -> nothing."""\n')
    assert tree.with_tree(with_module, tmp_path) not in {before, with_module}


def test_the_column_table_is_the_schema(score_table: str) -> None:
    fields: list[pa.Field] = []
    rows = [(name.strip("`"), COLUMN_TYPES[kind]) for name, kind, _ in table_below(score_table, "Columns")]
    for name, kind in rows:
        names = [name.replace("<dimension>", d) for d in DIMENSIONS] if "<dimension>" in name else [name]
        fields += [pa.field(name, kind) for name in names]
    assert pa.schema(fields) == table_schema(DIMENSIONS, probs=True, carried=pa.schema([]))


def test_the_column_tables_of_parts_of_images_are_the_schemas() -> None:
    page = (ROOT / "docs" / "ground.md").read_text(encoding="utf-8")
    kinds = {**COLUMN_TYPES, "binary": pa.binary(), "struct<size, counts>": MASK}
    for heading, schema in (("Table of images", GROUNDING_TABLE), ("Table of regions", REGIONS_TABLE)):
        rows = [(name.strip("`"), kinds[kind]) for name, kind, _ in table_below(page, heading)]
        assert pa.schema(rows) == schema


def test_the_rejection_codes_are_all_there(score_table: str) -> None:
    rows = [(name.strip("`"), retried) for name, _, retried in table_below(score_table, "Rejection codes")]
    assert rows == [(str(reason), "yes" if reason in RETRYABLE else "no") for reason in Reason]


def test_the_parts_of_the_fingerprint_are_all_there(score_table: str) -> None:
    spec = describe(AssessorConfig(checkpoint="fake:"), None, ImageLimits())
    parts = [name.strip("`") for name, _ in table_below(score_table, "Fingerprint")]
    assert parts == list(spec.fingerprint_parts)


def test_image_extensions() -> None:
    page = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
    decoded, others = (
        set(re.findall(r"\.(\w+)", line)) for line in re.findall(r"`(\.[a-z][a-z0-9]+(?: \.[a-z][a-z0-9]+){9,})`", page)
    )
    assert decoded == IMAGE_EXTENSIONS
    assert others < UNSUPPORTED_IMAGE_EXTENSIONS


def test_shipped_rubrics_are_named() -> None:
    page = (ROOT / "docs" / "assessors.md").read_text(encoding="utf-8")
    families = {re.sub(r"-v\d+$", "", name) for name in rubric_names()}
    assert families == {re.match(r"`(.+?)(?:-v\d+)?`", cells[0])[1] for cells in table_below(page, "Rubrics")}  # type: ignore[index]


def test_the_page_about_written_answers_says_what_there_is() -> None:
    page = (ROOT / "docs" / "written.md").read_text(encoding="utf-8")
    named = {cells[0].strip("`"): cells[-1].split(", ") for cells in table_below(page, "Shipped rubrics")}
    assert named == {name: list(load_any_rubric(name).names) for name in written_names()}
    settings = {cells[0].strip("`"): cells[1] for cells in table_below(page, "Decoding")}
    defaults = [part.split("=") for part in Decoding().describe().split()]
    assert settings == dict(defaults)
    rows = table_below(page, "Grammars")
    assert [name.strip("`") for name, *_ in rows] == [str(grammar) for grammar in Grammar]
    codes = [name.strip("`").partition(":")[0] for name, _ in table_below(page, "Codes")]
    assert codes == list(CODES)
    columns = {name.strip("`"): kind for name, kind, _ in table_below(page, "In the score table")}
    assert {name: COLUMN_TYPES[kind] for name, kind in columns.items()} == {
        field.name: field.type for field in WrittenColumns(all_samples=True).schema
    }


def test_the_page_about_rewards_says_what_there_is() -> None:
    page = (ROOT / "docs" / "ranking.md").read_text(encoding="utf-8")
    assert [name.strip("`") for name, *_ in table_below(page, "Rewards")] == list(REWARDS)
    widths = dict(re.findall(r"^\| `([\w-]+)` \| .* \| ([\d.]+) \|$", page, re.MULTILINE))
    assert {name: float(width) for name, width in widths.items()} == WIDTHS


def questions_of_ask() -> list[str]:
    """Files that the page about questions shows, in its order."""
    blocks = fenced((ROOT / "docs" / "ask.md").read_text(encoding="utf-8"), "toml")
    return [block.split("\n", 1)[0].removeprefix("# ") for block in blocks]


def test_every_question_of_the_table_has_its_rubric_which_loads(examples: Path) -> None:
    rows = table_below((ROOT / "docs" / "ask.md").read_text(encoding="utf-8"), "What people want to know")
    assert [rubric.strip("`") for _, rubric, _ in rows[:-1]] == questions_of_ask()
    for name in questions_of_ask():
        assert load_rubric(str(examples / name)).names
        assert len((examples / name).read_text(encoding="utf-8").splitlines()) <= 20


def test_the_toml_examples_are_valid(examples: Path) -> None:
    assert {path.name for path in examples.iterdir()} - set(questions_of_ask()) == {
        "assessor.toml",
        "chairs.toml",
        "golden.toml",
        "job.toml",
        "product.toml",
        "weights.toml",
    }
    assert load_any_rubric(str(examples / "chairs.toml")).names == ("chair", "quality")
    rubric = load_rubric(str(examples / "product.toml"))
    load_fusion(examples / "weights.toml").ordered_as(rubric.names)
    CheckpointManifest.model_validate(tomllib.loads((examples / "assessor.toml").read_text()))
    golden = CheckpointManifest.model_validate(tomllib.loads((examples / "golden.toml").read_text()))
    shipped = read_manifest(ROOT / "iqa_core" / "demo" / "checkpoint")
    assert shipped is not None
    assert golden.golden == shipped.golden[:1]
    assert golden.fingerprint.items() <= shipped.fingerprint.items()
    parse(ScoreSettings, ["--config", str(examples / "job.toml")])


@pytest.mark.parametrize("page", USER_PAGES, ids=page_id)
def test_python_examples_are_python_with_names_that_can_be_imported(page: Path) -> None:
    for block in fenced(page.read_text(encoding="utf-8"), "python"):
        compile(block, page.name, "exec")
        for module, names in re.findall(r"^from (iqa_core[\w.]*) import (.+)$", block, re.MULTILINE):
            exec(f"from {module} import {names}", {})
