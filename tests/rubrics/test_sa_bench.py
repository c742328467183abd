"""Annotation lines of SA-BENCH's layout -> a rubric in exactly their words, or the two lines that do not agree."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iqa_core.demo.corpus import write_scenes
from iqa_core.errors import CallerError
from iqa_core.rubrics import load_rubric
from iqa_core.rubrics.sa_bench import require_expressible
from tests.hub_server import running_hub
from tests.unlike import TRAINABLE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 scenes: 4 per dimension, one of them a test image."""
    folder = tmp_path_factory.mktemp("made") / "SA-BENCH"
    write_scenes(folder, 16, seed=3, format="sa-bench", size=64, image_format="jpeg")
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(made / "annotations", tmp_path / "annotations"))


def change(path: Path, line: int, **values: Any) -> None:
    """Other values in one line, counted from 1; a value that is a function is given what stood there."""
    lines = path.read_text("utf-8").splitlines()
    content = json.loads(lines[line - 1])
    content |= {name: value(content.get(name)) if callable(value) else value for name, value in values.items()}
    lines[line - 1] = json.dumps(content)
    path.write_text("\n".join(lines), "utf-8")


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_the_words_are_those_that_the_annotations_were_written_with(version: int, made: Path) -> None:
    found, origin = load_rubric(f"sa-bench:{made}?prompt={version}"), load_rubric(f"interior-v{version}")
    assert (found.id, found.prompt_version, found.system) == (f"sa-bench-prompt{version}", version, None)
    assert {d.name: d.query for d in found.dimensions} == {d.name: d.query for d in origin.dimensions}
    assert (found.answer_prefix, found.levels) == (origin.answer_prefix, origin.levels)
    assert found.names == tuple(sorted(origin.names))


def test_the_annotation_folder_itself_and_any_of_its_splits_give_the_same(made: Path, copied: Path) -> None:
    whole = load_rubric(f"sa-bench:{made}?prompt=4")
    assert load_rubric(f"sa-bench:{copied}?prompt=4") == whole
    for path in copied.iterdir():
        if "_test_" not in path.name:
            path.unlink()
    assert load_rubric(f"sa-bench:{copied}?prompt=4").digest == whole.digest


def test_it_is_a_value_that_outlives_its_files(copied: Path) -> None:
    rubric = load_rubric(f"sa-bench:{copied}?prompt=2")
    packed = pickle.dumps(rubric)
    shutil.rmtree(copied)
    assert pickle.loads(packed) == rubric
    assert str(copied).encode() not in packed


def test_a_query_is_kept_to_the_letter(copied: Path) -> None:
    for path in copied.glob("layout_*_prompt1.jsonl"):
        for line in range(1, len(path.read_text("utf-8").splitlines()) + 1):
            change(path, line, query="<image>\n <layout> Wie gut? {x}\u2028 ")
    assert load_rubric(f"sa-bench:{copied}?prompt=1").dimensions[2].query == "\n <layout> Wie gut? {x}\u2028 "


def test_a_system_prompt_in_all_lines_is_the_rubrics(copied: Path) -> None:
    for path in copied.glob("*_prompt1.jsonl"):
        lines = [json.loads(line) | {"system": "You judge."} for line in path.read_text("utf-8").splitlines()]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert load_rubric(f"sa-bench:{copied}?prompt=1").system == "You judge."
    change(copied / "harmony_4_test_prompt1.jsonl", 1, system="You do not.")
    with pytest.raises(
        CallerError, match=r"harmony_4_test_prompt1.jsonl, line 1 has 'You do not.', but .* 'You judge.'"
    ):
        load_rubric(f"sa-bench:{copied}?prompt=1")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"query": lambda text: text + "!"},
            r"the query is not the same .*_4_full_prompt4.jsonl, line 3 has '<layout>.*",
        ),
        (
            {"response": lambda text: "A" + text},
            r"the answer is not the same .* line 3 has 'AThe .* is', but .*line 1 has",
        ),
        ({"response": "It is great."}, r"line 3: the response 'It is great.' does not end with one of bad, poor"),
        ({"response": 3}, "line 3: the response 3 does not"),
        ({"query": "Is it good?"}, r"line 3: the query 'Is it good\?' does not begin with <image>"),
        ({"query": "<image>a<image>"}, "begin with <image>, once"),
        ({"query": "Look: <image>"}, "does not begin with <image>"),
        ({"images": ["a", "b"]}, r"line 3: images is \['a', 'b'\]; a list of one path"),
        ({"system": ["x"]}, r"line 3: the system prompt \['x'\] is no text"),
    ],
)
def test_a_line_that_says_something_else_is_shown(
    values: dict[str, str | Callable[[str], str]], said: str, copied: Path
) -> None:
    change(copied / "layout_4_full_prompt4.jsonl", 3, **values)
    with pytest.raises(CallerError, match=said):
        load_rubric(f"sa-bench:{copied}?prompt=4")
    assert load_rubric(f"sa-bench:{copied}?prompt=3").prompt_version == 3, "only this version's files are read"


def test_answers_that_differ_in_more_than_the_dimension_cannot_be_one_template(copied: Path) -> None:
    for path in copied.glob("layout_*_prompt4.jsonl"):
        path.write_text(path.read_text("utf-8").replace("quality level of this image", "level"))
    with pytest.raises(CallerError, match="the answer is not the same everywhere"):
        load_rubric(f"sa-bench:{copied}?prompt=4")


@pytest.mark.parametrize("line", ["{", "[]", '{"query": "<image>a"}', '"text"'])
def test_a_line_that_is_no_example_is_named(line: str, copied: Path) -> None:
    with (copied / "layout_4_test_prompt4.jsonl").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(CallerError, match=r"layout_4_test_prompt4.jsonl, line 3: no JSON object with"):
        load_rubric(f"sa-bench:{copied}?prompt=4")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "say which prompt version"),
        ("?prompt=0", "say which prompt version"),
        ("?prompt=four", "say which prompt version"),
        ("?prompt=" + "1" * 5000, "say which prompt version"),
        ("?prompt=4&split=test", "say which prompt version"),
        ("?prompt", "bad query field"),
        ("?prompt=1&prompt=2", "given twice"),
        ("?prompt=5", "no annotations of prompt version 5 .*versions there: 1, 2, 3, 4"),
    ],
)
def test_a_version_that_is_not_named_or_not_there_is_refused(options: str, said: str, made: Path) -> None:
    with pytest.raises(CallerError, match=said):
        load_rubric(f"sa-bench:{made}{options}")


def test_files_without_a_line_hold_no_rubric(copied: Path) -> None:
    for path in copied.glob("layout_*_prompt4.jsonl"):
        path.write_text("\n")
    with pytest.raises(CallerError, match="no lines"):
        load_rubric(f"sa-bench:{copied}?prompt=4")


@pytest.mark.parametrize("place", ["", "nowhere", "./org/name", "org/name/folder"])
def test_a_place_that_is_neither_folder_nor_data_set_is_refused(place: str) -> None:
    with pytest.raises(CallerError, match="neither a local folder nor the hub id of a data set"):
        load_rubric(f"sa-bench:{place}?prompt=4")


SCRIPT = """
from iqa_core.errors import CallerError
from iqa_core.rubrics import load_rubric
from iqa_core.rubrics.sa_bench import require_expressible
for name in ["org/SA-BENCH?prompt=4", "org/none?prompt=4"]:
    try:
        print(load_rubric(f"sa-bench:{name}").digest)
    except CallerError as error:
        print("refused:", str(error).replace(chr(10), " "))
"""


@pytest.mark.slow
def test_of_a_data_set_on_the_hub_only_the_annotations_of_that_version_are_fetched(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "datasets" / "org" / "SA-BENCH")
    with running_hub(tmp_path) as hub:
        digest, refused = hub.run(SCRIPT, tmp_path / "home").splitlines()
    assert digest == load_rubric(f"sa-bench:{made}?prompt=4").digest
    wanted = {f"annotations/{path.name}" for path in (made / "annotations").glob("*_prompt4.jsonl")}
    assert len(wanted) == 12
    assert set(hub.fetched) <= wanted  # files of equal bytes are one blob there
    assert refused.startswith("refused: sa-bench:org/none is no local folder, and dataset 'org/none' cannot be had")


def test_a_rubric_of_answers_of_its_own_is_refused() -> None:
    with pytest.raises(CallerError, match="rubric unlike has answers or slots of its own"):
        require_expressible(TRAINABLE)
