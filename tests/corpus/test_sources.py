"""Inputs -> sources: what is an image, what is passed over, what it is called, each once and in order."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from iqa_core.corpus.sources import Kind, Listing, Source, list_sources
from iqa_core.errors import CallerError
from iqa_core.records import Reason
from iqa_core.storage.storage import Storage
from tests.bad_images import bad_images
from tests.corpus.planned import read


def listed(*inputs: object) -> tuple[list[Source], Counter[str]]:
    listing = Listing(Counter())
    return list(list_sources(Storage(), [str(given) for given in inputs], listing)), listing.ignored


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))


def test_kinds_by_extension_in_any_case(tmp_path: Path) -> None:
    touch(tmp_path, "a.JPG", "b/c.JpEg", "d.webp", "e.AVIF", "f.heic", "g.TAR", "h.Parquet", "i.tiff")
    sources, ignored = listed(tmp_path)
    assert [(source.key, source.kind) for source in sources] == [
        ("a.JPG", Kind.IMAGE),
        ("b/c.JpEg", Kind.IMAGE),
        ("d.webp", Kind.IMAGE),
        ("e.AVIF", Kind.IMAGE),
        ("f.heic", Kind.IMAGE),
        ("g.TAR", Kind.WEBDATASET),
        ("h.Parquet", Kind.PARQUET),
        ("i.tiff", Kind.IMAGE),
    ]
    assert not ignored


def test_other_files_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "notes.txt", "x/notes.TXT", "list.csv", "list.jsonl", "cache.arrow", "README", "Makefile")
    touch(tmp_path, ".DS_Store", "a.jpg.part", "b.tar.gz")
    sources, ignored = listed(tmp_path)
    assert [source.key for source in sources] == ["a.jpg"]
    assert ignored == {"txt": 2, "csv": 1, "jsonl": 1, "arrow": 1, "without extension": 3, "part": 1, "gz": 1}


def test_a_hidden_image_is_an_image(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden.jpg", ".folder/b.jpg")
    assert [source.key for source in listed(tmp_path)[0]] == [".folder/b.jpg", ".hidden.jpg"]


def test_every_odd_name_is_read_under_a_key_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    files = {image.name: image.data for image in bad_images()}
    files |= {
        "100%41.jpg": b"literal",
        "caf\udce9.jpg": b"latin",
        "fold\udcff/a.jpg": b"deep",
        "n" * 250 + ".webp"[:5]: b"n",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    del files["no_extension"]
    images = read(tmp_path / "out", folder, chunk_images=7)
    found = {image.key: image.data for image in images}
    assert len(found) == len(images) == len(files)
    assert all(key.encode("utf-8") for key in found)
    assert {key: found[key] for key in found if key in files} == {
        name: data for name, data in files.items() if name.isascii() or not any("\udc80" <= c <= "\udcff" for c in name)
    }
    assert found["caf%E9.jpg"] == b"latin"
    assert found["fold%FF/a.jpg"] == b"deep"


def test_links_to_nothing_are_missing_and_pipes_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    touch(folder, "a.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere")
    (folder / "dangling.tar").symlink_to("nowhere")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "again").symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    sources, _ = listed(folder)
    assert [source.key for source in sources] == ["a.jpg", "circle.png", "dangling.jpg", "dangling.tar"]
    (folder / "dangling.tar").unlink()
    images = read(tmp_path / "out", folder)
    assert {image.key: image.reason for image in images} == {
        "a.jpg": None,
        "circle.png": Reason.MISSING,
        "dangling.jpg": Reason.MISSING,
    }


def test_overlapping_inputs_count_once_and_the_first_names_the_key(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/1.jpg", "a/2.jpg", "3.jpg")
    sources, _ = listed(tmp_path / "a" / "b", tmp_path, tmp_path / "a", tmp_path / "3.jpg", tmp_path / "a" / "b")
    assert [source.key for source in sources] == ["3.jpg", "a/2.jpg", "1.jpg"]


def test_inputs_are_merged_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "z/1.jpg", "a/1.jpg", "a-b/1.jpg", "m/caf\udce9.jpg", "b/caf\udce9.jpg", "m/x.jpg")
    sources, _ = listed(*(tmp_path / name for name in ("z", "m", "b", "a-b", "a")))
    uris = [source.uri for source in sources]
    assert uris == sorted(uris)
    assert len(uris) == 6


def test_a_folder_that_is_a_link_is_an_input(tmp_path: Path) -> None:
    touch(tmp_path, "real/1.jpg")
    (tmp_path / "link").symlink_to("real")
    assert [source.uri for source in listed(tmp_path / "link")[0]] == [str(tmp_path / "link" / "1.jpg")]


def test_a_folder_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    touch(tmp_path, "in\udcff/a.jpg", "in\udcff/b/c.jpg")
    assert [source.key for source in listed(tmp_path / "in\udcff")[0]] == ["a.jpg", "b/c.jpg"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", Kind.LIST),
        ("a.JSONL", Kind.LIST),
        ("a.ndjson", Kind.LIST),
        ("a.arrow", Kind.ARROW),
        ("a.tar", Kind.WEBDATASET),
        ("a.png", Kind.IMAGE),
    ],
)
def test_a_named_file_says_so(name: str, kind: Kind, tmp_path: Path) -> None:
    touch(tmp_path, name)
    (source,) = listed(tmp_path / name)[0]
    assert (source.kind, source.key, source.is_named) == (kind, name, True)


@pytest.mark.parametrize("name", ["nowhere", "notes.txt", "empty", "texts", "README", "n" * 300])
def test_an_input_without_anything_to_score_is_the_callers_mistake(name: str, tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "texts/a.txt", "texts/b.txt", "README")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CallerError, match=name) as caught:
        listed(tmp_path / name)
    if name == "texts":
        assert "2 txt" in str(caught.value)
