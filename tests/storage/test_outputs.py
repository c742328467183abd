"""Places that cannot be written to are found before anything runs, by real files, links, devices and a real limit."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.storage.outputs import PACKAGES, SUBMITTED, local_output, require_file, require_folder, require_lasting

Require = Callable[[Path], None]


def refused(require: Require, path: Path) -> str:
    with pytest.raises(CallerError) as caught:
        require(path)
    return str(caught.value)


def test_a_place_that_is_new_or_there_is_taken_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path, tmp_path / "new" / "er"):
        require_folder(folder)
    for file in (tmp_path / "file", tmp_path / "new" / "file"):
        require_file(file)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("require", [require_folder, require_file])
@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file/out", "file is a file; give a folder"),
        ("dangling", "dangling is a link to nothing"),
        ("dangling/out", "dangling is a link to nothing"),
        ("n" * 300, "nothing can lie at such a place"),
        ("/proc/out", "/proc cannot be written to"),
    ],
)
def test_a_place_that_cannot_be_written_to(tmp_path: Path, require: Require, place: str, why: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    message = refused(require, tmp_path / place)
    assert message.startswith(f"--output {tmp_path / place}")
    assert why in message


def test_a_folder_is_no_file_and_a_device_is_neither(tmp_path: Path) -> None:
    assert "it is a folder" in refused(require_file, tmp_path)
    assert "it is a device or a pipe" in refused(require_file, Path("/dev/full"))
    assert "is a file; give a folder" in refused(require_folder, Path("/dev/full"))


@pytest.mark.parametrize("require", [require_folder, require_file])
def test_a_disk_on_which_an_empty_file_can_be_made_but_nothing_be_written(tmp_path: Path, require: Require) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        message = refused(require, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written to (File too large)" in message


def test_in_a_submitted_job_only_what_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_lasting("out")
    package = tmp_path / PACKAGES.strip("/") / "_ray_pkg_1"
    package.mkdir(parents=True)
    (tmp_path / "link").symlink_to(package)
    monkeypatch.setenv(SUBMITTED, "{}")
    for lasting in ("s3://bucket/out", "/data/out", "file:///data/out"):
        require_lasting(lasting)
    for lost in ("out", "./out", "../out", str(package / "out"), str(tmp_path / "link" / "out")):
        with pytest.raises(CallerError, match=r"--plots .*deleted after the job; give an absolute path"):
            require_lasting(lost, "--plots")


def test_a_flag_of_this_machine_alone() -> None:
    assert local_output("a/b") == Path("a/b")
    with pytest.raises(CallerError, match="--output s3://bucket/x: this is written to this machine alone"):
        local_output("s3://bucket/x")
    with pytest.raises(CallerError, match="is empty"):
        local_output("")
