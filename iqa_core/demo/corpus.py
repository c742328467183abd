"""A seed and a count -> a corpus of scenes on disk and what is true of each, in any of four formats.

    folder       scene-000000.png, scene-000001.png, ...
    webdataset   scenes-00000.tar of 256 images, a .json sidecar beside each
    parquet      scenes-00000.parquet of 1,024 images, in row groups of 128
    sa-bench     images/layout/images/scene-000000.jpg, ..., annotations/ (see sa_bench)

The same seed gives the same files, and an image has one name and the same bytes in the first three formats.
`annotations.csv` has one line per image and dimension; in sa-bench, annotations/ stands in its place.

With captions, each image carries one, true for every second image, as `caption`, `caption_true` and `caption_false_in`:
columns in Parquet, in the sidecars of tars, else in `metadata.csv`. `captions.csv` and `descriptions.jsonl` are for
training: two captions of each image, one of them true, and all that captions may tell of it.

Flawed scenes have what is wrong with them, a noise or a warp somewhere or everywhere (see flaws), in their truths. With
places, it is in one cell of a grid, and `flaws.jsonl` says in which, as boxes of the grounding job.

With texts, the answers of two written rubrics about each image are for training, `interior-written-v1.jsonl` and
`interior-perception-v1.jsonl`, and `quality.csv` has opinions on the scenes as a whole. The numbers in the answers may
be off by noise; opinions stay true.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iqa_core.demo import sa_bench
from iqa_core.demo.caption_tables import write_captions
from iqa_core.demo.captions import Captions, make_captions
from iqa_core.demo.flaws import make_flawed_scene
from iqa_core.demo.places import make_placed_scene, place_of, write_places
from iqa_core.demo.scenes import make_scene
from iqa_core.demo.text_tables import write_texts
from iqa_core.demo.texts import SceneTexts, make_texts
from iqa_core.errors import CallerError
from iqa_core.storage.outputs import require_folder
from iqa_core.storage.uris import absolute

IMAGES_PER_TAR = 256
IMAGES_PER_PARQUET = 1024
IMAGES_PER_ROW_GROUP = 128
JPEG_QUALITY = 92
FOLDER, SA_BENCH = "folder", "sa-bench"

_ENDINGS = {"png": "png", "jpeg": "jpg"}
_STYLES = ("modern", "classic", "rustic", "minimal", "vintage")
_ROOMS = ("living room", "study", "hall", "nursery", "reading room", "hotel lounge", "waiting room")


@dataclass(frozen=True, slots=True)
class Extras:
    """What each scene has beyond a picture and its truths."""

    captions: bool = False
    texts: bool = False
    noise: float = 0.0
    """Standard deviation, in points, of what the numbers in the texts are off by."""
    flaw: bool = False
    """One flaw more, somewhere or everywhere, which its truths tell of."""
    place: bool = False
    """The same in one cell of a grid, and a line that says in which pixels."""

    @property
    def beside(self) -> Sequence[str]:
        """What lies beside the annotations, for people."""
        return [*(name for name in ("captions", "texts") if getattr(self, name)), *["places"] * self.place]


PLAIN = Extras()


@dataclass(frozen=True, slots=True)
class SceneFile:
    """One scene as it lies on disk."""

    name: str
    data: bytes
    prompt: str
    seed: int
    index: int
    truths: Mapping[str, float]
    captions: Captions | None = None
    """None: it was made without."""
    texts: SceneTexts | None = None
    """Likewise."""
    place: Mapping[str, Any] | None = None
    """Likewise, of its flaw."""

    @property
    def columns(self) -> dict[str, Any]:
        """What the image carries in tables and sidecars."""
        own = {"seed": self.seed, "index": self.index, "prompt": self.prompt}
        return own if self.captions is None else own | self.captions.columns


@dataclass(frozen=True, slots=True)
class WrittenCorpus:
    """How much `write_scenes` has written."""

    images: int
    files: int
    """Files that hold images: images themselves, tars or Parquet files."""
    num_bytes: int
    """Bytes of the encoded images."""


def write_scenes(
    output: Path,
    count: int,
    seed: int,
    format: str = "folder",
    size: int = 112,
    image_format: str = "png",
    extras: Extras = PLAIN,
) -> WrittenCorpus:
    """Write `count` scenes and their annotations into a new or empty folder.

    Raises CallerError on a folder that is not empty, an unknown format, or a count, seed or size out of bounds.
    """
    if count < 1:
        raise CallerError(f"a corpus of {count} scenes holds nothing; give --count 1 or more")
    if format not in (*FORMATS, SA_BENCH):
        raise CallerError(f"no corpus format {format!r}; there are {', '.join((*FORMATS, SA_BENCH))}")
    if image_format not in _ENDINGS:
        raise CallerError(f"no image format {image_format!r}; there are {', '.join(_ENDINGS)}")
    if format == SA_BENCH and image_format != "jpeg":
        raise CallerError(f"the images of {SA_BENCH} are .jpg files; add --image-format jpeg")
    if extras.texts and format not in (FOLDER, SA_BENCH):
        raise CallerError(f"texts name their images as files, and {format} holds none; take --format {FOLDER}")
    if not 0 <= extras.noise < math.inf:
        raise CallerError(f"--noise {extras.noise:g} is no standard deviation; give 0 or more")
    if extras.noise and not extras.texts:
        raise CallerError(f"--noise {extras.noise:g} is of the numbers in texts; add --texts")
    require_folder(output)
    if output.exists() and any(output.iterdir()):
        raise CallerError(f"{output} is not an empty folder; give another --output, or empty it")
    make_scene(seed, 0, size)  # a seed or size out of bounds is found before the folder is made
    output.mkdir(parents=True, exist_ok=True)
    scenes = (encode_scene(seed, index, size, image_format, extras) for index in range(count))
    written = _write_sa_bench(output, scenes, seed) if format == SA_BENCH else _write_files(output, scenes, format)
    num_bytes, captions, texts, places = 0, {}, {}, []
    for path, holder, scene in written:
        num_bytes += len(scene.data)
        if scene.captions is not None:
            captions[path] = scene.captions
        if scene.texts is not None:
            texts[path] = scene.texts
        if scene.place is not None:
            places.append({"source": absolute(str(output / holder)), "key": path, **scene.place})
    if texts:
        write_texts(output, texts)
    if places:
        write_places(output, places)
    if captions:
        write_captions(output, captions, are_loose=format in (FOLDER, SA_BENCH))
    files = count if format == SA_BENCH else -(-count // _WRITERS[format][0])
    return WrittenCorpus(images=count, files=files, num_bytes=num_bytes)


def _write_files(output: Path, scenes: Iterator[SceneFile], format: str) -> Iterator[tuple[str, str, SceneFile]]:
    """Each scene that lies there with its annotations, behind its image's name and the file that holds it."""
    scenes_per_file, write = _WRITERS[format]
    with (output / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        annotations = csv.writer(file, lineterminator="\n")
        annotations.writerow(("image", "dimension", "mos"))
        for number, batch in enumerate(iter(lambda: list(islice(scenes, scenes_per_file)), [])):
            holder = write(output, number, batch)
            for scene in batch:
                annotations.writerows((scene.name, name, f"{truth:.4f}") for name, truth in scene.truths.items())
                yield scene.name, holder, scene


def _write_sa_bench(output: Path, scenes: Iterator[SceneFile], seed: int) -> Iterator[tuple[str, str, SceneFile]]:
    """As `_write_files`; images are named by their path below the folder."""
    truths = []
    for scene in scenes:
        id = Path(scene.name).stem
        path = sa_bench.image_path(scene.index, id)
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_bytes(scene.data)
        truths.append((id, scene.truths))
        yield path, path, scene
    sa_bench.write_annotations(output, seed, truths)


def encode_scene(seed: int, index: int, size: int, image_format: str, extras: Extras = PLAIN) -> SceneFile:
    """PNG without loss, or JPEG of quality 92; the prompt is what a person might have asked a generator for."""
    placed = make_placed_scene(seed, index, size) if extras.place else None
    flawed = make_flawed_scene(seed, index, size) if extras.flaw and not placed else placed
    scene = flawed.scene if flawed else make_scene(seed, index, size)
    buffer = io.BytesIO()
    settings = {"quality": JPEG_QUALITY} if image_format == "jpeg" else {"compress_level": 6}
    Image.fromarray(scene.pixels_HWC).save(buffer, format=image_format, **settings)
    words = np.random.Generator(np.random.PCG64([seed, index, 1]))
    style, room = _STYLES[words.integers(len(_STYLES))], _ROOMS[words.integers(len(_ROOMS))]
    return SceneFile(
        name=f"scene-{index:06d}.{_ENDINGS[image_format]}",
        data=buffer.getvalue(),
        prompt=f"a {style} {room} with five pieces of furniture and a window",
        seed=seed,
        index=index,
        truths=scene.truths,
        captions=make_captions(scene.contents, seed, index) if extras.captions else None,
        texts=make_texts(scene, seed, index, extras.noise) if extras.texts else None,
        place=place_of(placed) if placed else None,
    )


def _write_folder(output: Path, _: int, scenes: Sequence[SceneFile]) -> str:
    [scene] = scenes
    (output / scene.name).write_bytes(scene.data)
    return scene.name


def _write_tar(output: Path, number: int, scenes: Sequence[SceneFile]) -> str:
    file = f"scenes-{number:05d}.tar"
    with tarfile.open(output / file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in _members(scenes):
            header = tarfile.TarInfo(name)  # its time, owner and group are 0, so that bytes repeat
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return file


def _members(scenes: Sequence[SceneFile]) -> Iterator[tuple[str, bytes]]:
    for scene in scenes:
        yield scene.name, scene.data
        yield f"{Path(scene.name).stem}.json", json.dumps(scene.columns).encode()


def _write_parquet(output: Path, number: int, scenes: Sequence[SceneFile]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "id": pa.string(),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "prompt": pa.string(),
        "seed": pa.int64(),
        "index": pa.int64(),
        "caption": pa.string(),
        "caption_true": pa.bool_(),
        "caption_false_in": pa.string(),
    }
    rows = [{"id": scene.name, "image": {"bytes": scene.data, "path": scene.name}, **scene.columns} for scene in scenes]
    schema = pa.schema({name: kind for name, kind in types.items() if name in rows[0]})
    table = pa.Table.from_pylist(rows, schema=schema)
    file = f"scenes-{number:05d}.parquet"
    pq.write_table(table, output / file, row_group_size=IMAGES_PER_ROW_GROUP)
    return file


_WRITERS: Mapping[str, tuple[int, Callable[[Path, int, Sequence[SceneFile]], str]]] = {
    FOLDER: (1, _write_folder),
    "webdataset": (IMAGES_PER_TAR, _write_tar),
    "parquet": (IMAGES_PER_PARQUET, _write_parquet),
}
"""Format -> scenes of one file, and what writes the file of a number and returns its name."""
FORMATS = tuple(_WRITERS)
"""Formats in which every image has an opinion on every dimension."""
