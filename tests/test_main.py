"""The small commands' refusals: exit code 2, one message, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.__main__ import main
from iqa_core.storage.outputs import SUBMITTED
from tests.corpora import tiny_png, write_folder
from tests.selection.scored_corpora import score


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a score table, a foreign one, a damaged one, opinions, a file and a link to nothing."""
    write_folder(tmp_path / "in", {f"{index}.png": tiny_png(index) for index in range(3)})
    for name in ("scores", "foreign", "damaged"):
        score(tmp_path / name, tmp_path / "in")
    (tmp_path / "foreign" / "plan" / "000000.json").write_text('{"fingerprint": 1}')
    for file in (tmp_path / "damaged" / "scores").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    (tmp_path / "opinions.csv").write_text("image,dimension,mos\nin/0.png,layout,3\n")
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], line: str) -> str:
    assert main(line.split(" ")) == 2, line
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    return said


WRITERS = (
    "report --scores scores --output ",
    "scenes --count 1 --output ",
    "convert --annotations opinions.csv --rubric interior-v1 --output sa-bench:",
    "check --checkpoint fake: --ladder in --output ",
    "rubric q-realign in --output ",
)


def test_outputs(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(here.rglob("*"))
    for output, why in (
        ("file/out", "is a file; give a folder"),
        ("dangling", "is a link to nothing"),
        ("/proc/out", "/proc cannot be written to"),
        ("s3://bucket/out", "this is written to this machine alone"),
        ("n" * 300, "nothing can lie at such a place"),
        ("", "is empty"),
    ):
        for command in WRITERS:
            assert why in refused(capsys, command + output)
    monkeypatch.setenv(SUBMITTED, "{}")
    for command in WRITERS:
        assert "--output out: in a submitted job" in refused(capsys, f"{command}out")
    assert "--output report.html: in a submitted job" in refused(capsys, "report --scores scores")
    assert sorted(here.rglob("*")) == before


def test_tables_that_are_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status {}", "status {} --verify", "report --scores {}"):
        assert "laid down by another version of the program" in refused(capsys, command.format("foreign"))
        for place in ("nowhere", "file", "dangling", "in"):
            assert "jobs/score_corpus.py" in refused(capsys, command.format(place))
    assert main(["report", "--scores", "damaged"]) == 2
    assert "it is no whole score file" in capsys.readouterr().err
    assert main(["status", "damaged", "--verify"]) == 1
    assert "000000-000000: " in capsys.readouterr().out
    assert not (here / "report.html").exists()


def test_scenes_have_one_kind_of_flaw(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main("scenes --local --flawed --count 1 --output new".split())
    assert caught.value.code == 2
    assert "--flawed: not allowed with argument --local" in capsys.readouterr().err
    assert not (here / "new").exists()


def test_a_flag_that_is_given_twice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line, both in (
        ("report --scores scores --scores foreign", "as 'scores' and as 'foreign'"),
        ("scenes --count 1 --count 2 --output new", "as '1' and as '2'"),
        ("check --checkpoint fake: --checkpoint demo", "as 'fake:' and as 'demo'"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(line.split())
        assert caught.value.code == 2
        assert f"is given twice, {both}, and takes one value" in capsys.readouterr().err
    assert not (here / "new").exists()
