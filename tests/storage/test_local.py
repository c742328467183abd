"""Local files: ranges whole or not at all, links, pipes and odd names, atomic puts, listings sorted as URIs are.

Tests iqa_core/storage/entries.py.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.errors import CallerError
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.local import ABANDONED_S
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute

STORAGE = Storage()
NOT_UTF_8 = b"caf\xe9.jpg"


def test_ranges(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert STORAGE.read(str(path)) == b"0123456789"
    assert STORAGE.read(str(path), 3, 5) == b"34"
    assert STORAGE.read(str(path), 3) == b"3456789"
    assert STORAGE.read(str(path), 5, 5) == b""
    assert STORAGE.read_large(str(path), 2, 10) == b"23456789"


def test_a_range_that_is_short_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with pytest.raises(FetchFailed):
        STORAGE.read(str(path), 5, 11)


def test_what_is_no_file_is_missing_at_once(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", "loop", "dangling", "pipe", "file/below", ".", "n" * 300, "zero\0byte"):
        with pytest.raises(Missing):
            STORAGE.read(str(tmp_path / name))


def test_a_locked_file_is_forbidden(tmp_path: Path, as_nobody: Callable[[Path], AbstractContextManager[None]]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    path.chmod(0)
    with as_nobody(tmp_path), pytest.raises(Forbidden):
        STORAGE.read(str(path))


def test_file_uris_are_decoded_and_plain_paths_are_not(tmp_path: Path) -> None:
    (tmp_path / "100%25.jpg").write_bytes(b"literal")
    (tmp_path / "100%.jpg").write_bytes(b"decoded")
    (tmp_path / os.fsdecode(NOT_UTF_8)).write_bytes(b"odd")
    assert STORAGE.read(str(tmp_path / "100%25.jpg")) == b"literal"
    assert STORAGE.read(f"file://{tmp_path}/100%25.jpg") == b"decoded"
    assert STORAGE.read(f"file://{tmp_path}/{quote_from_bytes(NOT_UTF_8)}") == b"odd"


def test_stat_knows_files_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert [entry and entry.size for entry in map(STORAGE.stat, (str(tmp_path / "file"), str(tmp_path / "link")))] == [
        3,
        3,
    ]
    for name in ("", "none", "dangling", "pipe", "file/below", "n" * 300):
        assert STORAGE.stat(str(tmp_path / name)) is None


def test_an_etag_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    before = STORAGE.stat(str(path))
    os.utime(path, ns=(1, 1))
    assert before != STORAGE.stat(str(path))


# ---- putting


def test_put_replaces_and_create_does_not(tmp_path: Path) -> None:
    uri = str(tmp_path / "new" / "folder" / "a")
    assert STORAGE.create(uri, b"first")
    assert not STORAGE.create(uri, b"second")
    assert STORAGE.read(uri) == b"first"
    STORAGE.put(uri, b"third")
    assert STORAGE.read(uri) == b"third"
    STORAGE.delete(uri)
    STORAGE.delete(uri)
    assert STORAGE.stat(uri) is None


def test_nothing_is_left_beside_what_was_put(tmp_path: Path) -> None:
    """Not even above: an output folder may be a mount of its own, or lie in a folder that is not ours."""
    output = tmp_path / "output"
    output.mkdir()
    STORAGE.put(str(output / "run.json"), b"{}")
    STORAGE.create(str(output / "plan" / "0"), b"x", scratch=str(output / ".tmp"))
    assert os.listdir(tmp_path) == ["output"]
    assert STORAGE.names(str(output)) == ["run.json"]
    assert STORAGE.names(str(output / "plan")) == ["0"]
    assert list((output / ".tmp").iterdir()) == []


def test_a_put_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(FetchFailed, match="target: it cannot be written"):
        STORAGE.put(str(tmp_path / "target"), b"x")
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_a_link_whose_answer_was_lost_is_known_by_its_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of NFS made it, its answer did not arrive, and what the client asked again found it there."""

    def linked_before(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    link = os.link
    monkeypatch.setattr(os, "link", linked_before)
    assert STORAGE.create(str(tmp_path / "a"), b"mine")
    assert not STORAGE.create(str(tmp_path / "a"), b"theirs")
    assert STORAGE.read(str(tmp_path / "a")) == b"mine"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_links_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(CallerError, match=r"a: this file system has no hard links \(.*\), .* give a folder on another"):
        STORAGE.begin(str(tmp_path / "a"), b"x", str(tmp_path / ".tmp"))
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_of_many_creators_one_wins(tmp_path: Path) -> None:
    uri = str(tmp_path / "plan" / "a")
    start = threading.Barrier(8)
    won: list[int] = []

    def create(number: int) -> None:
        start.wait()
        if STORAGE.create(uri, bytes([number]) * 1000):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert STORAGE.read(uri) == bytes(won) * 1000
    assert len(won) == 1


# ---- listing


def uris_under(folder: Path) -> list[str]:
    return [entry.uri for entry in STORAGE.walk(absolute(str(folder)))]


def test_a_walk_finds_files_and_what_should_be_one(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "b" / "deep" / "er" / "x.jpg").write_bytes(b"12")
    (tmp_path / "b.jpg").write_bytes(b"1")
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    (tmp_path / "link.jpg").symlink_to("b.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "b" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "pipe-link.jpg").symlink_to("pipe.jpg")
    found = {entry.uri.removeprefix(f"{tmp_path}/"): entry.size for entry in STORAGE.walk(str(tmp_path))}
    assert found == {
        ".hidden.jpg": 0,
        "b.jpg": 1,
        "b/deep/er/x.jpg": 2,
        "circle.jpg": None,
        "dangling.jpg": None,
        "link.jpg": 1,
    }


def test_a_link_into_a_locked_folder_does_not_stop_a_walk(
    tmp_path: Path, as_nobody: Callable[[Path], AbstractContextManager[None]]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "a.jpg").write_bytes(b"x")
    (tmp_path / "in" / "a.jpg").symlink_to(tmp_path / "locked" / "a.jpg")
    (tmp_path / "locked").chmod(0)
    with as_nobody(tmp_path):
        (entry,) = STORAGE.walk(str(tmp_path / "in"))
        assert entry.size is None
        with pytest.raises(Forbidden):
            STORAGE.read(entry.uri)


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, as_nobody: Callable[[Path], AbstractContextManager[None]]
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0)
    with as_nobody(tmp_path), pytest.raises(CallerError, match="locked"):
        list(STORAGE.walk(str(tmp_path)))
    with pytest.raises(CallerError, match="nowhere"):
        list(STORAGE.walk(str(tmp_path / "nowhere")))


parts = (
    st.binary(min_size=1, max_size=6)
    .map(lambda raw: raw.translate(None, b"/\0"))
    .filter(lambda raw: raw not in (b"", b".", b".."))
)
alike = st.sampled_from(
    [b"a", b"a.", b"a-", b"a0", b"a!", b"a b", b"A", b"\xc3\xa9", b"\xe9", b"%E9", b"\xf0\x9f\x8f\xa0"]
)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(paths=st.lists(st.lists(alike | parts, min_size=1, max_size=3), min_size=1, max_size=15))
def test_a_walk_is_sorted_by_uri_and_every_uri_leads_back(
    paths: list[list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Listings are merged with the plan as streams: a URI out of order would be planned twice, or found vanished."""
    root = tmp_path_factory.mktemp("walk")
    made = set()
    for path in paths:
        target = os.path.join(os.fsencode(root), *path)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(target)
            made.add(target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
    uris = uris_under(root)
    assert uris == sorted(set(uris))
    assert {STORAGE.read(uri) for uri in uris} == made
    for uri in uris:
        assert absolute(uri) == uri
        assert uri.encode("utf-8")


def test_an_object_that_something_else_has_put_is_the_callers_mistake(tmp_path: Path) -> None:
    place = tmp_path / "selection.json"
    place.write_text('{"policy": 1, "counts": 2}')
    kinds = {"policy": int, "counts": int | None}
    assert STORAGE.read_object(str(place), kinds) == {"policy": 1, "counts": 2}
    for text, why in (
        ("{oops", "it is not JSON"),
        ("[1]", "it is no JSON object"),
        ('{"policy": 1}', "it lacks counts"),
        ('{"policy": "a", "counts": null}', "it has other values of policy, so something else wrote it"),
        ("[" * 100_000, "it is not JSON"),
    ):
        place.write_text(text)
        with pytest.raises(CallerError, match=why):
            STORAGE.read_object(str(place), kinds)


def test_what_a_disk_says_to_writing_is_typed_like_what_a_store_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "in", Path("/proc/out")):
        with pytest.raises(FetchFailed, match=f"{place}: it cannot be written"):
            STORAGE.put(str(place), b"x")
        with pytest.raises(FetchFailed, match=f"{place}: it cannot be written"):
            STORAGE.create(str(place), b"x")
    with pytest.raises(FetchFailed, match="it cannot be written"):
        STORAGE.delete(str(tmp_path / "file" / "in"))
    assert STORAGE.names(str(tmp_path / "file")) == []


def test_a_tree_deeper_than_python_calls_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one as deep as no path can be long: it is named, not passed over."""
    monkeypatch.chdir(tmp_path)
    levels = sys.getrecursionlimit() + 50
    STORAGE.put(f"{tmp_path}/{'d/' * levels}z.jpg", b"1", scratch=str(tmp_path / "scratch"))
    (tmp_path / "d" / "d" / "a.jpg").write_bytes(b"1")
    assert uris_under(tmp_path) == [f"{tmp_path}/d/d/a.jpg", f"{tmp_path}/{'d/' * levels}z.jpg"]
    for _ in range(17):
        os.mkdir("e" * 250)
        os.chdir("e" * 250)
    with pytest.raises(CallerError, match="eee: File name too long"):
        uris_under(tmp_path)
    os.chdir(tmp_path)
    subprocess.run(["rm", "-rf", "d", "e" * 250], check=True)


def test_what_a_killed_writer_left_goes_when_it_is_old(tmp_path: Path) -> None:
    left = {name: tmp_path / ".tmp" / name for name in ("0" * 32, "1" * 32, "notes")}
    (tmp_path / ".tmp").mkdir()
    for name, age_s in (("0" * 32, ABANDONED_S + 60), ("1" * 32, ABANDONED_S - 60), ("notes", 9 * ABANDONED_S)):
        left[name].write_bytes(b"x")
        os.utime(left[name], (time.time() - age_s,) * 2)
    STORAGE.put(str(tmp_path / "a"), b"1")
    assert [path.name for path in left.values() if path.exists()] == ["1" * 32, "notes"]


def test_what_cannot_be_created_since_something_that_is_no_file_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("folder", "dangling"):
        with pytest.raises(FetchFailed, match="a folder, or a link to nothing, has its name"):
            STORAGE.create(str(tmp_path / name), b"x")
