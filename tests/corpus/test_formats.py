"""The same images in every kind of source give the same bytes, the right keys and the carried columns."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.demo.corpus import write_scenes
from iqa_core.storage.storage import Storage
from tests.bad_images import sound_images
from tests.corpus.planned import OPTIONS, Image, Output, read
from tests.corpus.tars import Entry, write_tar
from tests.s3_server import Bucket, storage_options

CORPUS = {
    **sound_images(),
    **{f"again/{name}": data for name, data in sound_images().items() if name.endswith((".png", ".jpg", ".webp"))},
    "again/upper.JPG": sound_images()["baseline.jpg"],
}
"""Some thirty files by name, in two folders."""

NAMES = sorted(CORPUS)
SEEDS = {name: index for index, name in enumerate(NAMES)}


def folder(root: Path) -> Path:
    for name, data in CORPUS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def webdataset(root: Path) -> Path:
    entries: list[Entry] = []
    for name in NAMES:
        stem = name.replace(".", "-")
        entries += [(f"{stem}.{name.rsplit('.', 1)[1]}", CORPUS[name])]
        entries += [(f"{stem}.json", json.dumps({"seed": SEEDS[name], "name": name}).encode())]
    return write_tar(root / "corpus.tar", entries)


def _table(root: Path, column: str, values: pa.Array) -> Path:
    table = pa.table({"name": NAMES, column: values, "seed": [SEEDS[name] for name in NAMES]})
    pq.write_table(table, root / "corpus.parquet", row_group_size=10)
    return root / "corpus.parquet"


def parquet_bytes(root: Path) -> Path:
    return _table(root, "data", pa.array([CORPUS[name] for name in NAMES]))


def parquet_structs(root: Path) -> Path:
    rows = [{"bytes": CORPUS[name], "path": name} for name in NAMES]
    return _table(root, "image", pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()})))


def parquet_uris(root: Path) -> Path:
    folder(root / "files")
    return _table(root, "url", pa.array([f"files/{name}" for name in NAMES]))


def csv_list(root: Path) -> Path:
    folder(root / "files")
    with (root / "corpus.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("image_path", "name", "seed"), *((f"files/{name}", name, SEEDS[name]) for name in NAMES)])
    return root / "corpus.csv"


def json_list(root: Path) -> Path:
    folder(root / "files")
    records = [{"seed": SEEDS[name], "uri": str(root / "files" / name), "name": name} for name in NAMES]
    (root / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return root / "corpus.jsonl"


def _hugging_face() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        {"name": datasets.Value("string"), "image": datasets.Image(), "seed": datasets.Value("int64")}
    )
    rows = {
        "name": NAMES,
        "image": [{"bytes": CORPUS[name], "path": name} for name in NAMES],
        "seed": [SEEDS[name] for name in NAMES],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def saved_to_disk(root: Path) -> Path:
    _hugging_face().save_to_disk(root / "saved", num_shards=3)  # type: ignore[attr-defined]
    return root / "saved"


def hugging_face_parquet(root: Path) -> Path:
    (root / "set" / "data").mkdir(parents=True)
    (root / "set" / "README.md").write_text("---\nconfigs: []\n---\n")
    _hugging_face().to_parquet(root / "set" / "data" / "train-00000-of-00001.parquet")  # type: ignore[attr-defined]
    return root / "set"


CONTAINERS: tuple[Callable[[Path], Path], ...] = (
    webdataset,
    parquet_bytes,
    parquet_structs,
    parquet_uris,
    csv_list,
    json_list,
)
HUGGING_FACE = (saved_to_disk, hugging_face_parquet)
"""Their library loads torch."""


def by_name(images: list[Image]) -> dict[str, Image]:
    found = {image.carried["name"]: image for image in images}
    assert len(found) == len(images)
    return found


def test_a_folder(tmp_path: Path) -> None:
    images = read(tmp_path / "out", folder(tmp_path / "in"))
    assert {image.key: image.data for image in images} == CORPUS
    assert len(images) == len(CORPUS)


@pytest.mark.parametrize(
    "write", [*CONTAINERS, *(pytest.param(write, marks=pytest.mark.slow) for write in HUGGING_FACE)]
)
def test_every_container_holds_the_same(write: Callable[[Path], Path], tmp_path: Path) -> None:
    carry = {"name": "string", "seed": "int64"} if write in (webdataset, csv_list) else {}
    images = read(tmp_path / "out", write(tmp_path), carry=carry)
    found = by_name(images)
    assert {name: image.data for name, image in found.items()} == CORPUS
    assert {name: image.carried["seed"] for name, image in found.items()} == SEEDS
    keys = {name: image.key for name, image in found.items()}
    if write is webdataset:
        assert keys == {name: f"{name.replace('.', '-')}.{name.rsplit('.', 1)[1]}" for name in NAMES}
    elif write is parquet_bytes:
        assert keys == {name: str(SEEDS[name]) for name in NAMES}
    elif write in (parquet_uris, csv_list):
        assert keys == {name: f"files/{name}" for name in NAMES}
    elif write is json_list:
        assert keys == {name: str(tmp_path / "files" / name) for name in NAMES}
    elif write is parquet_structs:
        assert keys == {name: name for name in NAMES}


@pytest.mark.parametrize(
    "write", [parquet_bytes, csv_list, parquet_uris, pytest.param(saved_to_disk, marks=pytest.mark.slow)]
)
def test_an_id_column_is_the_key_everywhere(write: Callable[[Path], Path], tmp_path: Path) -> None:
    images = read(tmp_path / "out", write(tmp_path), id_column="name")
    assert [image.key for image in images] == [image.carried["name"] for image in images]
    assert {image.key: image.data for image in images} == CORPUS


@pytest.mark.slow
def test_all_of_them_at_once_are_one_table(tmp_path: Path) -> None:
    """Loose images have none of the columns, a tar has sidecars: what is missing is null."""
    places = []
    for write in (webdataset, parquet_bytes, saved_to_disk):
        (tmp_path / write.__name__).mkdir()
        places.append(write(tmp_path / write.__name__))
    images = read(tmp_path / "out", folder(tmp_path / "loose"), *places)
    assert len(images) == 4 * len(CORPUS)
    assert sorted(image.data for image in images if isinstance(image.data, bytes)) == sorted([*CORPUS.values()] * 4)
    assert {frozenset(image.carried) for image in images} == {frozenset(["json", "txt", "name", "seed"])}
    loose = [image for image in images if image.source.startswith(str(tmp_path / "loose"))]
    assert {value for image in loose for value in image.carried.values()} == {None}
    assert sum(image.carried["seed"] is not None for image in images) == 2 * len(CORPUS)


def test_scenes_of_the_demo_are_the_same_in_all_three_formats(tmp_path: Path) -> None:
    found = []
    for name in ("folder", "webdataset", "parquet"):
        write_scenes(tmp_path / name, 12, seed=3, format=name, size=64)
        images = read(tmp_path / f"out-{name}", tmp_path / name)
        found.append([(image.key, image.data) for image in images])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 12


@pytest.mark.s3
def test_the_same_from_an_object_store(tmp_path: Path, s3: Bucket) -> None:
    """Remote tars are sampled and not indexed, remote tables come in ranges; relative URIs stay in the bucket."""
    sources = (
        ("tar", webdataset, 4),
        ("whole tar", webdataset, 1000),
        ("table", parquet_structs, 4),
        ("list", csv_list, 4),
        ("saved", saved_to_disk, 4),
    )
    for name, write, chunk_images in sources:
        root = tmp_path / name
        root.mkdir()
        given = write(root)
        s3.put_tree(root)
        carry = {"name": "string", "seed": "int64"} if write in (webdataset, csv_list) else {}
        options = replace(OPTIONS, chunk_images=chunk_images, carry=carry)
        output = Output(tmp_path / f"out-{name}", options, Storage(storage_options(s3.endpoint)))
        output.extend(s3.uri(str(given.relative_to(root))))
        found = by_name(output.images())
        assert {key: image.data for key, image in found.items()} == CORPUS
        assert {key: image.carried["seed"] for key, image in found.items()} == SEEDS
