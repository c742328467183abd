"""Parquet, Arrow and lists: which column is the image, what its key is, what is carried; and damage in files.

Tests iqa_core/corpus/readers/arrow.py and iqa_core/corpus/readers/parquet.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.readers import arrow
from iqa_core.corpus.sources import Kind, Source
from iqa_core.errors import CallerError
from iqa_core.records import Reason
from iqa_core.storage.failures import FetchFailed
from iqa_core.storage.storage import Storage
from tests.corpus.planned import Output, data_of, images_of, read

IMAGE_STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def payload(seed: int, size: int = 300) -> bytes:
    return bytes((seed * 37 + i * i) % 251 for i in range(size))


def write_parquet(path: Path, columns: Mapping[str, Any], **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, **settings)
    return path


def structs(*values: dict[str, Any] | None) -> pa.Array:
    return pa.array(values, IMAGE_STRUCT)


# ---- Parquet: row groups


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 60),
    group=st.integers(1, 30),
    chunk_images=st.integers(1, 20),
    chunk_bytes=st.sampled_from([500, 5_000, 10**9]),
)
def test_row_groups_are_packed_and_cut_so_that_every_row_is_read_once(
    rows: int, group: int, chunk_images: int, chunk_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    values = [payload(i) for i in range(rows)]
    write_parquet(folder / "a.parquet", {"image": values, "n": list(range(rows))}, row_group_size=group)
    output = Output(folder / "out", ReadOptions(chunk_images=chunk_images, chunk_bytes=chunk_bytes))
    output.extend(folder / "a.parquet")
    images = output.images()
    assert data_of(images) == values
    assert [image.row for image in images] == list(range(rows))
    assert [image.carried["n"] for image in images] == list(range(rows))
    sizes = [row.span.end - row.span.begin for row in output.plan.rows()]
    assert 0 < min(sizes) <= max(sizes) <= chunk_images


def test_small_row_groups_go_together(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(i) for i in range(20)]}, row_group_size=2)
    output = Output(tmp_path / "out", ReadOptions(chunk_images=8))
    output.extend(tmp_path / "a.parquet")
    assert [row.span.images for row in output.plan.rows()] == [8, 8, 4]


def test_a_row_group_over_the_byte_bound_is_cut(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(i, 10_000) for i in range(20)]})
    output = Output(tmp_path / "out", ReadOptions(chunk_images=1000, chunk_bytes=50_000))
    output.extend(tmp_path / "a.parquet")
    assert len(output.planned_sources()) >= 4
    assert data_of(output.images()) == [payload(i, 10_000) for i in range(20)]


def test_only_the_images_asked_for_are_handed_out(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(i) for i in range(200)]})
    output = Output(tmp_path / "out", ReadOptions(chunk_images=1000))
    output.extend(tmp_path / "a.parquet")
    (content,) = output.contents().values()
    assert [image.row for image in images_of(content, [3, 64, 199])] == [3, 64, 199]


# ---- Parquet: columns


def test_bytes_and_nothing_else_are_keyed_by_row(tmp_path: Path) -> None:
    images = [payload(1), None, b"", payload(2)]
    write_parquet(tmp_path / "a.parquet", {"picture": pa.array(images, pa.large_binary())})
    found = read(tmp_path / "out", tmp_path / "a.parquet")
    assert [image.key for image in found] == ["0", "1", "2", "3"]
    assert [image.reason for image in found] == [None, Reason.MISSING, None, None]
    assert [found[i].data for i in (0, 2, 3)] == [payload(1), b"", payload(2)]
    assert {image.length for image in found} == {None}


def test_null_and_doubled_paths_cost_no_row(tmp_path: Path) -> None:
    values = structs(
        {"bytes": payload(1), "path": "x.jpg"},
        {"bytes": payload(2), "path": "x.jpg"},
        {"bytes": payload(3), "path": None},
        None,
        {"bytes": None, "path": None},
        {"bytes": None, "path": "loose.jpg"},
        {"bytes": None, "path": "gone.jpg"},
    )
    (tmp_path / "loose.jpg").write_bytes(payload(9))
    write_parquet(tmp_path / "a.parquet", {"image": values})
    images = read(tmp_path / "out", tmp_path / "a.parquet")
    assert [image.key for image in images] == ["x.jpg", "x.jpg", "2", "3", "4", "loose.jpg", "gone.jpg"]
    assert [image.row for image in images] == list(range(7))
    assert data_of(images)[:3] == [payload(1), payload(2), payload(3)]
    assert [image.reason for image in images[3:]] == [Reason.MISSING, Reason.MISSING, None, Reason.MISSING]
    assert images[5].data == payload(9)


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct({"bytes": pa.binary()}),
        pa.struct({"path": pa.large_string(), "bytes": pa.large_binary()}),
        pa.struct({"bytes": pa.binary(), "path": pa.string(), "width": pa.int32()}),
    ],
)
def test_other_forms_of_the_struct_are_read(kind: pa.DataType, tmp_path: Path) -> None:
    rows = [{"bytes": payload(i), "path": f"{i}.jpg", "width": 5} for i in range(6)]
    values = pa.array([{name: row[name] for name in kind.names} for row in rows], kind)
    write_parquet(tmp_path / "a.parquet", {"image": values})
    images = read(tmp_path / "out", tmp_path / "a.parquet")
    assert data_of(images) == [payload(i) for i in range(6)]
    assert images[5].key == ("5.jpg" if "path" in kind.names else "5")


def test_dictionary_encoded_columns_are_what_they_stand_for(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(payload(ord(name)))
    for number, order in enumerate(("abc", "cab")):
        write_parquet(
            tmp_path / f"{number}.parquet",
            {
                "url": pa.array([f"{name}.jpg" for name in order]).dictionary_encode(),
                "style": pa.array([name.upper() for name in order]).dictionary_encode(),
            },
        )
    write_parquet(tmp_path / "2.parquet", {"url": ["a.jpg"], "style": ["plain"]})
    images = read(tmp_path / "out", *(tmp_path / f"{number}.parquet" for number in range(3)))
    assert [image.carried["style"] for image in images] == ["A", "B", "C", "C", "A", "B", "plain"]
    assert [image.key for image in images] == [f"{name}.jpg" for name in "abccaba"]
    assert data_of(images) == [payload(ord(name)) for name in "abccaba"]


def test_nested_columns_are_carried_as_they_were(tmp_path: Path) -> None:
    boxes = [[{"x": 1, "label": "sofa"}], [], None]
    when = pa.array([0, 1, None], pa.timestamp("us", tz="UTC"))
    columns = {"image": [payload(i) for i in range(3)], "boxes": boxes, "when": when, "vector": [[0.5], [1.5], []]}
    write_parquet(tmp_path / "a.parquet", columns)
    images = read(tmp_path / "out", tmp_path / "a.parquet")
    assert [image.carried["boxes"] for image in images] == boxes
    assert [image.carried["vector"] for image in images] == [[0.5], [1.5], []]
    assert [image.carried["when"] for image in images] == when.to_pylist()


def test_clashing_columns_are_renamed(tmp_path: Path) -> None:
    columns = {"image": [payload(1)], "key": ["k"], "reward": [0.5], "layout": ["wide"], "score": [1], "status": ["ok"]}
    write_parquet(tmp_path / "a.parquet", columns)
    (image,) = read(tmp_path / "out", tmp_path / "a.parquet")
    assert image.carried == {
        "input_key": "k",
        "input_reward": 0.5,
        "input_layout": "wide",
        "score": 1,
        "input_status": "ok",
    }


def test_a_column_and_its_new_name_in_one_input_stay_two(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(1)], "key": ["k"], "input_key": ["j"]})
    (image,) = read(tmp_path / "out", tmp_path / "a.parquet")
    assert image.carried == {"input_key": "k", "input_input_key": "j"}


def test_files_with_other_columns_are_one_table(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(1)], "seed": pa.array([5], pa.int32()), "a": ["x"]})
    write_parquet(tmp_path / "b.parquet", {"image": [payload(2)], "seed": pa.array([2**40]), "b": [True]})
    images = read(tmp_path / "out", tmp_path)
    assert [image.carried for image in images] == [
        {"seed": 5, "a": "x", "b": None},
        {"seed": 2**40, "a": None, "b": True},
    ]


def test_conflicting_types_name_file_and_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(1)], "seed": [5]})
    write_parquet(tmp_path / "b.parquet", {"image": [payload(2)], "seed": ["five"]})
    with pytest.raises(CallerError, match=r"(?s)b\.parquet.*seed"):
        Output(tmp_path / "out").extend(tmp_path)


def test_a_later_file_of_another_type_names_file_and_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(1)], "seed": [5]})
    output = Output(tmp_path / "out")
    output.extend(tmp_path)
    write_parquet(tmp_path / "b.parquet", {"image": [payload(2)], "seed": ["five"]})
    with pytest.raises(CallerError, match=r"(?s)b\.parquet.*seed"):
        output.extend(tmp_path)


def test_a_later_file_of_a_narrower_type_fits_and_its_new_columns_are_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(1)], "seed": [5]})
    output = Output(tmp_path / "out")
    output.extend(tmp_path)
    write_parquet(tmp_path / "b.parquet", {"image": [payload(2)], "seed": pa.array([7], pa.int16()), "new": [1]})
    assert output.extend(tmp_path).left_out == {"new"}
    assert [image.carried for image in output.images()] == [{"seed": 5}, {"seed": 7}]


def test_an_id_column_is_the_key(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(1), payload(2)], "n": [11, None]})
    images = read(tmp_path / "out", tmp_path / "a.parquet", id_column="n")
    assert [image.key for image in images] == ["11", "1"]
    assert [image.carried["n"] for image in images] == [11, None]


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"a": [b"1"], "b": [b"2"]}, {}, "a, b"),
        ({"n": [1]}, {}, "no column"),
        ({"image": [b"1"]}, {"image_column": "picture"}, "--image-column picture"),
        ({"image": ["x"]}, {"image_column": "image"}, "--uri-column"),
        ({"n": [1]}, {"uri_column": "n"}, "--uri-column n"),
        ({"image": [b"1"]}, {"id_column": "id"}, "--id-column id"),
    ],
)
def test_a_named_file_without_a_usable_column_is_the_callers_mistake(
    columns: dict[str, Any], options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(CallerError, match=said) as caught:
        read(tmp_path / "out", tmp_path / "a.parquet", **options)
    assert "a.parquet" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_named_decides_between_two(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"a": [payload(1)], "b": [payload(2)]})
    assert data_of(read(tmp_path / "out", tmp_path / "a.parquet", image_column="b")) == [payload(2)]


def test_doubled_column_names_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([payload(1)]), pa.array([1]), pa.array([2])], ["image", "n", "n"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CallerError, match=r"a\.parquet.*'n'"):
        Output(tmp_path / "out").extend(tmp_path / "a.parquet")


def test_a_table_without_images_in_a_folder_is_passed_over_and_counted(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in" / "a.parquet", {"image": [payload(1)]})
    write_parquet(tmp_path / "in" / "statistics.parquet", {"mean": [1.5]})
    output = Output(tmp_path / "out")
    assert output.extend(tmp_path / "in").listing.ignored == {"table without an image column": 1}
    assert data_of(output.images()) == [payload(1)]


# ---- encodings, names, values


ENCODED_TEXT = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.large_string()),
    pa.dictionary(pa.int32(), pa.string()),
    pa.run_end_encoded(pa.int32(), pa.string()),
    pa.opaque(pa.string_view(), "a", "b"),
]

ENCODED_BYTES = [
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int8(), pa.binary()),
    pa.run_end_encoded(pa.int32(), pa.binary()),
    pa.opaque(pa.binary(), "a", "b"),
]


def encoded(values: list[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    if pa.types.is_run_end_encoded(kind):
        return pa.RunEndEncodedArray.from_arrays(range(1, len(values) + 1), pa.array(values, kind.value_type), kind)
    return pa.array(values, kind)


@pytest.mark.parametrize("kind", ENCODED_TEXT, ids=str)
def test_uris_and_ids_are_text_however_it_is_encoded(kind: pa.DataType, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(payload(1))
    columns = {"url": encoded(["a.jpg", None], kind), "name": encoded(["x", "y"], kind)}
    write_arrow(tmp_path / "a.arrow", pa.table(columns))
    images = read(tmp_path / "out", tmp_path / "a.arrow", id_column="name")
    assert [image.key for image in images] == ["x", "y"]
    assert images[0].data == payload(1)
    assert images[1].reason == Reason.MISSING
    assert [image.carried for image in images] == [{"name": "x"}, {"name": "y"}]


@pytest.mark.parametrize("kind", ENCODED_BYTES, ids=str)
@pytest.mark.parametrize("in_struct", [False, True])
def test_images_are_bytes_however_they_are_encoded(kind: pa.DataType, in_struct: bool, tmp_path: Path) -> None:
    column = encoded([payload(1), None, payload(2)], kind)
    if in_struct:
        column = pa.StructArray.from_arrays([column, encoded(["a", "b", "c"], ENCODED_TEXT[2])], ["bytes", "path"])
    write_arrow(tmp_path / "a.arrow", pa.table({"picture": column}))
    images = read(tmp_path / "out", tmp_path / "a.arrow", chunk_images=2)
    assert [image.data for image in images[::2]] == [payload(1), payload(2)]
    assert images[1].reason == Reason.MISSING
    assert [image.key for image in images] == (["a", "b", "c"] if in_struct else ["0", "1", "2"])


def test_bytes_in_a_plain_column_are_the_image_beside_bytes_in_codes(tmp_path: Path) -> None:
    columns = {"tag": encoded([b"t"], ENCODED_BYTES[3]), "image": [payload(1)]}
    write_parquet(tmp_path / "a.parquet", columns)
    assert data_of(read(tmp_path / "out", tmp_path / "a.parquet")) == [payload(1)]


@pytest.mark.parametrize(
    ("ids", "kind", "keys"),
    [
        ([b"a1", b"\xff\x00", None], pa.binary(), ["a1", "ff00", "2"]),
        ([b"a1", b"b2", None], pa.binary(2), ["a1", "b2", "2"]),
        (["a", "", None], pa.string_view(), ["a", "1", "2"]),
        ([7, 2**64 - 1, None], pa.uint64(), ["7", str(2**64 - 1), "2"]),
        ([1.5, float("nan"), 2.0], pa.float64(), ["1.5", "1", "2.0"]),
        ([True, False, None], pa.bool_(), ["true", "false", "2"]),
        ([0, 1, None], pa.date32(), ["1970-01-01", "1970-01-02", "2"]),
        ([0, 10**18, None], pa.timestamp("ms"), ["1970-01-01 00:00:00", None, "2"]),
        ([None] * 3, pa.null(), ["0", "1", "2"]),
    ],
)
def test_an_id_of_any_type_is_text(ids: list[Any], kind: pa.DataType, keys: list[str | None], tmp_path: Path) -> None:
    write_arrow(tmp_path / "a.arrow", pa.table({"image": [payload(i) for i in range(3)], "id": pa.array(ids, kind)}))
    output = Output(tmp_path / "out", ReadOptions(image_column="image", id_column="id"))
    output.extend(tmp_path / "a.arrow")
    (content,) = output.contents().values()
    assert all(expected in (None, key) for key, expected in zip(content.keys, keys, strict=True))
    assert len(set(content.keys)) == 3


@pytest.mark.parametrize("ids", [[[1]], [{"a": 1}]])
def test_an_id_that_is_no_single_value_is_refused(ids: list[Any], tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(1)], "id": ids})
    with pytest.raises(CallerError, match=r"--id-column id: .* in .*a\.parquet"):
        read(tmp_path / "out", tmp_path / "a.parquet", id_column="id")


def test_columns_of_laion_are_found_and_kept_apart_from_the_tables(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(payload(1))
    columns = {"URL": ["a.jpg"], "TEXT": ["t"], "WIDTH": [512.0], "HEIGHT": [float("nan")], "path": ["gone.jpg"]}
    write_parquet(tmp_path / "a.parquet", columns)
    (image,) = read(tmp_path / "out", tmp_path / "a.parquet")
    assert image.data == payload(1)
    assert set(image.carried) == {"TEXT", "input_WIDTH", "input_HEIGHT", "path"}


def test_a_name_with_a_dot_is_no_part_of_a_struct(tmp_path: Path) -> None:
    columns = {
        "image.path": ["other"],
        "image": structs({"bytes": payload(1), "path": "p"}),
        "a.b": [1],
        "a": [{"b": 2}],
    }
    write_parquet(tmp_path / "a.parquet", columns)
    (found,) = read(tmp_path / "out", tmp_path / "a.parquet")
    assert (found.key, found.data) == ("p", payload(1))
    assert found.carried == {"image.path": "other", "a.b": 1, "a": {"b": 2}}


@pytest.mark.parametrize("seeds", [[1, 2**53], [1, 2**53 + 1]])
@pytest.mark.parametrize("form", ["parquet", "without statistics", "arrow"])
def test_integers_beside_floats_of_another_file_are_kept_or_refused(
    seeds: list[int], form: str, tmp_path: Path
) -> None:
    table = pa.table({"image": [payload(1), payload(2)], "seed": seeds, "boxes": [[seed] for seed in seeds]})
    if form == "arrow":
        write_arrow(tmp_path / "a.arrow", table)
    else:
        pq.write_table(table, tmp_path / "a.parquet", write_statistics=form == "parquet")
    write_parquet(tmp_path / "b.parquet", {"image": [payload(3)], "seed": [0.5], "boxes": [[0.5]]})
    paths = [tmp_path / ("a.arrow" if form == "arrow" else "a.parquet"), tmp_path / "b.parquet"]
    if seeds[1] > 2**53 or form == "without statistics":
        with pytest.raises(CallerError, match=r"a\.\w+: column seed is int64 .*--carry seed:string"):
            read(tmp_path / "out", *paths)
        images = read(tmp_path / "out", *paths, carry={"seed": "string", "boxes": "string"})
        assert [image.carried["seed"] for image in images] == [str(seeds[0]), str(seeds[1]), "0.5"]
        assert [image.carried["boxes"] for image in images] == [f"[{seeds[0]}]", f"[{seeds[1]}]", "[0.5]"]
    else:
        images = read(tmp_path / "out", *paths)
        assert [image.carried["seed"] for image in images] == [1.0, 2.0**53, 0.5]
        assert [image.carried["boxes"] for image in images] == [[1.0], [2.0**53], [0.5]]


def test_a_type_that_is_given_to_a_tables_column_must_hold_its_values(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(1)], "seed": [2**40], "note": ["5"]})
    for carry in ({"seed": "int32"}, {"note": "int64"}):
        with pytest.raises(CallerError, match=r"a\.parquet: column (seed|note) is (int64|string)"):
            read(tmp_path / "out", tmp_path / "a.parquet", carry=carry)
    (image,) = read(tmp_path / "out", tmp_path / "a.parquet", carry={"seed": "float64"})
    assert image.carried == {"seed": 2.0**40, "note": "5"}


def test_a_file_that_could_not_be_read_when_it_was_planned_does_not_lose_values(tmp_path: Path, as_nobody: Any) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [payload(1)], "seed": [5]})
    write_parquet(tmp_path / "b.parquet", {"image": [payload(2)], "seed": ["five"]})
    (tmp_path / "b.parquet").chmod(0)
    output = Output(tmp_path / "out")
    with as_nobody(tmp_path):
        output.extend(tmp_path / "a.parquet", tmp_path / "b.parquet")
    first, second = output.plan.chunks()
    assert output.open(first).carried.to_pylist() == [{"seed": 5}]
    with pytest.raises(FetchFailed, match=r"b\.parquet: column seed is no int64"):
        output.open(second)


# ---- Parquet: damage


def uncompressed(path: Path, rows: int = 200, **settings: Any) -> bytes:
    values = [payload(i, 1000) for i in range(rows)]
    write_parquet(path, {"image": values}, compression="none", use_dictionary=False, **settings)
    return path.read_bytes()


@pytest.mark.parametrize("spoil", ["footer", "magic", "cut", "empty", "text"])
def test_a_file_that_is_no_parquet_leaves_its_chunk_unfinished(spoil: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = uncompressed(path)
    path.write_bytes(
        {
            "footer": data[:-60] + b"\xff" * 40 + data[-20:],
            "magic": data[:-4] + b"NOPE",
            "cut": data[: len(data) // 2],
            "empty": b"",
            "text": b"not a table",
        }[spoil]
    )
    output = Output(tmp_path / "out")
    output.extend(path)
    (chunk,) = output.plan.chunks()
    with pytest.raises(FetchFailed, match=r"a\.parquet"):
        output.open(chunk)


def test_a_corrupt_page_is_a_failed_fetch_and_not_garbage(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = uncompressed(path, write_page_checksum=True, data_page_size=20_000)
    at = data.index(payload(120, 1000)) + 500
    path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    output = Output(tmp_path / "out", ReadOptions(chunk_images=1000))
    output.extend(path)
    (content,) = output.contents().values()
    with pytest.raises(FetchFailed, match=r"a\.parquet"):
        list(images_of(content))


def test_lengths_that_make_no_sense_are_a_failed_fetch(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = uncompressed(path, data_page_size=20_000)
    at = data.index(payload(120, 1000)) - 4
    path.write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])
    output = Output(tmp_path / "out", ReadOptions(chunk_images=1000))
    output.extend(path)
    (content,) = output.contents().values()
    with pytest.raises(FetchFailed, match=r"a\.parquet"):
        list(images_of(content))


def test_what_could_not_be_read_when_it_was_planned_is_read_when_it_can_be(tmp_path: Path, as_nobody: Any) -> None:
    uncompressed(tmp_path / "a.parquet", rows=7)
    with (
        pa.OSFile(str(tmp_path / "b.arrow"), "wb") as file,
        pa.ipc.new_stream(file, pa.schema({"image": pa.binary()})) as w,
    ):
        w.write_table(pa.table({"image": [payload(i) for i in range(5)]}))
    for name in ("a.parquet", "b.arrow"):
        (tmp_path / name).chmod(0)
    output = Output(tmp_path / "out")
    with as_nobody(tmp_path):
        output.extend(tmp_path / "a.parquet", tmp_path / "b.arrow")
    assert [row.span.images for row in output.plan.rows()] == [None, None]
    assert data_of(output.images()) == [payload(i, 1000) for i in range(7)] + [payload(i) for i in range(5)]


# ---- Arrow


def write_arrow(path: Path, table: pa.Table, rows_per_batch: int = 10) -> bytes:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return path.read_bytes()


def test_an_arrow_file_is_cut_by_rows(tmp_path: Path) -> None:
    values = structs(*({"bytes": payload(i), "path": None if i % 3 else f"{i}.jpg"} for i in range(25)))
    write_arrow(tmp_path / "a.arrow", pa.table({"image": values, "n": list(range(25))}))
    output = Output(tmp_path / "out", ReadOptions(chunk_images=7))
    output.extend(tmp_path / "a.arrow")
    images = output.images()
    assert [row.span.images for row in output.plan.rows()] == [7, 7, 7, 4]
    assert data_of(images) == [payload(i) for i in range(25)]
    assert [image.key for image in images] == [str(i) if i % 3 else f"{i}.jpg" for i in range(25)]
    assert [image.carried["n"] for image in images] == [image.row for image in images] == list(range(25))


def test_bounds_are_those_of_all_batches(tmp_path: Path) -> None:
    table = pa.table({"image": [payload(i) for i in range(4)], "n": [5, 2**60, -7, 6], "text": ["a"] * 4})
    size = len(write_arrow(tmp_path / "a.arrow", table, rows_per_batch=1))
    source = Source(str(tmp_path / "a.arrow"), Kind.ARROW, "a.arrow", size, "")
    assert arrow.survey(Storage(), source, ReadOptions(), exact=False).bounds == {"n": (-7, 2**60)}


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.95])
def test_a_cut_arrow_file_leaves_its_chunk_unfinished(share: float, tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    data = write_arrow(path, pa.table({"image": [payload(i) for i in range(50)]}))
    path.write_bytes(data[: int(len(data) * share)])
    output = Output(tmp_path / "out")
    output.extend(path)
    (chunk,) = output.plan.chunks()
    with pytest.raises(FetchFailed, match=r"a\.arrow"):
        output.open(chunk)


def test_caches_beside_a_saved_data_set_are_passed_over(tmp_path: Path) -> None:
    for name in ("data-00000-of-00001.arrow", "cache-1234.arrow"):
        write_arrow(tmp_path / name, pa.table({"image": [payload(1)]}))
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    output = Output(tmp_path / "out")
    output.extend(tmp_path)
    assert data_of(output.images()) == [payload(1)]


def test_a_name_that_is_no_text_costs_no_chunk(tmp_path: Path) -> None:
    """As a writer that does not check leaves it: a key of its bytes, and a path that leads nowhere."""
    broken = pa.array([b"sound.jpg", b"caf\xe9.jpg"], pa.binary()).view(pa.string())
    held = pa.StructArray.from_arrays([pa.array([b"1", None], pa.binary()), broken], ["bytes", "path"])
    for name, column in (("held", held), ("uri", broken)):
        pq.write_table(pa.table({name: column}), tmp_path / "a.parquet")
        images = read(tmp_path / name, tmp_path / "a.parquet")
        assert [image.key for image in images] == ["sound.jpg", "caf\\xe9.jpg"]
        assert images[1].reason == Reason.MISSING


def test_an_id_that_python_has_no_value_for_is_its_text(tmp_path: Path) -> None:
    years = pa.array([0, 2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"image": [b"1", b"2"], "year": years}), tmp_path / "a.parquet")
    output = Output(tmp_path / "out", ReadOptions(id_column="year"))
    output.extend(tmp_path / "a.parquet")
    (content,) = output.contents().values()
    assert content.keys == ("1970-01-01 00:00:00", f"<value out of range: {2**62}>")
    assert content.carried.column("year").cast(pa.int64()).to_pylist() == [0, 2**62]
