"""The largest difference between two scores of one image: alone, in company, in any order, in any size of batch.

The demo assessor on scenes of many sizes, in float32 and in bfloat16. Then the share of images about which a checkpoint
writes the same text in batches of 40 and of 7, shuffled and alone, in float32: the likeliest tokens, and drawn ones. A
checkpoint that was not taught to write says one thing of all images, which `texts_greedy` shows: give one that was.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import add_written_flags, main
from iqa_core.assessor.direct import load_assessor
from iqa_core.demo.scenes import make_scene
from iqa_core.flags import StrictParser
from iqa_core.records import Assessment, ImageHeader, RgbImage
from iqa_core.rubrics import written as written_rubrics

IMAGES, SEED = 32, 616
WRITTEN, ALONE = 1000, 200
"""Images that are written about, and those of them that are written about by themselves."""

SAMPLED = "samples = 2\ntemperature = 1.0\ntop_p = 0.95\n"


def images(count: int = IMAGES) -> list[RgbImage]:
    """Scenes, cut to many shapes."""
    rng = np.random.default_rng(SEED)
    found = []
    for index in range(count):
        height, width = rng.integers(28, 113, 2)
        pixels = np.ascontiguousarray(make_scene(SEED, index).pixels_HWC[:height, :width])
        found.append(RgbImage(pixels, ImageHeader(int(width), int(height), "png", 1)))
    return found


def scores(assessor: Any, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    results = assessor.assess(prepared)
    assert all(isinstance(result, Assessment) for result in results)
    return np.stack([result.scores_K for result in results])


def differences(dtype: str) -> dict[str, float]:
    """Against every image alone."""
    assessor: Any = load_assessor("demo", dtype=dtype, threads=1)
    prepared = [assessor.preparer.prepare(image) for image in images()]
    alone = np.concatenate([scores(assessor, [one]) for one in prepared])
    order = np.random.default_rng(SEED).permutation(IMAGES)
    shuffled = np.empty_like(alone)
    shuffled[order] = scores(assessor, [prepared[i] for i in order])
    companies = {"together": scores(assessor, prepared), "shuffled": shuffled}
    for tokens in (700, 4096, 65536):
        other: Any = load_assessor("demo", dtype=dtype, batch_tokens=tokens, threads=1)
        companies[f"batch_tokens_{tokens}"] = scores(other, prepared)
    apart = {name: np.abs(found - alone) for name, found in companies.items()}
    over = float(np.mean([(part.max(axis=1) > 0.02).mean() for part in apart.values()]))
    return {**{name: float(part.max()) for name, part in apart.items()}, "images_above_0.02": over}


def texts(assessor: Any, prepared: Sequence[NDArray[np.uint8]], size: int) -> list[tuple[str, ...]]:
    """What is written about each, so many at a time."""
    found = [one for at in range(0, len(prepared), size) for one in assessor.answers(prepared[at : at + size])]
    return [tuple(answer.text for answer in one) for one in found]


def same_texts(checkpoint: str, rubric: str, count: int) -> tuple[float, int]:
    """Share of comparisons in which an image has the same texts, 0 to 1, and the number of texts that differ."""
    assessor: Any = load_assessor(checkpoint, rubric, dtype="float32", threads=1)
    prepared = [assessor.preparer.prepare(image) for image in images(count)]
    order = np.random.default_rng(SEED).permutation(count).tolist()
    expected = texts(assessor, prepared, 40)
    shuffled = dict(zip(order, texts(assessor, [prepared[i] for i in order], 7), strict=True))
    alone = dict(enumerate(texts(assessor, prepared[:ALONE], 1)))
    are_same = [own == expected[i] for found in (shuffled, alone) for i, own in found.items()]
    return float(np.mean(are_same)), len(set(expected))


def written(checkpoint: str, rubric: str, count: int) -> dict[str, float]:
    """Of the likeliest tokens, and of tokens that are drawn."""
    shipped = Path(written_rubrics.__file__).with_name(f"{rubric}.toml").read_text()
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn.toml"
        drawn.write_text(shipped.replace("samples = 1\ntemperature = 0\n", SAMPLED))
        found = {}
        for way, asked in (("greedy", rubric), ("drawn", str(drawn))):
            found[f"same_text_{way}"], found[f"texts_{way}"] = same_texts(checkpoint, asked, count)
        return found


def add_flags(parser: StrictParser) -> None:
    add_written_flags(parser)
    parser.add_argument("--images", type=int, default=WRITTEN, help="that are written about (%(default)s)")


def measure(checkpoint: str, rubric: str, images: int) -> Mapping[str, Any]:
    found = {dtype: differences(dtype) for dtype in ("float32", "bfloat16")}
    largest = {f"largest_{dtype}": max(list(part.values())[:-1]) for dtype, part in found.items()}
    return {"images": IMAGES, **largest, **found, "written_about": images, **written(checkpoint, rubric, images)}


if __name__ == "__main__":
    main("invariance", measure, add_flags)
