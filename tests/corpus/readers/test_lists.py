"""CSV and JSONL lists as people and programs write them: every record is one row, wherever a chunk ends."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.errors import CallerError
from iqa_core.records import Reason
from tests.corpus.planned import Output, data_of, read


def listed(tmp_path: Path, content: bytes | str, name: str = "list.csv", **options: Any) -> list[dict[str, Any]]:
    """Key and carried columns of each row."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [{"key": image.key, **image.carried} for image in read(tmp_path / f"{name}.out", path, **options)]


def test_relative_absolute_and_null_uris(tmp_path: Path) -> None:
    for name in ("a b.jpg", "sub/b%20.jpg", "ü.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    absolute = tmp_path / "a b.jpg"
    uris = ["a b.jpg", "sub/b%20.jpg", str(absolute), f"file://{tmp_path}/%C3%BC.jpg", "gone.jpg", None, "sub"]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in uris))
    images = read(tmp_path / "out", tmp_path / "list.jsonl")
    assert data_of(images)[:4] == [b"a b.jpg", b"sub/b%20.jpg", b"a b.jpg", "ü.jpg".encode()]
    assert [image.reason for image in images[4:]] == [Reason.MISSING] * 3
    assert [image.key for image in images][:5] == uris[:5]
    assert images[0].source == str(absolute)
    assert images[5].source == str(tmp_path / "list.jsonl")


def test_uris_that_nothing_can_be_fetched_from_cost_their_row_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"sound")
    uris = ["nonsense://x/y.jpg", "a\0b.jpg", "n" * 5000 + ".jpg", "", "a.jpg"]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in uris))
    images = read(tmp_path / "out", tmp_path / "list.jsonl", chunk_images=10)
    assert images[-1].data == b"sound"
    assert all(image.reason in (Reason.MISSING, Reason.FETCH_FAILED) for image in images[:-1])


def test_rows_without_an_image_have_keys_of_their_own_whatever_the_chunks(tmp_path: Path) -> None:
    content = "uri,n\n" + "".join(f",{i}\n" for i in range(6))
    (tmp_path / "list.csv").write_text(content)
    small, large = (
        [image.key for image in read(tmp_path / f"out{size}", tmp_path / "list.csv", chunk_images=size)]
        for size in (2, 6)
    )
    assert len(set(large)) == 6
    assert small == large


def test_csv_is_carried_as_text_and_typed_by_flag(tmp_path: Path) -> None:
    content = "uri,seed,weight,note\na.jpg,007,1.50,\nb.jpg,x,,hello\n"
    assert listed(tmp_path, content, carry={"seed": "int64"}) == [
        {"key": "a.jpg", "seed": 7, "input_weight": "1.50", "note": None},
        {"key": "b.jpg", "seed": None, "input_weight": None, "note": "hello"},
    ]


def test_quoted_newlines_commas_and_quotes(tmp_path: Path) -> None:
    content = 'uri,caption\r\na.jpg,"one\r\ntwo, ""three"""\r\n\r\nb.jpg,"\n"\r\n'
    assert listed(tmp_path, content, chunk_images=1) == [
        {"key": "a.jpg", "caption": 'one\r\ntwo, "three"'},
        {"key": "b.jpg", "caption": "\n"},
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_marks_line_ends_and_blank_lines(end: str, mark: bytes, last: bool, tmp_path: Path) -> None:
    lines = ["uri,n", "a.jpg,1", "", "b.jpg,2", "", "", "c.jpg,3"]
    content = mark + (end.join(lines) + (end if last else "")).encode()
    expected = [{"key": f"{name}.jpg", "n": str(i + 1)} for i, name in enumerate("abc")]
    assert listed(tmp_path, content, chunk_images=1) == expected


def test_blank_lines_before_the_header(tmp_path: Path) -> None:
    assert listed(tmp_path, "\n\nuri,n\na.jpg,1\n", chunk_images=1) == [{"key": "a.jpg", "n": "1"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"uri,n\na.jpg\n", "1 fields, the header 2"),
        (b"uri,n\na.jpg,1,2\n", "3 fields, the header 2"),
        (b'uri,n\na.jpg,"never closed\nb.jpg,2\n', "no CSV"),
        (b"uri,n\na.jpg,1\nb\xff.jpg,2\n", "not UTF-8"),
        (b"uri,n,n\na.jpg,1,2\n", "'n'"),
        (b"uri\ra.jpg\rb.jpg\r", "no CSV"),
        (b"name,n\na.jpg,1\n", "no column can be the image"),
        (b"uri,n\n", "nothing to score"),
        (b"", "nothing to score"),
    ],
)
def test_a_csv_that_cannot_be_understood_is_refused_at_once(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=said) as caught:
        listed(tmp_path, content)
    assert "list.csv" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_field_longer_than_csv_allows_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=r"list\.csv.*byte"):
        listed(tmp_path, f"uri,caption\na.jpg,{'x' * 200_000}\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"uri": "a.jpg"}\n{"uri": "b.jp\n', "not JSON"),
        (b'{"uri": "a.jpg"}\n["b.jpg"]\n', "no JSON object"),
        (b'{"uri": "a\xff"}\n', "not UTF-8"),
        (b'{"name": "a.jpg"}\n', "no column"),
        (b'{"uri": 5}\n', "no column"),
    ],
)
def test_a_jsonl_that_cannot_be_understood_is_refused_at_once(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=said) as caught:
        listed(tmp_path, content, "list.jsonl")
    assert "list.jsonl" in str(caught.value)


def test_jsonl_columns_have_the_type_of_all_their_values_in_every_chunk(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"uri": "a.jpg", "i": 1, "f": 1, "m": 1, "o": {"x": 1}, "big": 5, "b": True},
        {"uri": "b.jpg", "i": None, "f": 2.5, "m": "two", "o": [1, 2], "big": 2**64 - 1, "b": None},
        {"uri": "c.jpg", "i": -(2**63), "m": True, "late": "x"},
        {"uri": "d.jpg", "m": 1.0, "big": None, "s": "\ud800"},
    ]
    content = "".join(json.dumps(record) + "\n" for record in records)
    expected = [
        {"i": 1, "f": 1.0, "m": "1", "o": '{"x": 1}', "big": "5", "b": True, "late": None},
        {"i": None, "f": 2.5, "m": "two", "o": "[1, 2]", "big": str(2**64 - 1), "b": None, "late": None},
        {"i": -(2**63), "f": None, "m": "true", "o": None, "big": None, "b": None, "late": "x"},
        {"i": None, "f": None, "m": "1.0", "o": None, "big": None, "b": None, "late": None},
    ]
    for size in (1, 2, 4):
        folder = tmp_path / str(size)
        folder.mkdir()
        rows = listed(folder, content, "list.jsonl", chunk_images=size)
        assert [{k: v for k, v in row.items() if k not in ("key", "s")} for row in rows] == expected
        assert [row["s"] for row in rows] == [None, None, None, "\\ud800"]


def test_integers_that_no_float_is_are_text_beside_a_fraction(tmp_path: Path) -> None:
    seeds: list[Any] = [2**53 + 1, 1, 0.5, None, -(2**60)]
    content = "".join(json.dumps({"uri": f"{i}.jpg", "seed": seed}) + "\n" for i, seed in enumerate(seeds))
    for size in (1, 2, 5):
        (tmp_path / str(size)).mkdir()
        rows = listed(tmp_path / str(size), content, "list.jsonl", chunk_images=size, id_column="seed")
        assert [row["seed"] for row in rows] == [str(2**53 + 1), "1", "0.5", None, str(-(2**60))]
        assert [row["key"] for row in rows] == [str(2**53 + 1), "1", "0.5", "3.jpg", str(-(2**60))]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**70)]),
    st.floats(width=32),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)


@pytest.mark.slow
@example(values=[[-(2**70)], [0]])  # text, since no integer type holds the first
@settings(max_examples=6, deadline=None)
@given(values=st.lists(st.lists(scalars, max_size=3), min_size=2, max_size=6))
def test_a_column_is_the_same_wherever_chunks_end(
    values: list[list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = [{"uri": "a.jpg", **{f"c{i}": value for i, value in enumerate(row)}} for row in values]
    content = "".join(json.dumps(record) + "\n" for record in records)
    folder = tmp_path_factory.mktemp("list")
    (folder / "list.jsonl").write_text(content)
    found = []
    for size in (1, 100):
        images = read(folder / f"out{size}", folder / "list.jsonl", chunk_images=size, id_column="uri")
        found.append(repr([image.carried for image in images]))
    assert found[0] == found[1]
    missing = [
        name
        for record, image in zip(records, images, strict=True)
        for name in record
        if name != "uri" and record[name] is not None and image.carried[name] is None
    ]
    assert missing == [], "a value that is there is never null"


def test_a_list_whose_image_would_change_its_column_is_refused(tmp_path: Path) -> None:
    content = "".join(json.dumps({name: "a.jpg"}) + "\n" for name in ("uri", "uri", "path", "path"))
    with pytest.raises(CallerError, match=r"list\.jsonl: the image is in uri .* in path in another; .*--uri-column"):
        listed(tmp_path, content, "list.jsonl", chunk_images=2)
    rows = listed(tmp_path, content, "list.jsonl", chunk_images=2, uri_column="uri")
    assert [row["path"] for row in rows] == [None, None, "a.jpg", "a.jpg"]


def test_the_index_that_pandas_writes_has_a_name(tmp_path: Path) -> None:
    assert listed(tmp_path, ",url,caption\n0,0.png,a\n1,1.png,b\n") == [
        {"key": "0.png", "unnamed": "0", "caption": "a"},
        {"key": "1.png", "unnamed": "1", "caption": "b"},
    ]
    (tmp_path / "two").mkdir()
    with pytest.raises(CallerError, match="'' more than once"):
        listed(tmp_path / "two", ",,url\n0,0,0.png\n")


def test_values_that_are_not_of_the_type_that_is_asked_for_are_counted(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri,seed,n\na.jpg,7,1\nb.jpg,x,2\nc.jpg,,3\nd.jpg,1.5,4\n")
    output = Output(tmp_path / "out", ReadOptions(chunk_images=2, carry={"seed": "int64", "n": "int64"}))
    assert output.extend(tmp_path / "list.csv").unfit == {"seed": 2}
    assert [image.carried["seed"] for image in output.images()] == [7, None, None, None]


def test_flags_name_the_columns(tmp_path: Path) -> None:
    content = "picture,id,uri\nreal.jpg,one,wrong.jpg\n"
    assert listed(tmp_path, content, uri_column="picture", id_column="id") == [
        {"key": "one", "id": "one", "uri": "wrong.jpg"}
    ]


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_spans_cover_the_file_exactly(name: str, tmp_path: Path) -> None:
    records = [{"uri": f"{i}.jpg", "caption": "é\n" * (i % 4)} for i in range(23)]
    path = tmp_path / name
    if name.endswith("csv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["uri", "caption"])
            writer.writeheader()
            writer.writerows(records)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    output = Output(tmp_path / "out", ReadOptions(chunk_images=5))
    output.extend(path)
    spans = [row.span for row in output.plan.rows()]
    assert [span.images for span in spans] == [5, 5, 5, 5, 3]
    assert spans[0].begin == (len("uri,caption\r\n") if name.endswith("csv") else 0)
    assert [span.begin for span in spans[1:]] == [span.end for span in spans[:-1]]
    assert spans[-1].end == path.stat().st_size
    assert [image.key for image in output.images()] == [record["uri"] for record in records]


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8
)  # Python 3.11 writes a lone \r unquoted


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=12),
    chunk_images=st.integers(1, 5),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_was_written_is_read(
    rows: list[tuple[str, str]],
    chunk_images: int,
    end: str,
    quoting: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator=end, quoting=quoting)
    writer.writerows([("uri", "caption"), *rows])
    found = listed(tmp_path_factory.mktemp("list"), buffer.getvalue(), chunk_images=chunk_images)
    assert [row["caption"] for row in found] == [caption or None for _, caption in rows]
    assert [row["key"] for row, (uri, _) in zip(found, rows, strict=True) if uri] == [uri for uri, _ in rows if uri]


def test_other_spellings_of_a_uri_lead_to_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(b"sound")
    path = f"{tmp_path}/a%20b.png"
    uris = [f"file:{path}", f"file://localhost{path}", f"FILE://{path}", f"file://{path}", f"File:{path}"]
    inline = base64.b64encode(b"sound").decode()
    uris += [f"data:image/png;base64,{inline}", "DATA:,so%75nd"]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"url": uri}) + "\n" for uri in uris))
    images = read(tmp_path / "out", tmp_path / "list.jsonl", chunk_images=10)
    assert data_of(images) == [b"sound"] * len(uris)
    assert {image.source for image in images[:5]} == {f"file://{path}"}
    assert [image.key for image in images[:5]] == uris[:5]
    assert all(image.key.isdecimal() for image in images[5:]), "a data URI is no name"
    assert [image.source for image in images[5:]] == uris[5:]
    begun_before = read(tmp_path / "begun", tmp_path / "list.jsonl", chunk_images=10, reading=1)
    assert [image.key for image in begun_before] == uris, "keys of an output stay as it was begun"


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_byte_order_mark_is_no_part_of_a_list(name: str, tmp_path: Path) -> None:
    content = "url,n\na.jpg,1\n" if name == "list.csv" else '{"url": "a.jpg", "n": "1"}\n'
    assert listed(tmp_path, content.encode("utf-8-sig"), name) == [{"key": "a.jpg", "n": "1"}]
    with pytest.raises(CallerError, match="UTF-16"):
        listed(tmp_path, content.encode("utf-16"), f"wide-{name}")


def test_lists_that_were_joined_have_a_mark_in_between(tmp_path: Path) -> None:
    one = '{"url": "a.jpg"}\n'.encode("utf-8-sig")
    assert [row["key"] for row in listed(tmp_path, one + one, "list.jsonl", chunk_images=1)] == ["a.jpg"] * 2


def test_half_an_emoji_is_written_as_json_has_it(tmp_path: Path) -> None:
    content = '{"url": "a.jpg", "\\ud83d": 1, "c": "x\\ud83d", "d": {"e": "\\ud83d"}}\n'
    (row,) = listed(tmp_path, content, "list.jsonl")
    assert row == {"key": "a.jpg", "\\ud83d": 1, "c": "x\\ud83d", "d": '{"e": "\\ud83d"}'}


def test_json_too_deep_is_the_callers_matter(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="not JSON"):
        listed(tmp_path, '{"url": "a.jpg", "x": ' + "[" * 100_000 + "\n", "list.jsonl")
