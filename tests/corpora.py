"""Corpora for tests of the whole job: tiny images in every kind of source, and what each must score."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.load import describe, load
from iqa_core.images import decode
from iqa_core.records import Assessment, ImageLimits, Rejection


def tiny_png(seed: int, corner: tuple[int, int, int] = (1, 2, 3), size: int = 24) -> bytes:
    """Noise around a mean of its own, so that each image scores differently; the corner is what poison is known by."""
    rng = np.random.default_rng(seed)
    base = rng.integers(40, 216, 3)
    pixels = np.clip(rng.normal(base, 20, (size, size + seed % 9, 3)), 0, 255).astype(np.uint8)
    pixels[0, 0] = corner
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(folder: Path, images: Mapping[str, bytes]) -> None:
    for name, data in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_tar(path: Path, images: Mapping[str, bytes]) -> None:
    """Each image with a JSON sidecar that holds its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index, (name, data) in enumerate(images.items()):
            _add(tar, name, data)
            _add(tar, f"{name.rsplit('.', 1)[0]}.json", json.dumps({"index": index}).encode())


def write_parquet(path: Path, images: Mapping[str, bytes], rows_per_group: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"image": {"bytes": data, "path": name}, "caption": caption_of(name)} for name, data in images.items()]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=rows_per_group)


def write_list(path: Path, uris: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"uri": uri, "seed": index}) + "\n" for index, uri in enumerate(uris)))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@dataclass(frozen=True, slots=True)
class MixedCorpus:
    """One corpus in four kinds of source; the keys are unique over all of them."""

    inputs: tuple[str, ...]
    images: Mapping[str, bytes]
    """Key -> encoded bytes."""

    @property
    def texts(self) -> Mapping[str, str]:
        """Key -> its caption."""
        return {key: caption_of(key) for key in self.images}


def write_mixed(root: Path, count: int, seed: int = 0) -> MixedCorpus:
    """`count` images: two fifths loose, two fifths in two tars, the others in Parquet and behind a list.

    Those in Parquet have a column `caption`; after `write_captions` all have.
    """
    names = [f"picture-{index:05d}.png" for index in range(count)]
    images = {name: tiny_png(seed * 100_000 + index) for index, name in enumerate(names)}
    loose, first, second = (
        names[: 2 * count // 5],
        names[2 * count // 5 : 3 * count // 5],
        names[3 * count // 5 : 4 * count // 5],
    )
    table, listed = names[4 * count // 5 : 9 * count // 10], names[9 * count // 10 :]
    write_folder(root / "corpus" / "loose", {f"part{i % 3}/{name}": images[name] for i, name in enumerate(loose)})
    write_tar(root / "corpus" / "a.tar", {name: images[name] for name in first})
    write_tar(root / "corpus" / "z.tar", {name: images[name] for name in second})
    write_parquet(root / "corpus" / "table.parquet", {name: images[name] for name in table})
    write_folder(root / "elsewhere", {name: images[name] for name in listed})
    write_list(root / "list.jsonl", [f"elsewhere/{name}" for name in listed])
    by_key = {f"loose/part{i % 3}/{name}": images[name] for i, name in enumerate(loose)}
    by_key |= {name: images[name] for name in (*first, *second, *table)}
    by_key |= {f"elsewhere/{name}": images[name] for name in listed}
    return MixedCorpus((str(root / "corpus"), str(root / "list.jsonl")), by_key)


def write_captions(root: Path, corpus: MixedCorpus) -> None:
    """Tables beside the loose images and the tars of a mixed corpus, and a column of its list, with their captions."""
    rows = [
        {"file_name": path.relative_to(root / "corpus" / "loose").as_posix(), "caption": caption_of(path.name)}
        for path in sorted((root / "corpus" / "loose").rglob("*.png"))
    ]
    (root / "corpus" / "loose" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (root / "corpus").glob("*.tar"):
        with tarfile.open(path) as tar:
            names = [name for name in tar.getnames() if name.endswith(".png")]
        pq.write_table(pa.table({"key": names, "caption": [*map(caption_of, names)]}), path.with_suffix(".parquet"))
    lines = [json.loads(line) for line in (root / "list.jsonl").read_text().splitlines()]
    (root / "list.jsonl").write_text(
        "".join(json.dumps({**line, "caption": caption_of(line["uri"])}) + "\n" for line in lines)
    )


def caption_of(key: str) -> str:
    """The caption of an image wherever it lies: some letters for a question to depend on."""
    return f"picture {key.rpartition('/')[2]}"


ASKING = """
id = "asking-v1"
domain = "Any."
prompt_version = 1
description = "One question about the text that comes with an image, and one about the image alone."
slots = ["prompt"]
answer_prefix = "The {dimension} is"
levels = ["bad", "poor", "fair", "good", "excellent"]
dimensions = [
    { name = "likeness", query = "How well does it show this? {prompt}" },
    { name = "quality", query = "How good is it?" },
]
"""
"""A rubric with a slot; five levels, so that the reward is the mean."""


def write_asking(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ASKING)
    return path


def assessed_alone(
    images: Mapping[str, bytes], texts: Mapping[str, str] | None = None, rubric: Path | None = None
) -> dict[str, Assessment | Rejection]:
    """Each image by itself through decoder and assessor, without a job: what a score table must say.

    texts: by key, what fills the slot `prompt` of the rubric.
    """
    config = AssessorConfig(checkpoint="fake:")
    spec = describe(config, None if rubric is None else str(rubric), ImageLimits())
    assessor = load(spec, config)
    results: dict[str, Assessment | Rejection] = {}
    for key, data in images.items():
        decoded = decode(data, spec.preparer.limits)
        if isinstance(decoded, Rejection):
            results[key] = decoded
            continue
        own = None if texts is None else [{"prompt": texts[key]}]
        [results[key]] = assess_each(assessor, [spec.preparer.prepare(decoded)], own)
    return results
