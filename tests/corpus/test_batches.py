"""A chunk's images -> batches: every ordinal once, inside the bounds, the same each time, rejections in their slots."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from iqa_core.corpus import batches
from iqa_core.corpus.batches import BatchBounds, ReadyBatch, ready_batches, rejected_batch
from iqa_core.corpus.chunks import LOCATION, Content, Encoded
from iqa_core.records import ImageHeader, ImageLimits, PreparedShape, Reason, Rejection, RgbImage
from tests.bad_images import bad_images, encoded, png_claiming

PATCH = 8


@dataclass(frozen=True)
class PatchPreparer:
    """Whole patches of 8 x 8, a token each; raises where it is told."""

    limits: ImageLimits = field(default_factory=ImageLimits)
    hates_width: int = -1
    hates_shape_of_width: int = -1
    error: type[Exception] = ValueError

    def shape(self, header: ImageHeader) -> PreparedShape:
        if header.width == self.hates_shape_of_width:
            raise self.error("no shape")
        rows, columns = -(-header.height // PATCH), -(-header.width // PATCH)
        return PreparedShape(rows * PATCH, columns * PATCH, rows * columns)

    def text_tokens(self, texts: Mapping[str, str]) -> int:
        return sum(map(len, texts.values()))

    def prepare(self, image: RgbImage) -> NDArray[np.uint8]:
        if image.header.width == self.hates_width:
            raise self.error("no pixels")
        shape = self.shape(image.header)
        prepared = np.zeros((shape.height, shape.width, 3), np.uint8)
        prepared[: image.header.height, : image.header.width] = image.pixels_HWC
        return prepared


def png(width: int, height: int, colour: int = 0) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (width, height), (colour % 256, 5, 9)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def content_of(images: Sequence[bytes | Rejection], damage: str | None = None) -> Content:
    def fetched(ordinals: Sequence[int]) -> Iterator[Encoded]:
        assert list(ordinals) == sorted(ordinals)
        return (Encoded("a.tar", images[i], offset=i * 512, length=i) for i in ordinals)

    carried = pa.table({"n": pa.array(range(len(images)), pa.int64())})
    return Content(tuple(f"{i}.png" for i in range(len(images))), carried, fetched, damage)


def batched(
    images: Sequence[bytes | Rejection],
    bounds: BatchBounds,
    preparer: PatchPreparer | None = None,
    only: frozenset[int] | None = None,
) -> list[ReadyBatch]:
    return list(ready_batches("c", content_of(images), preparer or PatchPreparer(), bounds, nullcontext, only))


def outcomes(found: Sequence[ReadyBatch]) -> dict[int, NDArray[np.uint8] | Rejection]:
    """By ordinal."""
    by_ordinal: dict[int, NDArray[np.uint8] | Rejection] = {}
    for batch in found:
        images = iter(batch.images)
        assert len(batch.ordinals) == len(batch.rejections) == batch.facts.num_rows
        for ordinal, rejection in zip(batch.ordinals, batch.rejections, strict=True):
            assert ordinal not in by_ordinal
            by_ordinal[ordinal] = next(images) if rejection is None else rejection
        assert next(images, None) is None
    return by_ordinal


sizes = st.tuples(st.integers(PATCH, 60), st.integers(PATCH, 60))
broken = st.sampled_from([b"", b"no image", Rejection(Reason.MISSING, "gone"), png(3, 3)])
image_lists = st.lists(sizes | broken, max_size=30)


@settings(max_examples=40, deadline=None)
@given(
    given_images=image_lists, tokens=st.integers(1, 120), images=st.integers(1, 9), window=st.sampled_from([1, 4, 256])
)
def test_every_image_once_inside_the_bounds_and_the_same_again(
    given_images: list[tuple[int, int] | bytes | Rejection], tokens: int, images: int, window: int
) -> None:
    encoded: list[bytes | Rejection] = [
        png(*image, colour=i) if isinstance(image, tuple) else image for i, image in enumerate(given_images)
    ]
    bounds = BatchBounds(tokens=tokens, images=images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "WINDOW_IMAGES", window)
        found, again = batched(encoded, bounds), batched(encoded, bounds)
    assert [batch.ordinals for batch in found] == [batch.ordinals for batch in again]
    assert all(one.facts.equals(other.facts) for one, other in zip(found, again, strict=True))
    assert [batch.rejections for batch in found] == [batch.rejections for batch in again]
    by_ordinal = outcomes(found)
    assert sorted(by_ordinal) == list(range(len(encoded)))
    for batch in found:
        assert (batch.origin.chunk, batch.origin.images) == ("c", len(encoded))
        assert len(batch.ordinals) <= images
        costs = [image.shape[0] * image.shape[1] // PATCH**2 for image in batch.images]
        assert sum(costs) <= tokens or len(costs) == len(batch.ordinals) == 1
    for ordinal, image in enumerate(given_images):
        outcome = by_ordinal[ordinal]
        if isinstance(image, tuple):
            assert isinstance(outcome, np.ndarray)
            assert tuple(outcome[0, 0]) == (ordinal, 5, 9)
        else:
            assert isinstance(outcome, Rejection)


def test_like_sizes_go_together() -> None:
    encoded = [png(64, 64) if i % 2 else png(16, 16) for i in range(40)]
    found = batched(encoded, BatchBounds(tokens=64 * 20, images=20))
    assert [len({image.shape for image in batch.images}) for batch in found] == [1, 1]


def test_facts_are_those_of_the_encoded_image() -> None:
    encoded: list[bytes | Rejection] = [png(40, 24), b"no image", Rejection(Reason.FORBIDDEN, "locked"), png(3, 3)]
    found = batched(encoded, BatchBounds(tokens=1000))
    rows = {row["key"]: row for batch in found for row in batch.facts.to_pylist()}
    assert found[0].facts.schema.names == [*LOCATION.names, "n"]
    assert rows["0.png"] == {
        "key": "0.png",
        "source": "a.tar",
        "sha256": hashlib.sha256(png(40, 24)).hexdigest(),
        "offset": 0,
        "length": 0,
        "row": None,
        "width": 40,
        "height": 24,
        "format": "png",
        "frames": 1,
        "n": 0,
    }
    assert rows["1.png"]["sha256"] == hashlib.sha256(b"no image").hexdigest()
    assert rows["1.png"]["width"] is None
    assert rows["2.png"]["sha256"] is None
    assert (rows["3.png"]["width"], rows["3.png"]["n"]) == (3, 3)


def test_every_bad_image_keeps_its_slot_with_its_reason() -> None:
    files = bad_images()
    found = outcomes(batched([file.data for file in files], BatchBounds(tokens=2000)))
    reasons = [outcome.reason if isinstance(outcome, Rejection) else None for _, outcome in sorted(found.items())]
    assert reasons == [file.reason for file in files]


def test_only_some_are_batched_and_fetched() -> None:
    encoded = [png(16, 16, i) for i in range(300)]
    found = batched(encoded, BatchBounds(tokens=40), only=frozenset([299, 0, 7]))
    assert sorted(outcomes(found)) == [0, 7, 299]
    assert {batch.origin.images for batch in found} == {300}
    assert {row["key"] for batch in found for row in batch.facts.to_pylist()} == {"0.png", "7.png", "299.png"}


def test_a_chunk_without_images_is_one_empty_batch() -> None:
    (batch,) = batched([], BatchBounds(tokens=40))
    assert (batch.origin.images, batch.ordinals, batch.images, batch.facts.num_rows) == (0, (), (), 0)
    assert batch.facts.schema.names == [*LOCATION.names, "n"]


@pytest.mark.parametrize("preparer", [PatchPreparer(hates_width=24), PatchPreparer(hates_shape_of_width=24)])
def test_a_preparer_that_raises_costs_its_image_alone(preparer: PatchPreparer) -> None:
    found = outcomes(batched([png(16, 16), png(24, 16), png(32, 16)], BatchBounds(tokens=100), preparer))
    assert isinstance(found[0], np.ndarray)
    assert isinstance(found[2], np.ndarray)
    assert isinstance(found[1], Rejection)
    assert found[1].reason == Reason.CORRUPT
    assert found[1].header == ImageHeader(24, 16, "png", 1)


@pytest.mark.parametrize(
    "preparer",
    [PatchPreparer(hates_width=24, error=MemoryError), PatchPreparer(hates_shape_of_width=24, error=MemoryError)],
)
def test_a_machine_without_memory_is_no_fault_of_the_image(preparer: PatchPreparer) -> None:
    with pytest.raises(MemoryError):
        batched([png(24, 16)], BatchBounds(tokens=100), preparer)


def test_the_guard_is_entered_for_each_header_and_each_decoding_and_left() -> None:
    depth, entered = 0, 0

    @contextmanager
    def guard() -> Iterator[None]:
        nonlocal depth, entered
        depth, entered = depth + 1, entered + 1
        yield
        depth -= 1

    encoded = [png(16, 16), b"no image", png(24, 24)]
    for _ in ready_batches("c", content_of(encoded), PatchPreparer(), BatchBounds(tokens=1), guard):
        assert depth == 0
    assert entered == 3 + 2


def test_encoded_bytes_held_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch comes after two images of the window's bytes, not after all."""
    image = png(64, 64)
    monkeypatch.setattr(batches, "WINDOW_BYTES", 2 * len(image))
    handed_out = 0

    def fetched(ordinals: Sequence[int]) -> Iterator[Encoded]:
        nonlocal handed_out
        for _ in ordinals:
            handed_out += 1
            yield Encoded("a.tar", image)

    content = Content(tuple("abcdefgh"), pa.table({}), fetched)
    next(ready_batches("c", content, PatchPreparer(), BatchBounds(tokens=10_000), nullcontext))
    assert handed_out == 2


def test_a_file_is_looked_at_once_unless_that_makes_more_of_it_than_it_is() -> None:
    """A window holds what was found of its files: views of them, but not the pixels of a BMP in runs."""

    class Counting(PatchPreparer):
        seen: ClassVar[list[str]] = []

        def shape(self, header: ImageHeader) -> PreparedShape:
            self.seen.append(header.format)
            return PreparedShape(header.height, header.width, 4)

        def prepare(self, image: RgbImage) -> NDArray[np.uint8]:
            return image.pixels_HWC

    still = Image.new("RGB", (16, 16))
    others = [encoded(still, format) for format in ("JPEG", "WEBP", "GIF", "TIFF", "AVIF", "BMP")]
    found = batched([png(16, 16), *others, bmp_of_runs(16, 16)], BatchBounds(tokens=1), Counting())
    assert all(batch.images for batch in found)
    assert sorted(Counting.seen) == ["avif", "bmp", "bmp", "bmp", "gif", "jpeg", "png", "tiff", "webp"]


def bmp_of_runs(width: int, height: int) -> bytes:
    """Each row is one run."""
    runs = bytes([width, 0, 0, 0]) * height
    head = struct.pack("<2sIIIIiiHH", b"BM", 62 + len(runs), 0, 62, 40, width, height, 1, 8)
    return head + struct.pack("<IIiiII", 1, len(runs), 0, 0, 2, 0) + bytes(8) + runs


def test_pixels_of_a_batch_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_PIXEL_BYTES", 64 * 64 * 3 * 2)
    found = batched([png(64, 64)] * 5, BatchBounds(tokens=10_000))
    assert [len(batch.images) for batch in found] == [2, 2, 1]


def test_damage_and_layout_travel_with_every_batch() -> None:
    content = content_of([png(16, 16), png(32, 32)], damage="a.tar: cut at byte 7")
    found = list(ready_batches("c", content, PatchPreparer(), BatchBounds(tokens=1), nullcontext))
    assert [batch.origin.damage for batch in found] == ["a.tar: cut at byte 7"] * 2
    assert {batch.origin.layout for batch in found} == {content.layout}
    assert content.layout != content_of([png(16, 16)]).layout


def test_a_rejected_batch_of_one_is_not_decoded() -> None:
    content = content_of([b"x", b"poison"])
    rejection = Rejection(Reason.CORRUPT, "it ended its process")
    batch = rejected_batch("c", content, 1, Encoded("a.tar", b"poison", offset=512), rejection)
    assert (batch.ordinals, batch.rejections, batch.images, batch.origin.images) == ((1,), (rejection,), (), 2)
    (row,) = batch.facts.to_pylist()
    assert (row["key"], row["n"], row["offset"]) == ("1.png", 1, 512)
    assert row["sha256"] == hashlib.sha256(b"poison").hexdigest()


def test_a_claim_that_no_column_holds_is_null_in_its_row() -> None:
    def fetched(ordinals: Sequence[int]) -> Iterator[Encoded]:
        cut = Encoded("caf\udce9.tar", Rejection(Reason.TRUNCATED, "cut"), offset=2**63, length=10**30, row=-(2**64))
        return (cut if ordinal == 1 else Encoded("a.tar", png(16, 16), offset=5, length=7) for ordinal in ordinals)

    content = Content(("a.png", "b.png"), pa.table({"n": [1, 2]}), fetched)
    (batch,) = ready_batches("c", content, PatchPreparer(), BatchBounds(tokens=10), nullcontext)
    cut, sound = batch.facts.to_pylist()
    assert (cut["offset"], cut["length"], cut["row"], cut["source"]) == (None, None, None, "caf\\udce9.tar")
    assert (sound["offset"], sound["length"], sound["row"], sound["width"]) == (5, 7, None, 16)


def test_a_side_that_no_column_holds_is_one_images_rejection() -> None:
    found = batched([png_claiming(2**32 - 1, 9), png(16, 16)], BatchBounds(tokens=10))
    (rejected,) = [outcome for outcome in outcomes(found).values() if isinstance(outcome, Rejection)]
    assert rejected.reason is Reason.TOO_LARGE
