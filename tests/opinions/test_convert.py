"""`python -m iqa_core convert`: any annotations -> SA-BENCH's JSONL or our own table, which read the same again.

Tests iqa_core/opinions/writing.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from iqa_core.__main__ import main
from iqa_core.demo.corpus import write_scenes
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import Opinion
from iqa_core.opinions.terms import Terms
from iqa_core.rubrics import Rubric, load_rubric
from iqa_core.slots import TextLimits

DEQA = [
    {"id": "1", "image": "a.jpg", "gt_score": 70, "gt_score_norm": 3.7999999999999998, "std": 10, "std_norm": 0.37},
    {"id": "2", "image": "sub/b.jpg", "gt_score": 10, "gt_score_norm": 1.43, "std": 30, "std_norm": 1.2},
    {"id": "3", "image": "c.jpg", "gt_score": None, "gt_score_norm": None, "std": 1, "std_norm": 0.1},
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 scenes, 5 per dimension, the first of each a test image."""
    folder = tmp_path_factory.mktemp("made") / "SA-BENCH"
    write_scenes(folder, 20, seed=3, format="sa-bench", size=64, image_format="jpeg")
    return folder


def converted(annotations: object, output: object, *flags: object) -> int:
    return main(["convert", "--annotations", str(annotations), "--output", str(output), *map(str, flags)])


def refused(capsys: pytest.CaptureFixture[str], annotations: object, output: object, *flags: object) -> str:
    assert converted(annotations, output, *flags) == 2
    return capsys.readouterr().err


def asked(rubric: Rubric) -> dict[str, tuple[str, str]]:
    return {d.name: (d.query, rubric.answer_start(d)) for d in rubric.dimensions}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_gives_the_same_opinions_again(ending: str, bench: Path, tmp_path: Path) -> None:
    """Single raters, generators and names of data sets among them; the images' names are made absolute elsewhere."""
    source = f"sa-bench:{bench}?split=full"
    table = tmp_path / "new" / f"opinions.{ending}"
    assert converted(source, table) == 0
    there = load_opinions([source])
    assert all(row.raters and row.group and row.dataset == "SA-BENCH" for row in there.rows)
    wanted = tuple(replace(row, image=str(row.path)) for row in there.rows)
    assert load_opinions([str(table)]).rows == wanted


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_beside_the_images_they_keep_their_names_and_numbers_to_the_last_digit(ending: str, tmp_path: Path) -> None:
    (tmp_path / "deqa.json").write_text(json.dumps(DEQA))
    table = tmp_path / f"opinions.{ending}"
    assert converted(f"deqa:{tmp_path / 'deqa.json'}", table) == 0
    rows = load_opinions([str(table)]).rows
    assert rows == load_opinions([f"deqa:{tmp_path / 'deqa.json'}"]).rows
    assert [(row.image, row.mos, row.std) for row in rows] == [("a.jpg", 3.8, 0.37), ("sub/b.jpg", 1.43, 1.2)]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_texts_stay_beside_their_opinions(ending: str, tmp_path: Path) -> None:
    """Of one image two opinions, on two texts; the longest above what a slot takes by default."""
    texts = ["a red chair", 'two, "red"\nchairs', "é" * 3000, ""]
    rows = [{"image": "a.jpg", "dimension": "said", "mos": 3 + i / 2, "caption": text} for i, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    table, flags = tmp_path / f"out.{ending}", ("--slot", "prompt=caption")
    assert converted(tmp_path / "in.jsonl", table, *flags) == 0
    terms = Terms({"prompt": "caption"}, TextLimits(3000), all_slots=("prompt",))
    found = load_opinions([str(table)], terms=terms).rows
    assert [(row.mos, row.texts) for row in found] == [(3 + i / 2, (("prompt", texts[i]),)) for i in range(3)]


def test_a_text_that_would_have_no_place_is_refused(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("image,dimension,mos,group\na.jpg,said,3,g\n")
    for slot, output, fault in (
        ("prompt=group", "out.csv", "--slot: group is no column of texts"),
        ("prompt=caption", "out.csv", "no column caption with texts for {prompt}"),
        ("prompt", "out.csv", "--slot prompt: give it as slot=column"),
    ):
        assert fault in refused(capsys, tmp_path / "in.csv", tmp_path / output, "--slot", slot)
    lines = f"sa-bench:{tmp_path / 'words'}"
    said = refused(capsys, tmp_path / "in.csv", lines, "--slot", "prompt=group", "--rubric", "interior-v1")
    assert "--slot: the lines of sa-bench have no place for texts" in said
    said = refused(capsys, f"sa-bench:{bench}?split=full", tmp_path / "out.csv", "--slot", "prompt=caption")
    assert "only a table of our own has columns of texts" in said
    assert [*tmp_path.iterdir()] == [tmp_path / "in.csv"]


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "opinions.csv"
    table.write_text(
        "image,dimension,mos,std,count\n"
        "a.jpg,layout,3,0.2,5\na.jpg,layout,4,0.2,5\na.jpg,harmony,3,0.2,5\n"
        "b.jpg,layout,2,1.4,5\nc.jpg,layout,2,0.2,1\nd.jpg,layout,,,\ne.jpg,layout,5,,\n"
    )
    flags = ("--dimension", "layout", "--min-raters", 2, "--max-std", 1)
    assert converted(table, tmp_path / "kept.jsonl", *flags) == 0
    assert capsys.readouterr().out.splitlines() == [
        "opinions   2 (layout 2)",
        "left out   1 with a second opinion on the same image and dimension",
        "left out   1 with no opinion",
        "left out   1 with another dimension than --dimension",
        "left out   1 with a standard deviation above the bound",
        "left out   1 with fewer raters than asked for",
        f"written    {tmp_path / 'kept.jsonl'}",
    ]
    assert [row.image for row in load_opinions([str(tmp_path / "kept.jsonl")]).rows] == ["a.jpg", "e.jpg"]


def test_sa_benchs_csv_becomes_its_own_jsonl(bench: Path, tmp_path: Path) -> None:
    """In the data set's folder, in its own words: the files that are there, to the byte."""
    before = {path.name: path.read_text("utf-8") for path in bench.rglob("*_train_prompt*.jsonl")}
    copy = tmp_path / "SA-BENCH"
    (copy / "annotations").mkdir(parents=True)
    for path in (bench / "annotations").glob("*_train.csv"):
        (copy / "annotations" / path.name).write_bytes(path.read_bytes())
    rubrics = [flag for version in range(1, 5) for flag in ("--rubric", f"sa-bench:{bench}?prompt={version}")]
    assert converted(f"sa-bench:{copy}?split=train", f"sa-bench:{copy}", "--split", "train", *rubrics) == 0
    after = {path.name: path.read_text("utf-8") for path in copy.rglob("*.jsonl")}
    assert len(before) == 16
    assert after == {name.replace("_5_train", "_4_train"): text for name, text in before.items()}


def test_jsonl_has_the_rubrics_words_and_the_rounded_opinions(bench: Path, tmp_path: Path) -> None:
    output = tmp_path / "words"
    rubrics = ("--rubric", "interior-v1", "--rubric", "interior-v4")
    assert converted(f"sa-bench:{bench}?split=full", f"sa-bench:{output}", *rubrics) == 0
    for version in (1, 4):
        read = load_rubric(f"sa-bench:{output}?prompt={version}")
        shipped = load_rubric(f"interior-v{version}")
        assert asked(read) == asked(shipped)
        assert (read.system, read.levels, read.answer_prefix) == (None, shipped.levels, shipped.answer_prefix)
    exact = {(row.path, row.dimension): row.mos for row in load_opinions([f"sa-bench:{bench}?split=full"]).rows}
    rounded = load_opinions([f"sa-bench:{path}" for path in output.rglob("*_prompt4.jsonl")]).rows
    assert len(rounded) == 20
    assert all(abs(row.mos - exact[row.path, row.dimension]) <= 0.5 for row in rounded)


SYSTEM = """
id = "rooms-v7"
domain = "rooms"
prompt_version = 7
description = "rooms"
system = "You judge rooms."
answer_prefix = "Its {{dimension}} is"
levels = {levels}
[[dimensions]]
name = "{name}"
query = "{query}"
"""
LEVELS = '["bad", "poor", "fair", "good", "excellent"]'


def rubric(folder: Path, name: str = "layout", query: str = "<layout>Well?", levels: str = LEVELS) -> Path:
    path = folder / "rooms.toml"
    path.write_text(SYSTEM.format(name=name, query=query, levels=levels))
    return path


def opinion_of(folder: Path, dimension: str = "layout") -> Path:
    path = folder / "one.csv"
    path.write_text(f"image,dimension,mos\n{folder / 'SA-BENCH' / 'x.jpg'},{dimension},2.5\n")
    return path


def test_a_system_prompt_and_a_path_that_looks_like_the_data_sets_name_survive(tmp_path: Path) -> None:
    assert converted(opinion_of(tmp_path), f"sa-bench:{tmp_path}", "--rubric", rubric(tmp_path)) == 0
    assert asked(load_rubric(f"sa-bench:{tmp_path}?prompt=7")) == {"layout": ("<layout>Well?", "Its layout is")}
    assert load_rubric(f"sa-bench:{tmp_path}?prompt=7").system == "You judge rooms."
    [row] = load_opinions([f"sa-bench:{tmp_path}/annotations/layout_1_full_prompt7.jsonl"]).rows
    path = tmp_path / "SA-BENCH" / "x.jpg"
    assert row == Opinion(str(path), path, "layout", 3.0, "SA-BENCH")


def test_what_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = opinion_of(tmp_path), f"sa-bench:{tmp_path / 'out'}"
    words = ("--rubric", rubric(tmp_path))
    assert "needs a --rubric" in refused(capsys, source, output)
    assert "a table has none" in refused(capsys, source, tmp_path / "t.csv", *words)
    assert "--split belongs to" in refused(capsys, source, tmp_path / "t.csv", "--split", "test")
    assert "ends in .csv, .jsonl, .parquet" in refused(capsys, source, tmp_path / "t.xlsx")
    assert "one.csv is there already" in refused(capsys, source, source)
    assert "one.csv is a file; give a folder" in refused(capsys, source, source / "t.csv")
    assert "it takes no options" in refused(capsys, source, f"{output}?split=test", *words)
    assert "each needs its own" in refused(capsys, source, output, *words, *words)
    assert "opinions on layout, but rubric q-align asks for quality" in refused(
        capsys, source, output, "--rubric", "q-align"
    )
    assert "--dimension colour: the annotations are about layout" in refused(
        capsys, source, output, *words, "--dimension", "colour"
    )
    for change, message in (
        ({"query": "a <image>"}, "does not begin with <image>, once"),
        ({"name": "lay_out"}, "letters and digits only"),
        ({"name": "is"}, "what in them is the dimension's name"),
        ({"levels": '["a", "b", "c", "d", "e"]'}, "answers with a, b, c, d, e"),
    ):
        assert message in refused(capsys, source, output, "--rubric", rubric(tmp_path, **change))
    rubric(tmp_path)
    assert not (tmp_path / "out").exists()
    assert converted(source, output, *words) == 0
    assert "layout_1_full_prompt7.jsonl is there already" in refused(capsys, source, output, *words)
