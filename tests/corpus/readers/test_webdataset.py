"""Tars as archivers, streams and accidents leave them: every image has one row, and damage costs what it must.

Tests iqa_core/corpus/readers/tar.py.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.corpus.chunks import Chunk, Content, ReadOptions
from iqa_core.corpus.readers import webdataset
from iqa_core.corpus.readers.tar import MAX_EXTENSION_BYTES
from iqa_core.corpus.sources import Kind, Source
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits, Reason
from iqa_core.storage.failures import FetchFailed
from iqa_core.storage.storage import Storage
from tests.corpus.planned import Image, Output, images_of, read
from tests.corpus.tars import Entry, link, tar_bytes, write_tar

BLOCK = 512


def payload(seed: int, size: int = 700) -> bytes:
    return bytes((seed * 31 + i * i) % 251 for i in range(size))


def pairs(count: int) -> list[tuple[str, bytes]]:
    """Images with a sidecar behind each; headers and data take 3 and 2 blocks."""
    members = []
    for index in range(count):
        members.append((f"{index:03d}.jpg", payload(index)))
        members.append((f"{index:03d}.json", json.dumps({"seed": index}).encode()))
    return members


def opened(tmp_path: Path, data: bytes, options: ReadOptions | None = None) -> list[Content]:
    """The chunks of one tar with these bytes."""
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    output = Output(tmp_path / "out", options or ReadOptions(chunk_images=1000))
    output.extend(path)
    return list(output.contents().values())


def read_directly(path: Path) -> Content:
    """The one chunk of a tar, without a plan: several hundred a second."""
    source = Source(str(path), Kind.WEBDATASET, path.name, path.stat().st_size, "")
    (span,) = webdataset.survey(Storage(), source, ReadOptions(), True).spans
    return webdataset.read(Storage(), Chunk("c", Kind.WEBDATASET, (span,)), ReadOptions(), ImageLimits())


def images_in(contents: Sequence[Content]) -> list[Image]:
    return [image for content in contents for image in images_of(content)]


def test_an_image_has_its_key_bytes_and_place(tmp_path: Path) -> None:
    data = tar_bytes(pairs(3))
    images = images_in(opened(tmp_path, data))
    assert [image.key for image in images] == ["000.jpg", "001.jpg", "002.jpg"]
    assert [image.data for image in images] == [payload(i) for i in range(3)]
    for image in images:
        assert image.offset is not None
        assert image.length is not None
        assert data[image.offset : image.offset + image.length] == image.data
        assert image.source == str(tmp_path / "a.tar")
        assert image.row is None


def test_sidecars_count_before_and_after_the_image_and_for_all_images_of_a_stem(tmp_path: Path) -> None:
    entries: list[Entry] = [
        ("a.txt", b"before"),
        ("a.jpg", payload(1)),
        ("b.left.PNG", payload(2)),
        ("b.right.webp", payload(3)),
        ("b.JSON", b'{"seed": 7, "note": "x"}'),
        ("c.jpg", payload(4)),
        ("c.cls", b"5"),
        ("d.jpg", payload(5)),
        ("d.json", b"[1, 2"),
    ]
    write_tar(tmp_path / "a.tar", entries)
    images = read(tmp_path / "out", tmp_path / "a.tar", carry={"seed": "int64", "absent": "string"})
    assert [image.key for image in images] == ["a.jpg", "b.left.PNG", "b.right.webp", "c.jpg", "d.jpg"]
    assert [image.carried["txt"] for image in images] == ["before", None, None, None, None]
    assert [image.carried["seed"] for image in images] == [None, 7, 7, None, None]
    assert images[1].carried["json"] == images[2].carried["json"] == '{"seed": 7, "note": "x"}'
    assert images[4].carried["json"] == "[1, 2"
    assert {image.carried["absent"] for image in images} == {None}


def joined(stems: str, endings: Sequence[str] = ("jpg", "txt")) -> list[tuple[str, bytes]]:
    """One sample per stem, with its place as its caption."""
    return [
        (f"{stem}.{ending}", f"{index}".encode() if ending == "txt" else payload(index))
        for index, stem in enumerate(stems)
        for ending in endings
    ]


@pytest.mark.parametrize("endings", [("jpg", "txt"), ("txt", "jpg"), ("json", "txt", "jpg")])
@pytest.mark.parametrize("chunk_images", [1, 2, 1000])
def test_files_side_by_side_are_a_sample_and_names_that_return_are_numbered(
    endings: Sequence[str], chunk_images: int, tmp_path: Path
) -> None:
    data = tar_bytes(joined("abbabca", endings))
    contents = opened(tmp_path, data, ReadOptions(chunk_images=chunk_images))
    assert len(contents) == -(-7 // chunk_images)
    images = images_in(contents)
    assert [image.carried["txt"] for image in images] == list("0123456")
    assert [image.key for image in images] == [
        *("a.jpg", "b.jpg", "b.jpg#2", "a.jpg#2", "b.jpg#3", "c.jpg", "a.jpg#3"),
    ]
    assert [image.data for image in images] == [payload(index) for index in range(7)]


def test_in_reading_1_all_files_of_a_stem_belong_together(tmp_path: Path) -> None:
    data = tar_bytes(joined("aba"))
    images = images_in(opened(tmp_path, data, ReadOptions(chunk_images=1000, reading=1)))
    assert [(image.key, image.carried["txt"]) for image in images] == [("a.jpg", "2"), ("b.jpg", "1"), ("a.jpg", "2")]


def test_what_has_no_stem_or_no_ending_ends_no_sample(tmp_path: Path) -> None:
    entries = [
        ("._a.jpg", b"\0"),
        ("a.jpg", payload(1)),
        ("d/._a.txt", b"\0"),
        ("LICENSE", b"free"),
        ("a.txt", b"mine"),
    ]
    images = images_in(opened(tmp_path, tar_bytes(entries)))
    assert [(image.key, image.carried["txt"]) for image in images] == [("._a.jpg", None), ("a.jpg", "mine")]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(
        st.sampled_from([f"{stem}.{end}" for stem in ("a", "d/a", "b.x", "d.e/b") for end in ("jpg", "TXT", "x.jpg")]),
        min_size=1,
        max_size=9,
    )
)
def test_samples_are_those_of_webdataset(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    from webdataset.tariterators import group_by_keys  # here, not above: it takes a second

    entries = [("0.jpg", b"first"), *((name, f"{index}".encode()) for index, name in enumerate(names))]
    try:
        samples = list(group_by_keys({"fname": name, "data": data, "__url__": ""} for name, data in entries))
    except ValueError:  # an ending returns: an error there
        return
    expected = [
        (sample[ending], sample["txt"].decode() if "txt" in sample else None)
        for sample in samples
        for ending in sample
        if ending.endswith("jpg")
    ]
    content = read_directly(write_tar(tmp_path_factory.mktemp("tar") / "a.tar", entries))
    assert [(image.data, image.carried["txt"]) for image in images_of(content)] == expected


def test_a_field_that_is_not_of_its_type_is_null(tmp_path: Path) -> None:
    values = [1, "2", "x", 1.5, None, 2**70, [1], {"a": 1}]
    entries: list[Entry] = []
    for index, value in enumerate(values):
        entries += [(f"{index}.jpg", payload(index)), (f"{index}.json", json.dumps({"n": value}).encode())]
    write_tar(tmp_path / "a.tar", entries)
    images = read(tmp_path / "out", tmp_path / "a.tar", carry={"n": "int64"})
    assert [image.carried["n"] for image in images] == [1, 2, None, None, None, None, None, None]


def test_equal_names_in_different_folders_keep_apart(tmp_path: Path) -> None:
    entries = [("x/1.jpg", payload(1)), ("x/1.txt", b"x"), ("y/1.jpg", payload(2)), ("./y/1.txt", b"other folder")]
    images = images_in(opened(tmp_path, tar_bytes(entries)))
    assert [(image.key, image.carried["txt"]) for image in images] == [("x/1.jpg", "x"), ("y/1.jpg", None)]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_odd_names_are_whole(format: int, tmp_path: Path) -> None:
    names = ["d" * 90 + "/" + "n" * 200 + ".jpg", "räum_客厅.jpg", "with space.jpg", "line\nbreak.jpg"]
    data = tar_bytes([(name, payload(i)) for i, name in enumerate(names)], format)
    images = images_in(opened(tmp_path, data))
    assert [image.key for image in images] == names
    assert [image.data for image in images] == [payload(i) for i in range(4)]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_name_that_is_no_utf_8_becomes_a_key_that_is(format: int, tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    (image,) = images_in(opened(tmp_path, tar_bytes([(name, payload(1))], format)))
    assert image.key.encode("utf-8")
    assert image.key.startswith("caf")
    assert image.key.endswith(".jpg")
    assert image.data == payload(1)


def test_folders_pipes_and_other_files_are_no_images(tmp_path: Path) -> None:
    folder, pipe = tarfile.TarInfo("photos.jpg"), tarfile.TarInfo("pipe.jpg")
    folder.type, pipe.type = tarfile.DIRTYPE, tarfile.FIFOTYPE
    entries: list[Entry] = [folder, pipe, ("a.npy", payload(1)), ("a.jpg", payload(2)), ("README", b"x")]
    assert [image.key for image in images_in(opened(tmp_path, tar_bytes(entries)))] == ["a.jpg"]


def test_an_image_type_that_is_not_decoded_gets_its_row(tmp_path: Path) -> None:
    assert [i.key for i in images_in(opened(tmp_path, tar_bytes([("a.heic", b"1"), ("b.JXL", b"2")])))] == [
        "a.heic",
        "b.JXL",
    ]


def test_a_link_is_the_member_that_it_points_to(tmp_path: Path) -> None:
    entries: list[Entry] = [
        ("d/a.jpg", payload(1)),
        link("d/hard.jpg", "d/a.jpg", tarfile.LNKTYPE),
        link("d/soft.jpg", "a.jpg"),
        link("up/soft.jpg", "../d/soft.jpg"),
        link("before.jpg", "later.jpg"),
        ("later.jpg", payload(2)),
        link("later.txt", "d/a.txt", tarfile.LNKTYPE),
        ("d/a.txt", b"caption"),
    ]
    images = {image.key: image for image in images_in(opened(tmp_path, tar_bytes(entries)))}
    assert {key: image.data for key, image in images.items()} == {
        "d/a.jpg": payload(1),
        "d/hard.jpg": payload(1),
        "d/soft.jpg": payload(1),
        "up/soft.jpg": payload(1),
        "before.jpg": payload(2),
        "later.jpg": payload(2),
    }
    assert images["d/soft.jpg"].offset == images["d/a.jpg"].offset
    assert images["later.jpg"].carried["txt"] == "caption"


def test_a_link_to_nothing_is_missing(tmp_path: Path) -> None:
    entries: list[Entry] = [
        link("gone.jpg", "nowhere.jpg"),
        link("hard.jpg", "nowhere.jpg", tarfile.LNKTYPE),
        link("self.jpg", "self.jpg"),
        link("ping.jpg", "pong.jpg"),
        link("pong.jpg", "ping.jpg"),
        link("outside.jpg", "/etc/passwd"),
        link("above.jpg", "../../etc/passwd"),
        ("sound.jpg", payload(1)),
    ]
    images = images_in(opened(tmp_path, tar_bytes(entries)))
    assert [image.reason for image in images] == [Reason.MISSING] * 7 + [None]


def test_a_link_into_another_span_is_followed(tmp_path: Path) -> None:
    entries: list[Entry] = [(f"{i:03d}.jpg", payload(i)) for i in range(20)]
    entries.insert(10, link("hard.jpg", "000.jpg", tarfile.LNKTYPE))
    entries.insert(3, link("soft.jpg", "019.jpg"))
    contents = opened(tmp_path, tar_bytes(entries), ReadOptions(chunk_images=5))
    images = {image.key: image.data for image in images_in(contents)}
    assert len(contents) > 3
    assert images["hard.jpg"] == payload(0)
    assert images["soft.jpg"] == payload(19)
    assert len(images) == 22


def test_a_sparse_member_is_never_taken_for_its_bytes(tmp_path: Path) -> None:
    header = tarfile.TarInfo("holes.bmp")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 600
    raw = header.tobuf(tarfile.GNU_FORMAT) + payload(1, 600).ljust(1024, b"\0")
    images = images_in(opened(tmp_path, raw + tar_bytes([("a.jpg", payload(2))])))
    assert [(image.key, image.reason) for image in images] == [
        ("holes.bmp", Reason.UNSUPPORTED_FORMAT),
        ("a.jpg", None),
    ]


# ---- damage


def test_a_whole_tar_is_not_damaged(tmp_path: Path) -> None:
    (content,) = opened(tmp_path, tar_bytes(pairs(5)))
    assert content.damage is None


@pytest.mark.slow
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_cut_anywhere_costs_the_cut_member_alone(format: int, tmp_path: Path) -> None:
    """Tried at each 37th byte: in headers, long names, data, sidecars, padding and the end mark."""
    long = "d" * 90 + "/" + "b" * 90
    names = ["a.jpg", long + ".jpg", long + ".json", "c.png", "é.webp"]
    whole = tar_bytes([(name, payload(i, 900 + i)) for i, name in enumerate(names)], format)
    (complete,) = opened(tmp_path, whole)
    expected = list(images_of(complete))
    ends = [(image.offset or 0) + (image.length or 0) for image in expected]
    last_header = whole.index(payload(4, 904)) - BLOCK
    for cut in range(BLOCK + 200, len(whole), 37):
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:cut])
        content = read_directly(path)
        images = list(images_of(content))
        intact = [image.data for image, end in zip(expected, ends, strict=True) if end <= cut]
        assert [image.data for image in images][: len(intact)] == intact, cut
        assert [image.reason for image in images[len(intact) :]] in ([], [Reason.TRUNCATED]), cut
        if cut < last_header + BLOCK + 904:
            assert content.damage is not None, cut
            assert str(path) in content.damage
    assert complete.damage is None


def test_the_cut_member_is_a_truncated_row_and_the_damage_says_where(tmp_path: Path) -> None:
    whole = tar_bytes(pairs(4))
    at = whole.index(payload(2))
    (content,) = opened(tmp_path, whole[: at + 100])
    images = list(images_of(content))
    assert [(image.key, image.reason) for image in images] == [
        ("000.jpg", None),
        ("001.jpg", None),
        ("002.jpg", Reason.TRUNCATED),
    ]
    assert content.damage is not None
    assert f"byte {at}" in content.damage
    assert (images[2].offset, images[2].length) == (at, 700)


def test_a_cut_sidecar_is_no_caption(tmp_path: Path) -> None:
    whole = tar_bytes([("a.jpg", payload(1)), ("a.txt", b"a room with a view" * 50)])
    (content,) = opened(tmp_path, whole[: whole.index(b"a room") + 200])
    assert [(image.data, image.carried["txt"]) for image in images_of(content)] == [(payload(1), None)]
    assert content.damage is not None


def test_a_tar_cut_between_two_members_is_noticed(tmp_path: Path) -> None:
    whole = tar_bytes(pairs(4))
    (content,) = opened(tmp_path, whole[: whole.index(payload(3)) - BLOCK])
    assert len(content.keys) == 3
    assert content.damage is not None
    assert "end" in content.damage


def test_garbage_in_the_middle_costs_only_what_lies_under_it(tmp_path: Path) -> None:
    whole = bytearray(tar_bytes(pairs(8)))
    header = whole.index(payload(3)) - BLOCK
    whole[header : header + 600] = b"\xff" * 600
    (content,) = opened(tmp_path, bytes(whole))
    assert list(content.keys) == [f"{i:03d}.jpg" for i in range(8) if i != 3]
    assert [image.data for image in images_of(content)] == [payload(i) for i in range(8) if i != 3]
    assert content.damage is not None
    assert f"byte {header}" in content.damage


def test_garbage_costs_no_span_its_byte_bound(tmp_path: Path) -> None:
    """200 kB of garbage behind the images, with chunks of 20 kB: it is noted, and not read."""
    whole = tar_bytes(pairs(40))
    at = whole.index(payload(39)) + 2 * BLOCK
    damaged = whole[:at] + b"\xff" * 200_000
    path = tmp_path / "a.tar"
    path.write_bytes(damaged)
    output = Output(tmp_path / "out", ReadOptions(chunk_images=100, chunk_bytes=20_000))
    output.extend(path)
    spans = [row.span for row in output.plan.rows()]
    assert max(span.end - span.begin for span in spans) <= 20_000 + BLOCK
    contents = list(output.contents().values())
    assert [image.data for image in images_in(contents)] == [payload(i) for i in range(40)]
    assert [content.damage for content in contents[:-1]] == [None] * (len(contents) - 1)
    assert f"byte {at}" in (contents[-1].damage or "")


def test_concatenated_tars_are_read_on(tmp_path: Path) -> None:
    parts = [tar_bytes([(f"{name}.jpg", payload(i))]) for i, name in enumerate("abc")]
    (content,) = opened(tmp_path, b"".join(parts))
    assert content.keys == ("a.jpg", "b.jpg", "c.jpg")
    assert [image.data for image in images_of(content)] == [payload(i) for i in range(3)]
    assert content.damage is None


@pytest.mark.parametrize("data", [b"", b"\xff" * 3000, b"no tar at all", b"\x1f\x8b" + bytes(2000)])
def test_a_file_that_is_no_tar_leaves_its_chunk_unfinished(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    output = Output(tmp_path / "out")
    output.extend(path)
    (chunk,) = output.plan.chunks()
    with pytest.raises(FetchFailed, match=r"a\.tar"):
        output.open(chunk)


@pytest.mark.parametrize("entries", [[], [("notes.txt", b"x"), ("d.npy", b"y")]])
def test_a_sound_tar_without_images_is_nothing_to_score(entries: list[Entry], tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", entries)
    with pytest.raises(CallerError, match="nothing to score"):
        Output(tmp_path / "out").extend(tmp_path / "a.tar")


def test_a_broken_pax_header_costs_its_member(tmp_path: Path) -> None:
    whole = bytearray(tar_bytes([(f"{c}" * 120 + ".jpg", payload(i)) for i, c in enumerate("abc")], tarfile.PAX_FORMAT))
    record = whole.index(b" path=" + b"b" * 20)
    whole[record - 3 : record] = b"xyz"
    (content,) = opened(tmp_path, bytes(whole))
    assert content.keys[0] == "a" * 120 + ".jpg"
    assert content.keys[-1] == "c" * 120 + ".jpg"
    assert content.damage is not None


def test_keywords_of_more_bytes_than_any_member_has_are_no_header(tmp_path: Path) -> None:
    odd = tarfile.TarInfo("b.jpg")
    odd.pax_headers = {"comment": "x" * MAX_EXTENSION_BYTES}
    (content,) = opened(tmp_path, tar_bytes([("a.jpg", payload(1)), odd, ("c.jpg", payload(2))], tarfile.PAX_FORMAT))
    assert content.keys[0] == "a.jpg"
    assert content.keys[-1] == "c.jpg"
    assert content.damage is not None


# ---- cutting


stems = st.lists(
    st.tuples(
        st.lists(
            st.sampled_from(["jpg", "png", "left.jpg", "json", "txt", "npy"]), min_size=1, max_size=4, unique=True
        ),
        st.integers(0, 3000),
    ),
    min_size=1,
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(stems=stems, chunk_images=st.integers(1, 6), chunk_bytes=st.sampled_from([2_000, 9_000, 10**9]))
def test_spans_never_split_a_stem_and_hold_together_what_the_whole_holds(
    stems: list[tuple[list[str], int]], chunk_images: int, chunk_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tar")
    entries = [
        (f"{index:02d}.{ending}", payload(index + len(ending), size))
        for index, (endings, size) in enumerate(stems)
        for ending in endings
    ]
    is_image = [name.endswith(("jpg", "png")) for name, _ in entries]
    write_tar(folder / "a.tar", entries)
    if not any(is_image):
        return
    whole = read(folder / "whole", folder / "a.tar", chunk_images=10**6)
    output = Output(folder / "cut", ReadOptions(chunk_images=chunk_images, chunk_bytes=chunk_bytes))
    output.extend(folder / "a.tar")
    contents = list(output.contents().values())
    assert images_in(contents) == whole
    assert [image.data for image in whole] == [data for (_, data), kept in zip(entries, is_image, strict=True) if kept]
    assert [content.damage for content in contents] == [None] * len(contents)
    held = Counter(stem for content in contents for stem in {key[:2] for key in content.keys})
    assert set(held.values()) == {1}
    for row, content in zip(output.plan.rows(), contents, strict=True):
        assert row.span.images == len(content.keys)
        one_stem = len({key[:2] for key in content.keys}) == 1
        assert len(content.keys) <= chunk_images or one_stem
        assert row.span.end - row.span.begin <= chunk_bytes + 20 * BLOCK or one_stem


def test_a_tar_over_the_byte_bound_is_cut(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"{i:02d}.jpg", payload(i, 5000)) for i in range(20)])
    output = Output(tmp_path / "out", ReadOptions(chunk_images=1000, chunk_bytes=30_000))
    output.extend(tmp_path / "a.tar")
    spans = [row.span for row in output.plan.rows()]
    assert len(spans) >= 4
    assert sum(span.images or 0 for span in spans) == 20
    assert [image.data for image in output.images()] == [payload(i, 5000) for i in range(20)]


def test_only_the_images_asked_for_are_handed_out(tmp_path: Path) -> None:
    (content,) = opened(tmp_path, tar_bytes(pairs(6)))
    assert [image.data for image in images_of(content, [1, 4])] == [payload(1), payload(4)]


def test_a_member_that_claims_more_bytes_than_there_are_numbers_is_cut(tmp_path: Path) -> None:
    huge = tarfile.TarInfo("b.jpg")
    huge.pax_headers = {"size": str(10**30)}
    cut = images_in(opened(tmp_path, tar_bytes([("a.jpg", payload(1)), huge], tarfile.PAX_FORMAT)))
    assert [(image.key, image.reason) for image in cut] == [("a.jpg", None), ("b.jpg", Reason.TRUNCATED)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_sidecar(encoding: str, tmp_path: Path) -> None:
    sidecars = [("a.json", '{"seed": 7}'.encode(encoding)), ("a.txt", "a häll".encode(encoding))]
    options = ReadOptions(carry={"seed": "int64"})
    (image,) = images_in(opened(tmp_path, tar_bytes([("a.jpg", payload(1)), *sidecars]), options))
    assert image.carried == {"json": '{"seed": 7}', "txt": "a häll", "seed": 7}


def test_json_that_no_parser_takes_is_carried_as_text_alone(tmp_path: Path) -> None:
    texts = [b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}", b'{"seed": 1e999}', b'{"seed": "\\ud83d"}']
    entries = [entry for i, text in enumerate(texts) for entry in ((f"{i}.jpg", payload(i)), (f"{i}.json", text))]
    images = images_in(opened(tmp_path, tar_bytes(entries), ReadOptions(carry={"seed": "int64"})))
    assert [image.carried["json"] for image in images] == [text.decode() for text in texts]
    assert [image.carried["seed"] for image in images] == [None] * 4
