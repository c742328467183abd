"""One image by several ways: a link, another spelling, a mount, a list beside its folder -> one row."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from iqa_core.corpus.overlaps import distinct_inputs, lies_in
from tests.corpora import tiny_png, write_folder, write_list, write_tar
from tests.corpus.planned import Output, read

NAMES = ["a.png", "b.png", "sub/c.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "in", {name: tiny_png(index) for index, name in enumerate(NAMES)})
    write_tar(tmp_path / "in" / "sub" / "d.tar", {"d.png": tiny_png(7)})
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "sub").symlink_to("in/sub")
    return tmp_path / "in"


def test_inputs_that_are_one_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder.parent
    monkeypatch.chdir(root)
    for spelt in ("in/", "./in", "in/../in", f"file://{folder}", f"FILE://localhost{folder}/", "link", "link/sub/.."):
        assert distinct_inputs(["in", spelt]) == [str(folder)], spelt
    assert distinct_inputs(["link", "in"]) == [str(root / "link")], "the first names it"
    assert distinct_inputs(["sub", "link"]) == [str(root / "link" / "sub"), str(root / "link")]
    assert distinct_inputs(["in/sub", "link"]) == [str(root / "link" / "sub"), str(root / "link")]
    assert distinct_inputs(["link/a.png", "in/a.png", "sub/d.tar"]) == [
        str(root / "link/a.png"),
        str(root / "sub/d.tar"),
    ]
    assert distinct_inputs(["in", "link/a.png"]) == [str(folder), str(folder / "a.png")]
    assert distinct_inputs(["nowhere", "in"]) == [str(root / "nowhere"), str(folder)]
    assert distinct_inputs(["s3://b/k/", "s3a://b/k", "S3://b/K", "s3a://c"]) == ["s3://b/k", "s3://b/K", "s3a://c"]
    (root / "blob").write_bytes(b"")
    (root / "named.png").symlink_to("blob")
    assert distinct_inputs([str(root), "named.png"]) == [str(root), str(root / "named.png")], (
        "a name that says what it is"
    )
    assert lies_in(str(root / "link" / "out"), str(folder))
    assert not lies_in(str(root / "inner"), str(folder))


def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.makedirs(os.path.join(odd, b"sub"))
    (tmp_path / "link").symlink_to(os.fsdecode(odd))
    uri = f"file://{tmp_path}/caf%E9"
    assert distinct_inputs([uri, str(tmp_path / "link" / "sub")]) == [uri, f"{uri}/sub"]


def test_each_way_together_is_one_row_each(folder: Path, tmp_path: Path) -> None:
    expected = {"a.png", "b.png", "sub/c.png", "d.png"}
    ways = [tmp_path / "link", tmp_path / "sub", folder / "a.png", tmp_path / "link" / "sub" / "d.tar", f"{folder}/./"]
    images = read(tmp_path / "out", folder, *ways)
    assert {image.key for image in images} == expected
    assert len(images) == 4


def test_a_list_of_a_folders_files_has_their_rows(folder: Path, tmp_path: Path) -> None:
    """With its columns; the folder has the others. Two rows of a list are two rows: it says itself what it holds."""
    paths = [folder / "a.png", f"file://{tmp_path}/link/a.png", "link/../in/sub/c.png", tmp_path / "nowhere.png"]
    write_list(tmp_path / "list.jsonl", map(str, paths))
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "link", tmp_path / "list.jsonl")
    images = output.images()
    assert [image.source for image in images if image.carried["seed"] is not None] == [
        *(str(path) for path in paths[:2]),
        f"{tmp_path}/{paths[2]}",
        str(paths[3]),
    ]
    assert sorted(image.key for image in images if image.carried["seed"] is None) == ["b.png", "d.png"]
    before = output.rows()
    assert not output.extend(tmp_path / "link", tmp_path / "list.jsonl").chunks, "and a second run finds nothing new"
    assert output.rows() == before


def test_an_output_that_was_begun_with_both_goes_on(folder: Path, tmp_path: Path) -> None:
    """What is planned twice in it stays so; nothing vanishes, and what is new comes once."""
    output = Output(tmp_path / "out")
    write_list(tmp_path / "list.jsonl", [str(folder / "a.png")])
    output.extend(folder)
    output.extend(tmp_path / "link")
    output.extend(tmp_path / "list.jsonl")
    before = output.rows()
    assert len(output.images()) == 9
    write_folder(folder, {"new.png": tiny_png(9)})
    output.extend(folder, tmp_path / "link", tmp_path / "list.jsonl")
    assert [row for row in output.rows() if row in before] == before
    assert [image.source for image in output.images() if image.key == "new.png"] == [str(folder / "new.png")]


def test_a_folder_that_is_mounted_twice(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    if subprocess.run(["mount", "--bind", folder, tmp_path / "mounted"], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        assert distinct_inputs([str(folder), str(tmp_path / "mounted" / "sub")]) == [str(folder), str(folder / "sub")]
    finally:
        subprocess.run(["umount", tmp_path / "mounted"], check=True)


def test_what_a_list_names_that_lies_nowhere(folder: Path, tmp_path: Path) -> None:
    odd = [
        "data:image/png;base64,AAAA",
        "half\ud83d.png",
        "nul\0.png",
        "x" * 300,
        "http://[",
        "s3a://b/k",
        "",
        "file:///%ff",
    ]
    write_list(tmp_path / "list.jsonl", odd)
    assert len(list(Output(tmp_path / "out").proposal(folder, tmp_path / "list.jsonl").chunks)) > 2
