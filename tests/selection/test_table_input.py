"""Rows of a score table as an input: which are planned, what is read, and what happens when table or originals change.

Tests iqa_core/corpus/plan/selected.py, iqa_core/corpus/plan/cutting.py and iqa_core/corpus/readers/selected.py.
"""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.corpus.plan import selected
from iqa_core.corpus.plan.plan import Plan
from iqa_core.corpus.sources import Kind
from iqa_core.errors import CallerError
from iqa_core.selection.table_input import open_table_input
from jobs.command import parse
from jobs.scoring.flow import score as score_job
from jobs.scoring.settings import ScoreSettings
from jobs.selection.export_work import export_shard
from jobs.selection.exporting import shards
from jobs.selection.flow import opened, select
from jobs.selection.job import checked
from jobs.selection.settings import SelectSettings
from tests.corpora import tiny_png, write_folder, write_mixed, write_parquet, write_tar
from tests.corpus.planned import LOCAL, Output
from tests.counting_storage import Counting
from tests.jobs.by_hand import scoring_by_hand
from tests.jobs.operations import compact, faults_of, rows_of, score
from tests.s3_server import Bucket, storage_options
from tests.selection.conftest import decisions
from tests.selection.scored_corpora import score as scored

pytestmark = pytest.mark.slow

Row = dict[str, Any]


def rows(table: Path | str, where: str = "") -> str:
    """Rows of a score table, as `--input` names them."""
    return f"scores:{table}" + (f"?where={where}" if where else "")


def score_rows(output: Path | str, *given: str, **settings: Any) -> int:
    assessor = AssessorConfig(checkpoint="fake:")
    settings = {"report": False, "chunk_images": 4, "assessor": assessor, **settings}
    return sum(scoring_by_hand(ScoreSettings(input=list(given), output=str(output), **settings)))


def identity(table: list[Row]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in ("source", "key", "offset", "length", "row", "sha256")) for row in table]


def segments(output: Path) -> int:
    return len(Plan(LOCAL, str(output)).segments())


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A score table of 60 images in every kind of source."""
    corpus = write_mixed(tmp_path, 60)
    assert score(tmp_path / "first", *map(Path, corpus.inputs)) == 0
    return tmp_path / "first"


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A score table of 8 loose images in 2 chunks."""
    write_folder(tmp_path / "in", {f"{index}.png": tiny_png(index) for index in range(8)})
    assert score(tmp_path / "first", tmp_path / "in") == 0
    return tmp_path / "first"


def test_rows_that_pass_are_scored_and_keep_what_is_known_of_them(first: Path, tmp_path: Path) -> None:
    expected = [row for row in rows_of(first) if row["layout"] < 3.5]
    assert {row["row"] is None for row in expected} == {row["offset"] is None for row in expected} == {True, False}
    assert score_rows(tmp_path / "second", rows(first, "layout < 3.5")) == 0
    found = rows_of(tmp_path / "second")
    assert identity(found) == identity(expected)
    for row, was in zip(found, expected, strict=True):
        for name in ("caption", "json", "seed"):
            assert row[name] == was[name]
        for name in ("layout", "layout_std", "reward"):
            assert row[f"input_{name}"] == was[name] == row[name]  # the same fake sees the same bytes
    assert faults_of(tmp_path / "second") == []
    plan = Plan(LOCAL, str(tmp_path / "second"))
    contract = plan.contract()
    assert contract is not None
    assert contract.tables == {str(first): {"fingerprint": contract.fingerprint, "where": "layout < 3.5"}}
    assert {chunk.kind for chunk in plan.chunks()} == {Kind.SCORES}
    assert any(len(chunk.spans) > 1 for chunk in plan.chunks()), "few rows of many chunks share one"


def test_what_is_made_of_rows_is_a_score_table_like_any_other(first: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    assert score_rows(second, rows(first, "layout < 3.5")) == 0
    assert compact(second) == 0
    assert score_rows(tmp_path / "third", rows(second, "input_layout < 2.5")) == 0
    wanted = [row for row in rows_of(first) if row["layout"] < 2.5]
    found = rows_of(tmp_path / "third")
    assert identity(found) == identity(wanted)
    assert [row["input_input_layout"] for row in found] == [row["layout"] for row in wanted]

    joined = ["--scores", str(second), "--scores", f"one={first}", "--combine", "join", "--no-report"]
    assert (
        select(parse(SelectSettings, [*joined, "--output", str(tmp_path / "joined"), "--where", "one_layout < 2.5"]))
        == 0
    )
    assert sum(decisions(tmp_path / "joined").column("kept").to_pylist()) == len(wanted)

    job = checked(parse(SelectSettings, ["--scores", str(second), "--output", str(tmp_path / "exported")]))
    work = job.export_work("webdataset")
    with opened(job, tmp_path / "scratch") as decided:
        done = [export_shard(shard.name, shard.rows, work) for shard in shards(decided.kept(), 1000)]
    assert [(shard.failure, shard.missing.num_rows) for shard in done] == [(None, 0)]
    assert done[0].images == len(rows_of(second))


def test_without_a_condition_all_that_is_scored_is_taken(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.png": tiny_png(1), "b.png": tiny_png(2), "c.png": b"no image", "d.png": b""})
    assert score(tmp_path / "first", tmp_path / "in") == 0
    assert score_rows(tmp_path / "second", rows(tmp_path / "first")) == 0
    assert [row["key"] for row in rows_of(tmp_path / "second")] == ["a.png", "b.png"]


def test_a_table_that_has_grown_is_a_new_segment(loose: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    given = [rows(loose, "layout < 9"), str(tmp_path / "beside")]
    write_folder(tmp_path / "beside", {"x.png": tiny_png(50)})
    assert score_rows(second, *given) == 0
    before = {file: file.read_bytes() for file in (second / "scores").iterdir()}
    assert segments(second) == 1
    assert compact(loose) == 0  # where its rows lie is no part of a table
    assert score_rows(second, *given) == 0
    assert segments(second) == 1
    write_folder(tmp_path / "in", {f"new{index}.png": tiny_png(20 + index) for index in range(3)})
    assert score(loose, tmp_path / "in") == 0
    assert score_rows(second, *given) == 0
    assert segments(second) == 2
    assert {file: file.read_bytes() for file in before} == before
    assert sorted(row["key"] for row in rows_of(second)) == sorted([row["key"] for row in rows_of(loose)] + ["x.png"])
    assert faults_of(second) == []
    shutil.rmtree(loose / "scores")  # what is planned needs the table no more
    (second / "scores" / min(file.name for file in before)).unlink()
    with pytest.raises(CallerError, match=f"--input scores:{loose}: none of its 3 chunks is scored yet"):
        score_rows(second, *given)
    shutil.rmtree(loose)
    assert score_rows(second, *given, scan=False) == 0
    assert {file: file.read_bytes() for file in before} == before
    with pytest.raises(CallerError, match="where: layout < 9 there, absent now"):
        score_rows(second, rows(loose), scan=False)
    with pytest.raises(CallerError, match="image: absent there, photo now"):
        score_rows(second, *given, scan=False, image_column="photo")


def test_an_output_that_was_moved_goes_on(loose: Path, tmp_path: Path) -> None:
    given = rows(loose, "layout < 9")
    assert score_rows(tmp_path / "second", given) == 0
    done = rows_of(tmp_path / "second")
    shutil.copytree(tmp_path / "second", tmp_path / "moved")
    shutil.rmtree(tmp_path / "second" / "plan")
    min((tmp_path / "moved" / "scores").iterdir()).unlink()
    assert score_rows(tmp_path / "moved", given) == 0
    assert rows_of(tmp_path / "moved") == done
    assert segments(tmp_path / "moved") == 1
    assert faults_of(tmp_path / "moved") == []


def test_of_two_drivers_the_one_that_comes_second_leaves_no_rows_behind(loose: Path, tmp_path: Path) -> None:
    assessor = AssessorConfig(checkpoint="fake:")
    given: dict[str, Any] = {"input": [rows(loose)], "output": str(tmp_path / "out")}
    settings = ScoreSettings(**given, assessor=assessor, report=False)
    drivers = [scoring_by_hand(settings) for _ in range(2)]
    assert [next(driver) for driver in drivers] == [0, 0]
    assert [sum(driver) for driver in drivers] == [0, 0]
    assert {chunk.spans[0].metadata.uri for chunk in Plan(LOCAL, str(tmp_path / "out")).chunks()} == {  # type: ignore[union-attr]
        file.name for file in (tmp_path / "out" / "plan").glob("rows-*.parquet")
    }


def test_a_large_chunk_is_cut_and_small_ones_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selected, "ROWS_PER_GROUP", 3)
    monkeypatch.setattr(selected, "GROUPS_PER_FILE", 3)
    write_folder(tmp_path / "in", {f"{index:02d}.png": tiny_png(index) for index in range(24)})
    assert score(tmp_path / "few", tmp_path / "in", chunk_images=2) == 0
    assert score(tmp_path / "many", tmp_path / "in", chunk_images=24) == 0
    for table, spans in (("few", [3, 3, 3, 3]), ("many", [1, 1, 1, 1])):
        output = tmp_path / f"of-{table}"
        assert score_rows(output, rows(tmp_path / table), chunk_images=6) == 0
        chunks = list(Plan(LOCAL, str(output)).chunks())
        assert [len(chunk.spans) for chunk in chunks] == spans
        assert identity(rows_of(output)) == identity(rows_of(tmp_path / table))
    assert len(list((tmp_path / "of-few" / "plan").glob("rows-*.parquet"))) == 3
    opened = len(os.listdir("/dev/fd"))
    proposal = Output(tmp_path / "new").proposal(tables=[open_table_input(LOCAL, rows(tmp_path / "few"), True)])
    drafts = proposal.selected.files
    assert len(drafts) > 2 > len(os.listdir("/dev/fd")) - opened, "a process has few file descriptors"
    folder = drafts[0].parent
    del proposal, drafts
    gc.collect()
    assert not folder.exists()
    # what shares a chunk with what changed is planned again with it, and loses no row
    (tmp_path / "in" / "00.png").unlink()
    assert score_rows(tmp_path / "of-few", rows(tmp_path / "few"), chunk_images=6, on_changed="rescore") == 0
    assert [row["key"] for row in rows_of(tmp_path / "of-few")] == [f"{index:02d}.png" for index in range(1, 24)]
    assert segments(tmp_path / "of-few") == 2
    assert faults_of(tmp_path / "of-few") == []


def test_bytes_that_are_read_are_those_of_what_is_selected(tmp_path: Path) -> None:
    images = {f"{index:03d}.png": tiny_png(index, size=128) for index in range(120)}
    write_folder(tmp_path / "in" / "loose", dict(list(images.items())[:60]))
    write_tar(tmp_path / "in" / "a.tar", dict(list(images.items())[60:]))
    table = scored(tmp_path / "first", tmp_path / "in", chunk_images=10)
    storage = Counting()
    found = open_table_input(storage, rows(table, "reward < 3"), looks_for_originals=True)
    output = Output(tmp_path / "second", storage=storage)
    output.extend(tables=[found])
    chosen = [row for row in rows_of(table) if (row["reward"] or 9) < 3]
    size = sum(len(images[row["key"].removeprefix("loose/")]) for row in chosen)
    assert 40 <= len(chosen) <= 50
    storage.sizes.clear()
    assert all(isinstance(image.data, bytes) for image in output.images())
    assert size < sum(storage.sizes) <= 1.3 * size


def test_originals_that_changed_stop_the_run_unless_it_is_told_otherwise(loose: Path, tmp_path: Path) -> None:
    given = rows(loose, "layout < 9")
    assert score_rows(tmp_path / "begun", given) == 0
    (tmp_path / "in" / "1.png").unlink()
    write_folder(tmp_path / "in", {"6.png": tiny_png(60, size=30)})
    for output in ("begun", "new"):
        with pytest.raises(CallerError) as caught:
            score_rows(tmp_path / output, given)
        assert f"vanished: {tmp_path}/in/1.png" in str(caught.value)
        assert f" now): {tmp_path}/in/6.png" in str(caught.value)
        assert "2 planned sources" in str(caught.value)
    assert not (tmp_path / "new").exists()

    assert score_rows(tmp_path / "new", given, on_changed="ignore") == 0
    found = {row["key"]: row["detail"] for row in rows_of(tmp_path / "new") if row["status"] == "rejected"}
    assert found == {"1.png": "there is no such file", "6.png": "its bytes are no longer those that were scored"}
    for settings in ({"on_changed": "rescore"}, {}):  # then as it was left
        assert score_rows(tmp_path / "begun", given, **settings) == 0
        assert [row["key"] for row in rows_of(tmp_path / "begun")] == [f"{index}.png" for index in (0, 2, 3, 4, 5, 7)]
        assert faults_of(tmp_path / "begun") == []
    # the table is scored anew: its changed image is one to select again
    assert score(loose, tmp_path / "in", on_changed="rescore") == 0
    with pytest.raises(CallerError, match=f"vanished: scores:{loose}/000000-000000"):
        score_rows(tmp_path / "begun", given)
    assert score_rows(tmp_path / "begun", given, on_changed="rescore") == 0
    assert identity(rows_of(tmp_path / "begun")) == identity(rows_of(loose))


def test_a_chunk_of_which_every_original_is_gone_is_planned_without_images(loose: Path, tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / "in" / f"{index}.png").unlink()
    for settings in ({"on_changed": "rescore"}, {}):
        assert score_rows(tmp_path / "second", rows(loose), **settings) == 0
        assert len(rows_of(tmp_path / "second")) == 4
        assert faults_of(tmp_path / "second") == []


def test_an_original_that_comes_back_is_tried_again(loose: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "3.png").rename(tmp_path / "away.png")
    given = {"on_changed": "ignore", "retry_rejected": True}
    assert score_rows(tmp_path / "second", rows(loose), **given) == 0
    (tmp_path / "away.png").rename(tmp_path / "in" / "3.png")
    assert score_rows(tmp_path / "second", rows(loose), **given) == 0
    assert identity(rows_of(tmp_path / "second")) == identity(rows_of(loose))
    assert {row["status"] for row in rows_of(tmp_path / "second")} == {"scored"}


def test_rows_of_a_table_whose_column_of_images_was_named_are_found_by_that_name(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [tiny_png(index) for index in range(6)]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"depth": [b"no"] * 6, "photo": images}), tmp_path / "in" / "t.parquet")
    assert score(tmp_path / "first", tmp_path / "in", image_column="photo") == 0
    assert score_rows(tmp_path / "second", rows(tmp_path / "first")) == 0
    assert identity(rows_of(tmp_path / "second")) == identity(rows_of(tmp_path / "first"))
    contract = Plan(LOCAL, str(tmp_path / "second")).contract()
    assert contract is not None
    assert contract.locating().image_column == "photo"
    (tmp_path / "first").rename(tmp_path / "away")
    (tmp_path / "second" / "scores" / "000000-000000.parquet").unlink()
    assert score_rows(tmp_path / "second", rows(tmp_path / "first"), scan=False) == 0
    (tmp_path / "away").rename(tmp_path / "first")
    assert identity(rows_of(tmp_path / "second")) == identity(rows_of(tmp_path / "first"))
    write_parquet(tmp_path / "other" / "t.parquet", {"a.png": images[0]})
    assert score(tmp_path / "unnamed", tmp_path / "other") == 0
    with pytest.raises(CallerError, match=r"no column of images named, and others .* --image-column photo"):
        score_rows(tmp_path / "third", rows(tmp_path / "first"), rows(tmp_path / "unnamed"))


def test_a_column_of_keys_is_that_of_other_inputs(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in" / "t.parquet", {f"{index}.png": tiny_png(index) for index in range(6)})
    assert score(tmp_path / "first", tmp_path / "in") == 0
    given = rows(tmp_path / "first")
    with pytest.raises(CallerError, match="--id-column name: none of the inputs is a table with columns"):
        score_rows(tmp_path / "second", given, id_column="name")
    assert not (tmp_path / "second").exists()
    line = f'{{"image": "{tmp_path}/x.png", "name": "mine"}}'
    write_folder(tmp_path, {"x.png": tiny_png(9), "beside.jsonl": f"{line}\n".encode()})
    assert score_rows(tmp_path / "second", given, str(tmp_path / "beside.jsonl"), id_column="name") == 0
    keys = [row["key"] for row in rows_of(tmp_path / "first")]
    assert sorted(row["key"] for row in rows_of(tmp_path / "second")) == sorted([*keys, "mine"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("scores:{root}/nowhere", "--input scores:{root}/nowhere: no score table is there"),
        ("scores:{root}/first?where=distorsion < 2", "where 'distorsion < 2': column \"distorsion\" not found"),
        ("scores:{root}/first?where=layout", "it is a FLOAT, not a condition"),
        ("scores:{root}/first?wher=layout < 2", "the only option is"),
        ("scores:{root}/first?where= ", "the condition is empty"),
        ("scores:?where=layout < 2", "the place is empty"),
        ("scores:{root}/first?where=layout < 0", "nothing to score there (no row passes)"),
        ("scores:{root}/first?where=CAST(key AS INT) > 1", "the engine stopped"),
    ],
)
def test_what_is_no_input_is_refused_before_anything_is_written(
    loose: Path, tmp_path: Path, given: str, message: str
) -> None:
    with pytest.raises(CallerError) as caught:
        score_rows(tmp_path / "second", given.format(root=tmp_path))
    assert str(caught.value).startswith("--input scores:")
    assert message.format(root=tmp_path) in str(caught.value)
    assert not (tmp_path / "second").exists()


def test_an_output_has_one_condition_on_a_table(loose: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    assert score_rows(second, rows(loose, "layout < 4")) == 0
    for other in (rows(loose, "layout < 3"), rows(loose)):
        with pytest.raises(CallerError, match=f"scores:{loose}.where: layout < 4 there, "):
            score_rows(second, other)
    with pytest.raises(CallerError, match="join the conditions by OR"):
        score_rows(tmp_path / "third", rows(loose, "layout < 3"), rows(f"{loose}/", "layout > 4"))
    write_folder(tmp_path / "beside", {"x.png": tiny_png(50)})
    assert score_rows(second, str(tmp_path / "beside")) == 0  # a run need not name it again
    for inside in (loose, loose / "more"):
        with pytest.raises(CallerError, match="lies inside of"):
            score_rows(inside, rows(loose))


def test_a_dry_run_times_rows_that_are_not_planned_yet(
    loose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = AssessorConfig(checkpoint="fake:")
    given, output = [rows(loose, "layout < 9")], str(tmp_path / "second")
    settings = ScoreSettings(input=given, output=output, assessor=fake, chunk_images=2, dry_run=True, estimate=True)
    assert score_job(settings) == 0
    assert "8 images" in (said := capsys.readouterr().out)
    assert "images/s here in one process" in said
    assert not (tmp_path / "second").exists()


@pytest.mark.s3
def test_a_table_and_its_originals_may_lie_in_a_store(s3: Bucket, tmp_path: Path) -> None:
    images = {f"{index}.png": tiny_png(index) for index in range(8)}
    write_tar(tmp_path / "a.tar", images)
    s3.put("in/a.tar", (tmp_path / "a.tar").read_bytes())
    for name, data in images.items():
        s3.put(f"in/{name}", data)
    options = {"storage_options": storage_options(s3.endpoint)}
    assert score_rows(s3.uri("first"), s3.uri("in"), **options) == 0
    assert score_rows(tmp_path / "second", rows(s3.uri("first"), "layout < 3.5"), **options) == 0
    found = rows_of(tmp_path / "second")
    assert 4 <= len(found) < 16
    assert {row["status"] for row in found} == {"scored"}
    assert all(row["layout"] == row["input_layout"] < 3.5 for row in found)
