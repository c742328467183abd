"""The caller's mistakes: exit code 2, one clear message, nothing written. Ray is never started for them.

Tests jobs/claims.py, jobs/command.py, jobs/assessing/dry_run.py, jobs/assessing/job.py, jobs/assessing/settings.py,
jobs/scoring/job.py and jobs/scoring/settings.py.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import CallerError
from iqa_core.storage.outputs import SUBMITTED
from jobs.command import JobSettings, parse
from jobs.compaction.settings import CompactSettings
from jobs.evaluation.flow import evaluate
from jobs.evaluation.settings import EvaluateSettings
from jobs.fusion.flow import fit
from jobs.fusion.settings import FusionSettings
from jobs.scoring.flow import score
from jobs.scoring.settings import ScoreSettings
from jobs.selection.flow import select
from jobs.selection.settings import SelectSettings
from jobs.train_grpo import main as rank
from jobs.train_sft import main as train
from jobs.training.ranking_settings import RankingSettings
from jobs.training.settings import TrainSettings
from tests.corpora import tiny_png, write_asking, write_folder, write_list
from tests.jobs import running
from tests.selection.scored_corpora import score as table_of


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_folder(tmp_path / "in", {f"{index}.png": tiny_png(index) for index in range(3)})
    return tmp_path / "in"


@pytest.fixture
def refused(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The message of a run that must not begin; whatever lies in tmp_path stays as it was."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where nothing is: connecting would be another error

    def message(*arguments: object, output: Path = tmp_path / "out", given: object = corpus) -> str:
        flags = running.over(["--input", given, "--output", output, "--assessor.checkpoint", "fake:"], *arguments)
        before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(CallerError) as caught:
            score(parse(ScoreSettings, flags))
        assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "nothing is written"
        return str(caught.value)

    return message


@pytest.mark.slow
def test_as_a_process_it_is_one_message_and_exit_code_2(tmp_path: Path, corpus: Path) -> None:
    code, output = running.run("--input", corpus, "--output", tmp_path / "out", "--rubric", "interior-v9")
    assert code == 2
    assert output.startswith("error: no rubric 'interior-v9'")
    assert "Traceback" not in output
    assert not (tmp_path / "out").exists()


def test_flags(refused: Callable[..., str]) -> None:
    assert "--inptu" in refused("--inptu", "x")
    assert "--assessor.chekpoint" in refused("--assessor.chekpoint", "x")
    assert "--lim" in refused("--lim", "3"), "no abbreviations"
    assert "--limit: Input should be greater than or equal to 1 (got '0')" in refused("--limit", "0")
    assert "--on-changed" in refused("--on-changed", "maybe")
    assert "--carry seed" in refused("--carry", "seed")
    assert "--carry seed:int63" in refused("--carry", "seed:int63")
    assert "--estimate belongs to --dry-run" in refused("--estimate")
    assert "exclude each other" in refused("--strict-check", "--no-check")
    assert "exclude each other" in refused("--image-column", "a", "--uri-column", "b")
    with pytest.raises(CallerError, match="--input: is required; --output: is required"):
        parse(ScoreSettings, [])


def test_flags_that_are_given_twice(tmp_path: Path, refused: Callable[..., str]) -> None:
    for flags, both in (
        (("--limit", 3, "--limit=4"), "--limit is given twice, as '3' and as '4'"),
        (("--assessor.threads", 1, "--assessor.threads", 2), "--assessor.threads is given twice, as '1' and as '2'"),
        (("--probs", "--no-probs"), "--probs and --no-probs exclude each other"),
        (("--config", "a", "--config", "b"), "--config is given twice, as 'a' and as 'b'"),
        (("--carry", "seed:int64", "--carry", "seed:string"), "--carry seed is given twice, as int64 and as string"),
    ):
        assert both in refused(*flags)
    said = refused("--storage-options", '{"secret": "hush"}', "--storage-options", '{"key": "hush"}')
    assert "--storage-options is given twice" in said
    assert "hush" not in said
    config = tmp_path / "job.toml"
    config.write_text("chunk-images = 1\nchunk_images = 2\n")
    assert "chunk-images is there twice" in refused("--config", config)


def test_in_a_submitted_job_what_lies_in_its_package(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SUBMITTED, "{}")
    assert "--output out/scores: in a submitted job" in refused(output=Path("out/scores"))
    assert "--input in: in a submitted job" in refused(given="in")
    assert "--input out: in a submitted job" in refused(given="scores:out?where=source <> 's3://a'")
    assert parse(ScoreSettings, ["--input", "scores:/data/out", "--output", "s3://a/out"]).input == ["scores:/data/out"]
    config = tmp_path / "job.toml"
    config.write_text('output = "out"\n')
    for settings, flags in (
        (SelectSettings, ["--scores", "a", "--output", "out"]),
        (TrainSettings, ["--train", "a", "--output", "out"]),
        (EvaluateSettings, ["--annotations", "a", "--output", "out"]),
        (FusionSettings, ["--scores", "a", "--pairs", "b", "--output", "out"]),
        (SelectSettings, ["--scores", "a", "--config", str(config)]),
    ):
        with pytest.raises(CallerError, match="--output out: in a submitted job"):
            parse(settings, flags)
    with pytest.raises(CallerError, match=r"--plots a\.png: in a submitted job"):
        parse(EvaluateSettings, ["--annotations", "a", "--plots", "a.png"])
    with pytest.raises(CallerError, match="--scores out: in a submitted job"):
        parse(CompactSettings, ["--scores", "out"])
    assert parse(SelectSettings, ["--scores", "a", "--output", "/data/out"]).output == "/data/out"


def test_toml(tmp_path: Path, refused: Callable[..., str]) -> None:
    config = tmp_path / "job.toml"
    config.write_text("chunk-images = 7\n[assessor]\nbatch-token = 3\n")
    assert "--assessor.batch-token: there is no such setting" in refused("--config", config)
    config.write_text("chunk-images = ")
    assert "job.toml" in refused("--config", config)
    assert "absent.toml" in refused("--config", tmp_path / "absent.toml")


def test_flags_override_toml_and_commas_belong_to_paths(tmp_path: Path) -> None:
    config = tmp_path / "job.toml"
    config.write_text('input = ["x"]\noutput = "y"\nprobs = true\n[assessor]\nbatch-tokens = 7\ndtype = "float32"\n')
    found = parse(
        ScoreSettings, ["--config", str(config), "--input", "a,b", "--input=c[1]", "--assessor.batch-tokens", "9"]
    )
    assert found.input == ["a,b", "c[1]"]
    assert (found.output, found.probs, found.assessor.batch_tokens, found.assessor.dtype) == ("y", True, 9, "float32")


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMIT", "7")
    monkeypatch.setenv("PROBS", "true")
    found = parse(ScoreSettings, ["--input", "a", "--output", "b"])
    assert (found.limit, found.probs) == (None, False)


def test_assessor_and_rubric(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "no-such-folder" in refused("--assessor.checkpoint", tmp_path / "no-such-folder")
    (tmp_path / "empty").mkdir()
    assert "config.json" in refused("--assessor.checkpoint", tmp_path / "empty")
    assert "interior-v9" in refused("--rubric", "interior-v9")
    assert "unknown" in refused("--assessor.checkpoint", "fake:?unknown=1")
    assert "weights.toml" in refused("--fusion", tmp_path / "weights.toml")


def test_columns(tmp_path: Path, refused: Callable[..., str]) -> None:
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"picture": pa.array([tiny_png(1)], pa.binary()), "n": [1]}), table)
    assert "--image-column pic" in refused("--image-column", "pic", given=table)
    assert "--id-column name" in refused("--id-column", "name", given=table)
    assert "--uri-column n" in refused("--uri-column", "n", given=table)
    assert "--carry m" in refused("--carry", "m:int64", given=table)
    assert "none of the inputs is a table" in refused("--image-column", "image")
    pq.write_table(pa.table({"n": [1]}), table)
    assert "no column can be the image" in refused(given=table)


def test_slots(tmp_path: Path, refused: Callable[..., str]) -> None:
    table, asking = tmp_path / "t.parquet", ("--rubric", write_asking(tmp_path / "asking.toml"))
    columns = {"image": pa.array([tiny_png(1)], pa.binary()), "n": [1], "tags": [["a"]], "caption": ["a room"]}
    pq.write_table(pa.table(columns), table)
    said = refused(*asking, given=table)
    assert "{prompt}, and no input has a column prompt: name another by --slot prompt=COLUMN" in said
    assert "columns there: n, tags, caption" in said
    assert "no input has columns" in refused(*asking)
    assert "no input has a column captoin" in refused(*asking, "--slot", "prompt=captoin", given=table)
    for name, kind in (("n", "int64"), ("tags", "list<")):
        assert f"--slot prompt={name}: the column is {kind}" in refused(
            *asking, "--slot", f"prompt={name}", given=table
        )
    assert "has no slot promt (slots are prompt)" in refused(*asking, "--slot", "promt=caption")
    assert "has no slot prompt (it has none)" in refused("--slot", "prompt=caption")
    assert "--slot prompt is given twice" in refused(*asking, "--slot", "prompt=caption", "--slot", "prompt=n")
    assert "--slot-too-long: Input should be 'refuse' or 'cut'" in refused(*asking, "--slot-too-long", "shrink")
    assert "--slot-chars: " in refused(*asking, "--slot-chars", "0")
    assert "the rubric has none" in refused("--slot-chars", "9")


def test_input(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "nowhere" in refused(given=tmp_path / "nowhere")
    (tmp_path / "void").mkdir()
    assert "nothing to score" in refused(given=tmp_path / "void")
    (tmp_path / "void" / "notes.txt").write_text("x")
    assert "passed over: 1 txt" in refused(given=tmp_path / "void")
    (tmp_path / "list.json").write_text("[]")
    assert ".json" in refused(given=tmp_path / "list.json")
    (tmp_path / "list.jsonl").write_text("{oops\n")
    assert "is not JSON" in refused(given=tmp_path / "list.jsonl")
    assert "Windows" in refused(given="C:\\images")
    assert "gcsfs" in refused(given="gs://bucket/images")
    assert "nosuch://" in refused(given="nosuch://bucket/images")
    assert "nothing at this place" in refused(given="zip://images::/nowhere/a.zip")
    write_list(tmp_path / "list.jsonl", [])
    assert "nothing to score" in refused(given=tmp_path / "list.jsonl")


def test_output(tmp_path: Path, corpus: Path, refused: Callable[..., str]) -> None:
    assert "lies inside of --input" in refused(output=corpus / "scores")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(output=tmp_path / "file" / "out")
    assert "cannot be written to" in refused(output=Path("/proc/scores"))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert "is a link to nothing" in refused(output=tmp_path / "dangling")
    assert "no plan yet" in refused("--no-scan")


def test_outputs_of_the_other_jobs_are_looked_at_before_anything_is_read(tmp_path: Path, corpus: Path) -> None:
    scores = table_of(tmp_path / "scores", corpus)
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "training.json").write_text("{}")
    # what is read comes later, so it may be nothing: the output is what is refused
    nothing = str(tmp_path / "nothing.csv")
    writers: list[tuple[Callable[[Any], int], type[JobSettings], list[str], bool]] = [
        (select, SelectSettings, ["--scores", str(scores), "--top-k", "1", "--output"], True),
        (train, TrainSettings, ["--train", nothing, "--output"], True),
        (rank, RankingSettings, ["--train", nothing, "--output"], True),
        (evaluate, EvaluateSettings, ["--annotations", nothing, "--output"], False),
        (fit, FusionSettings, ["--scores", nothing, "--pairs", nothing, "--output"], False),
    ]
    before = sorted(tmp_path.rglob("*"))
    for job, settings, flags, is_folder in writers:
        places = [
            ("file/out", "is a file"),
            ("dangling", "is a link to nothing"),
            ("/proc/out", "cannot be written to"),
        ]
        if is_folder:
            places += (
                [("trained", "holds a training run")] if job not in (train, rank) else [("scores", "holds scores")]
            )
        else:
            places += [("in", "is a folder")]
        for place, why in places:
            with pytest.raises(CallerError, match=why):
                job(parse(settings, [*flags, str(tmp_path / place)]))
    exported = ["--scores", str(scores), "--export", "webdataset", "--ray-address", "http://127.0.0.1:8265", "--output"]
    with pytest.raises(CallerError, match="a cluster is named HOST:6379"):
        select(parse(SelectSettings, [*exported, str(tmp_path / "chosen")]))
    with pytest.raises(CallerError, match=r"--plots .*is a file"):
        evaluate(parse(EvaluateSettings, ["--annotations", nothing, "--plots", str(tmp_path / "file" / "a.png")]))
    assert sorted(tmp_path.rglob("*")) == before


def test_output_of_another_fingerprint_names_what_differs(tmp_path: Path, refused: Callable[..., str]) -> None:
    out = tmp_path / "out"
    (out / "plan").mkdir(parents=True)
    settings = parse(
        ScoreSettings, ["--input", str(tmp_path / "in"), "--output", str(out), "--assessor.checkpoint", "fake:"]
    )
    from iqa_core.corpus.plan.proposal import apply
    from jobs.assessing.proposing import proposed
    from jobs.scoring.job import checked

    job = checked(settings)
    assert apply(job.plan, proposed(job))
    said = refused("--rubric", "interior-v3", "--chunk-images", 7, "--min-side", 9, "--probs", "--id-column", "name")
    digest = job.spec.fingerprint_parts["rubric"]
    assert f"  rubric: interior-v1 of the checkpoint ({digest[:12]}…) there, interior-v3 (" in said
    for name in ("chunk_images", "columns.id", "image_limits", "probs", "prompt_version"):
        assert f"\n  {name}: " in said, "all that differs"
    assert digest not in said
    rubric = tmp_path / "rooms.toml"
    rubric.write_text(resources.files("iqa_core.rubrics").joinpath("interior-v2.toml").read_text())
    assert "now\n" in refused("--rubric", rubric)
    assert "interior-v2 of rooms.toml (" in refused("--rubric", rubric)
    assert "image_limits: " in refused("--min-side", "9")
    assert "chunk_images: 1024 there, 7 now" in refused("--chunk-images", "7")
    assert "probs: False there, True now" in refused("--probs")
    weights = tmp_path / "weights.toml"
    weights.write_text('source = "by hand"\n[weights]\nlayout = 3\nharmony = 1\nlighting = 1\ndistortion = 1\n')
    assert "fusion: equal weights there, weights " in refused("--fusion", weights)


def test_dry_run_writes_nothing_and_shows_no_secret(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--input",
        str(corpus),
        "--output",
        str(tmp_path / "out"),
        "--assessor.checkpoint",
        "fake:",
        "--dry-run",
    ]
    secret = ["--storage-options", '{"secret": "hush", "endpoint_url": "http://127.0.0.1:1"}']
    assert score(parse(ScoreSettings, [*arguments, *secret])) == 0
    shown = capsys.readouterr().out
    assert "3 images" in shown
    assert "hush" not in shown
    assert "http://127.0.0.1:1" in shown
    assert not (tmp_path / "out").exists()


def test_estimate_times_images_and_says_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "many", {f"{index:03d}.png": tiny_png(index) for index in range(100)})
    flags = ["--input", str(tmp_path / "many"), "--output", str(tmp_path / "out"), "--assessor.checkpoint", "fake:"]
    assert score(parse(ScoreSettings, [*flags, "--dry-run", "--estimate", "--price-per-hour", "2"])) == 0
    shown = capsys.readouterr().out
    assert "64 images timed" in shown
    assert "100 images take 0.00 h" in shown
    assert "cost 0.00" in shown
