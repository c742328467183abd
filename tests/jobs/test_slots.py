"""Images with texts, through planning and the worker's loop (no Ray) -> each is asked about its own text.

The fake's score of `likeness` depends on every letter of the text, that of `quality` on the image alone.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.corpus.batches import ReadyBatch
from iqa_core.errors import CallerError
from iqa_core.records import Assessment, Reason, Rejection
from iqa_core.status import status
from iqa_core.tables.sink import Sink
from jobs.assessing.dry_run import print_dry_run
from jobs.assessing.isolation import SingleReader
from jobs.assessing.proposing import applied, proposed
from jobs.assessing.work import AssessBatches, ChunkTask, ReadChunks, from_assessed_row
from jobs.scoring.job import ScoringJob, checked
from jobs.scoring.settings import ScoreSettings
from tests.corpora import assessed_alone, tiny_png, write_asking, write_folder
from tests.jobs.operations import LOCAL, a_minute_later, killed_at, rows_of, score, scoring
from tests.jobs.running import read_run

pytestmark = pytest.mark.slow

IMAGES = {f"{index:02d}.png": tiny_png(index, size=24 + 5 * (index % 4)) for index in range(24)}
TEXTS = {name: f"picture {name}, {'a room with a lamp, ' * (int(name[:2]) % 5)}" for name in IMAGES}
DIMENSIONS = ("likeness", "quality")


def _parquet(root: Path) -> dict[str, Any]:
    columns = {
        "image": pa.array(IMAGES.values(), pa.binary()),
        "id": list(IMAGES),
        "caption": pa.array(TEXTS.values()).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), root / "a.parquet", row_group_size=7)
    return {"slot": ["prompt=caption"], "id_column": "id", "image_column": "image"}


def _csv(root: Path) -> dict[str, Any]:
    write_folder(root.parent / "elsewhere", IMAGES)
    with (root / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["uri", "id", "prompt"], *([f"../elsewhere/{name}", name, TEXTS[name]] for name in IMAGES)]
        )
    return {"input": [str(root / "a.csv")], "id_column": "id"}


def _jsonl(root: Path) -> dict[str, Any]:
    write_folder(root.parent / "elsewhere", IMAGES)
    rows = [{"uri": f"../elsewhere/{name}", "id": name, "text": TEXTS[name]} for name in IMAGES]
    (root / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"input": [str(root / "a.jsonl")], "id_column": "id", "slot": ["prompt=text"]}


def _tar(path: Path, sidecar: str, content: Callable[[str], str]) -> None:
    """Sidecars stand before and after their images, by turns."""
    with tarfile.open(path, "w") as tar:
        for index, (name, data) in enumerate(IMAGES.items()):
            members = [(name, data), (f"{Path(name).stem}.{sidecar}", content(TEXTS[name]).encode())]
            for member, held in members[:: 1 if index % 2 else -1]:
                info = tarfile.TarInfo(member)
                info.size = len(held)
                tar.addfile(info, io.BytesIO(held))


def _tar_with_txt(root: Path) -> dict[str, Any]:
    _tar(root / "a.tar", "txt", lambda text: f"{text}\n")
    return {"slot": ["prompt=txt"]}


def _tar_with_json(root: Path) -> dict[str, Any]:
    _tar(root / "a.tar", "json", lambda text: json.dumps({"caption": text, "seed": 3}))
    return {"slot": ["prompt=caption"], "carry": ["caption:string"]}


def _img2dataset(root: Path) -> dict[str, Any]:
    """A tar, and a table of its name beside it."""
    _tar(root / "00000.tar", "txt", lambda _: "what was alt text")
    rows = [{"key": Path(name).stem, "caption": TEXTS[name], "status": "success"} for name in reversed(IMAGES)]
    pq.write_table(pa.Table.from_pylist(rows), root / "00000.parquet")
    return {"slot": ["prompt=caption"]}


def _folder(root: Path) -> dict[str, Any]:
    write_folder(root, IMAGES)
    rows = [json.dumps({"file_name": name, "prompt": TEXTS[name]}) for name in reversed(IMAGES)]
    (root / "metadata.jsonl").write_text("\n".join(rows))
    return {}


def _saved(root: Path) -> dict[str, Any]:
    table = pa.table({"id": list(IMAGES), "image": list(IMAGES.values()), "prompt": list(TEXTS.values())})
    with pa.OSFile(str(root / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return {"input": [str(root / "a.arrow")], "id_column": "id"}


KINDS = (_parquet, _csv, _jsonl, _tar_with_txt, _tar_with_json, _img2dataset, _folder, _saved)


def planned(tmp_path: Path, given: Mapping[str, Any], out: str = "out", **settings: Any) -> ScoringJob:
    return checked(
        ScoreSettings(
            **{
                "input": [str(tmp_path / "in")],
                "output": str(tmp_path / out),
                "rubric": str(write_asking(tmp_path / "asking.toml")),
                "assessor": AssessorConfig(checkpoint="fake:"),
                **given,
                **settings,
            }
        )
    )


def worked(job: ScoringJob) -> list[dict[str, Any]]:
    """Rows as actors send them to the driver, by key: batches travel as tables, as between processes."""
    contract = applied(job, proposed(job))
    work = job.work(contract, threads=1)
    read, assess, sink = ReadChunks(work), AssessBatches(lambda: work), Sink()
    rows = []
    for chunk in job.plan.chunks():
        for ready in read(ChunkTask.of(chunk)):
            done = assess(ready)
            batch = from_assessed_row({name: done.column(name)[0] for name in done.column_names})
            assert not hasattr(batch, "message"), batch
            if (complete := sink.add(batch)) is not None:
                rows += complete.rows().to_pylist()
    assert sink.open == {}
    return sorted(rows, key=lambda row: str(row["key"]))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Key -> scores of each image alone, asked about its own text."""
    rubric = write_asking(tmp_path_factory.mktemp("alone") / "asking.toml")
    texts = {name: text.strip() for name, text in TEXTS.items()}
    found = assessed_alone(IMAGES, texts, rubric)
    of_others = assessed_alone(IMAGES, dict.fromkeys(TEXTS, "another text"), rubric)
    for name, result in found.items():
        other = of_others[name]
        assert isinstance(result, Assessment)
        assert isinstance(other, Assessment)
        assert result.scores_K[0] != other.scores_K[0], "the score depends on the text"
        assert result.scores_K[1] == other.scores_K[1], "and that of the question without a slot does not"
    return {name: result.scores_K.tolist() for name, result in found.items() if isinstance(result, Assessment)}


def check(rows: list[dict[str, Any]], alone: Mapping[str, list[float]]) -> None:
    """Each image has the scores that it has alone."""
    assert {row["status"] for row in rows} == {"scored"}
    found = {row["key"]: [row[name] for name in DIMENSIONS] for row in rows}
    assert found.keys() == alone.keys()
    for key, scores in found.items():
        assert scores == pytest.approx(alone[key], abs=1e-6), key


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_texts_of_every_kind_of_source_stay_with_their_images(
    kind: Callable[[Path], dict[str, Any]], alone: dict[str, list[float]], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    check(worked(planned(tmp_path, kind(tmp_path / "in"), chunk_images=9)), alone)


def test_so_they_do_in_batches_and_chunks_of_any_size(alone: dict[str, list[float]], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    given = _folder(tmp_path / "in")
    for tokens in (1, 1200, 10**6):
        assessor = AssessorConfig(checkpoint="fake:", batch_tokens=tokens)
        check(worked(planned(tmp_path, given, f"out{tokens}", assessor=assessor, chunk_images=5 + tokens)), alone)


def test_so_they_do_where_a_batch_raises_and_where_images_are_tried_alone(
    alone: dict[str, list[float]], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    given = _folder(tmp_path / "in")
    write_folder(tmp_path / "in", {"05-poison.png": tiny_png(5, corner=(255, 0, 0))})
    with (tmp_path / "in" / "metadata.jsonl").open("a") as file:
        file.write('\n{"file_name": "05-poison.png", "prompt": "poison"}')
    job = planned(tmp_path, given, assessor=AssessorConfig(checkpoint="fake:?raise_on=ff0000"))
    poisoned, *others = sorted(worked(job), key=lambda row: row["key"] != "05-poison.png")
    assert poisoned["reason"] == Reason.ASSESSOR_FAILED
    check(others, alone)
    contract = job.plan.contract()
    assert contract is not None
    work = job.work(contract, threads=1)
    reader, assessor = SingleReader(lambda: work), AssessBatches(lambda: work)
    [chunk] = job.plan.chunks()
    rows = []
    for ordinal in reversed(range(len(IMAGES) + 1)):
        batch = reader.read(chunk.to_bytes(), ordinal)
        assert isinstance(batch, ReadyBatch)
        rows += assessor.assess(batch).rows.to_pylist()
    check([row for row in rows if row["key"] != "05-poison.png"], alone)
    crashed = reader.reject(chunk.to_bytes(), 3, Rejection(Reason.CORRUPT, "it crashed"))
    assert isinstance(crashed, ReadyBatch)
    assert crashed.rejections[0] == Rejection(Reason.CORRUPT, "it crashed")


def _odd(root: Path) -> dict[str, Any]:
    """Images without a text, with long ones, and one that is none."""
    texts = [None, " \n", "a room", "a" * 30, f"   {'b' * 10}   ", "c" * 11]
    images = [*(tiny_png(index) for index in range(5)), b"no image"]
    columns = {"image": pa.array(images, pa.binary()), "id": list("012345"), "prompt": texts}
    root.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), root / "a.parquet")
    return {"id_column": "id", "image_column": "image", "slot_chars": 10, "max_reject_rate": 1.0}


def _settings(tmp_path: Path) -> dict[str, Any]:
    return {"rubric": str(write_asking(tmp_path / "asking.toml"))}


def test_an_image_without_a_text_is_rejected_and_a_long_one_refused_or_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**_odd(tmp_path / "in"), **_settings(tmp_path)}
    assert score(tmp_path / "refused", tmp_path / "in", **given) == 0
    rows = rows_of(tmp_path / "refused")
    assert [row["reason"] for row in rows] == [
        Reason.MISSING_TEXT,
        Reason.MISSING_TEXT,
        None,
        Reason.TOO_LARGE,
        None,
        Reason.UNSUPPORTED_FORMAT,
    ]
    assert (rows[0]["width"], rows[0]["format"], rows[0]["reward"]) == (24, "png", None), "its header is known"
    assert all(row["sha256"] for row in rows)
    record = read_run(tmp_path / "refused")
    assert record["rejected_by_reason"]["missing_text"] == 2
    assert record["texts_cut"] == 0
    assert record["slots"] == {"columns": {"prompt": "prompt"}, "too_long": "refuse", "max_chars": 10}

    assert score(tmp_path / "cut", tmp_path / "in", slot_too_long="cut", **given) == 0
    assert "texts cut           1" in capsys.readouterr().out, "an image that was not scored does not count"
    rows, record = rows_of(tmp_path / "cut"), read_run(tmp_path / "cut")
    assert (record["texts_cut"], record["this_run"]["texts_cut"]) == (1, 1)
    assert rows[3]["prompt"] == "a" * 30, "carried as it was"
    short = assessed_alone({"3": tiny_png(3)}, {"3": "a" * 10}, tmp_path / "asking.toml")["3"]
    assert isinstance(short, Assessment)
    assert rows[3]["likeness"] == pytest.approx(float(short.scores_K[0]), abs=1e-6)

    pq.write_table(pq.read_table(tmp_path / "in" / "a.parquet").slice(3, 1), tmp_path / "in" / "b.parquet")
    assert score(tmp_path / "cut", tmp_path / "in", slot_too_long="cut", retry_rejected=True, **given) == 0
    record = read_run(tmp_path / "cut")
    assert (record["texts_cut"], record["this_run"]["texts_cut"]) == (2, 1), "counted with those of earlier runs"
    assert record["this_run"]["images"] == 1, "a missing text is no fault of the moment"


def test_a_new_input_without_the_column_is_refused_and_a_planned_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    given = _folder(tmp_path / "in")
    plain = {f"plain-{name}": data for name, data in list(IMAGES.items())[:2]}
    write_folder(tmp_path / "plain", plain)
    both = [str(tmp_path / "in"), str(tmp_path / "plain")]
    said = (
        rf"--input {tmp_path}/plain: it has no column prompt, from which the rubric's {{prompt}} comes .*no input has"
    )
    with pytest.raises(CallerError, match=said):
        proposed(planned(tmp_path, {"input": both}))
    first = planned(tmp_path, given)
    applied(first, proposed(first))
    with pytest.raises(CallerError, match=said):
        proposed(planned(tmp_path, {"input": both}))
    write_folder(tmp_path / "in", plain)
    rows = worked(planned(tmp_path, given))
    reasons = {row["key"]: row["reason"] for row in rows}
    assert reasons == {**dict.fromkeys(IMAGES), **dict.fromkeys(plain, Reason.MISSING_TEXT)}, "its folder is planned"


def test_half_a_surrogate_pair_is_letters_in_sidecars_and_in_a_notebook(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    name, image = next(iter(IMAGES.items()))
    members = [(name, image), (f"{Path(name).stem}.json", rb'{"prompt": "cut \ud83d"}')]
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as tar:
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    letters = r"cut \ud83d"
    table = pa.table({"image": [image], "id": ["parquet"], "prompt": [letters]})
    pq.write_table(table, tmp_path / "in" / "b.parquet")
    rows = worked(planned(tmp_path, {"id_column": "id", "image_column": "image", "carry": ["prompt:string"]}))
    assert [row["prompt"] for row in rows] == [letters, letters]
    assessor = load_assessor("fake:", rubric=str(write_asking(tmp_path / "asking.toml")))
    [alone] = assess_images(assessor, [image], [{"prompt": "cut \ud83d"}])
    assert isinstance(alone, Assessment)
    assert [[row[name] for name in DIMENSIONS] for row in rows] == [pytest.approx(alone.scores_K.tolist())] * 2


def test_a_run_that_is_killed_or_left_and_goes_on_makes_the_table_of_one_run(
    alone: dict[str, list[float]], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    given = {**_folder(tmp_path / "in"), **_settings(tmp_path)}
    with killed_at(tmp_path / "whole", None) as watch:
        assert score(tmp_path / "whole", tmp_path / "in", **given) == 0
    expected = rows_of(tmp_path / "whole")
    check(expected, alone)
    left = scoring(tmp_path / "left", tmp_path / "in", **given)
    assert list(islice(left, 4)) == [0] * 4
    del left
    assert score(tmp_path / "left", tmp_path / "in", scan=False, **given) == 0
    assert rows_of(tmp_path / "left") == expected
    output = tmp_path / "killed"
    with killed_at(output, watch.changes // 2) as killed:
        score(output, tmp_path / "in", **given)
    assert killed.is_over
    a_minute_later(output)
    assert score(output, tmp_path / "in", **given) == 0
    assert rows_of(output) == expected


def test_what_is_tried_again_is_asked_about_its_own_text(alone: dict[str, list[float]], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    given = {**_jsonl(tmp_path / "in"), **_settings(tmp_path), "max_reject_rate": 1.0}
    listed, away = tmp_path / "in" / "a.jsonl", [f"{index:02d}.png" for index in (1, 2, 9, 20)]
    del given["input"]
    for name in away:
        (tmp_path / "elsewhere" / name).unlink()
    assert score(tmp_path / "out", listed, **given) == 0
    assert read_run(tmp_path / "out")["rejected_by_reason"] == {"missing": 4}
    write_folder(tmp_path / "elsewhere", {name: IMAGES[name] for name in away})
    assert score(tmp_path / "out", listed, retry_rejected=True, **given) == 0
    check(rows_of(tmp_path / "out"), alone)


def test_a_run_says_first_and_status_and_report_say_later_what_is_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    given = _parquet(tmp_path / "in")
    job = planned(tmp_path, given, dry_run=True, estimate=True)
    print_dry_run(job, proposed(job))
    shown = capsys.readouterr().out
    assert "slots        {prompt} is column caption; longer than 2,000 characters: rejected" in shown
    assert " images timed" in shown
    assert not (tmp_path / "out").exists()
    assert score(tmp_path / "out", tmp_path / "in", report=True, **given, **_settings(tmp_path)) == 0
    assert "slots      {prompt} is column caption; longer" in capsys.readouterr().out
    assert status(str(tmp_path / "out"), LOCAL, verify=False, as_json=False) == 0
    assert "slots      {prompt} is column caption; longer" in capsys.readouterr().out
    assert "{prompt} is column caption; longer" in (tmp_path / "out" / "report.html").read_text()
