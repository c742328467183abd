"""AVIFs whose boxes claim more than they hold -> their reasons, before libavif looks."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from PIL import Image

from iqa_core.images import decode, read_header
from iqa_core.records import ImageHeader, ImageLimits, Reason, Rejection, RgbImage
from tests.bad_images import encoded

Parts = list[tuple[bytes, bytes]]
PICTURE = encoded(Image.new("RGB", (64, 48)), "AVIF")
ANIMATION = encoded(
    Image.new("RGB", (64, 48)), "AVIF", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")]
)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def with_parts(change: Callable[[Parts], Parts]) -> bytes:
    """The picture with other boxes in its metadata; its only item is found where it then lies."""
    at = PICTURE.index(b"meta") - 4
    (size,) = struct.unpack_from(">I", PICTURE, at)
    parts: Parts = []
    place = at + 12
    while place < at + size:
        length, kind = struct.unpack_from(">I4s", PICTURE, place)
        parts.append((kind, PICTURE[place + 8 : place + length]))
        place += length
    changed = change(parts)
    grown = 12 + sum(8 + len(body) for _, body in changed) - size
    changed = [(kind, moved(body, grown) if kind == b"iloc" else body) for kind, body in changed]
    body = bytes(4) + b"".join(box(kind, body) for kind, body in changed)
    return PICTURE[:at] + box(b"meta", body) + PICTURE[at + size :]


def moved(iloc: bytes, by: int) -> bytes:
    (start,) = struct.unpack_from(">I", iloc, 14)
    return iloc[:14] + struct.pack(">I", start + by) + iloc[18:]


def grown(kind: bytes, change: Callable[[bytes], bytes]) -> Callable[[Parts], Parts]:
    return lambda parts: [(name, change(body) if name == kind else body) for name, body in parts]


def items(count: int) -> Callable[[bytes], bytes]:
    more = b"".join(struct.pack(">HHHII", 2 + number, 0, 1, 0, 1) for number in range(count))
    return lambda iloc: iloc[:6] + struct.pack(">H", 1 + count) + iloc[8:] + more


def named(count: int) -> Callable[[bytes], bytes]:
    more = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 9, 0, b"none") + b"\0") * count
    return lambda iinf: iinf[:4] + struct.pack(">H", 1 + count) + iinf[6:] + more


def properties(count: int) -> Callable[[bytes], bytes]:
    def change(iprp: bytes) -> bytes:
        (size,) = struct.unpack_from(">I", iprp)
        return box(b"ipco", iprp[8:size] + box(b"free", b"") * count) + iprp[size:]

    return change


COSTLY: dict[str, Callable[[int], Callable[[Parts], Parts]]] = {
    "places": lambda n: grown(b"iloc", items(n)),
    "types": lambda n: grown(b"iinf", named(n)),
    "properties": lambda n: grown(b"iprp", properties(n)),
    "links": lambda n: lambda parts: [*parts, (b"iref", b"\0\0\0\0" + box(b"cdsc", bytes(8)) * (n // 2))],
    "nothing": lambda n: lambda parts: [*parts, *((b"free", b"") for _ in range(n))],
}


@pytest.mark.parametrize("kind", COSTLY)
def test_more_parts_than_a_writer_makes_are_refused(kind: str) -> None:
    """800,000 items were compared with each other for minutes."""
    few = with_parts(COSTLY[kind](100))
    if kind != "links":
        assert isinstance(decode(few, ImageLimits()), RgbImage), decode(few, ImageLimits())
    found = read_header(with_parts(COSTLY[kind](20_000)), ImageLimits())
    assert isinstance(found, Rejection)
    assert found.reason is Reason.CORRUPT
    assert "than" in found.detail


def test_what_is_coded_counts_and_not_what_the_boxes_say() -> None:
    """libavif decodes all of it, then scales it: 30 million pixels behind a claim of 64 x 64."""
    large = encoded(Image.new("RGB", (512, 512)), "AVIF")
    at = large.index(b"ispe") + 8
    data = large[:at] + struct.pack(">II", 64, 64) + large[at + 8 :]
    assert read_header(data, ImageLimits()) == ImageHeader(64, 64, "avif", 1)
    found = read_header(data, ImageLimits(max_pixels=512 * 512 - 1))
    assert isinstance(found, Rejection)
    assert found.reason is Reason.TOO_LARGE
    assert "512 x 512" in found.detail


def test_the_first_picture_of_a_sequence_counts_too() -> None:
    sides = [at for at in range(len(ANIMATION) - 4) if ANIMATION[at : at + 4] == struct.pack(">HH", 64, 48)]
    assert sides, "of the sample's entry"
    limits = ImageLimits(max_pixels=64 * 48 - 1)
    assert isinstance(decode(ANIMATION, ImageLimits()), RgbImage)
    data = bytearray(ANIMATION)
    for at in range(len(data) - 8):
        if data[at : at + 4] == b"ispe":
            struct.pack_into(">II", data, at + 8, 32, 32)
    found = read_header(bytes(data), limits)
    assert isinstance(found, Rejection)
    assert found.reason is Reason.TOO_LARGE
    assert "frames of 64 x 48" in found.detail


def test_frames_without_end_in_one_picture_are_refused() -> None:
    """A frame that only shows another one, again, is 3 bytes."""
    place = PICTURE.index(b"iloc") + 18
    start, size = struct.unpack_from(">II", PICTURE, place)
    assert len(PICTURE) == start + size
    for more, is_taken in ((3, True), (20, False)):
        data = bytearray(PICTURE + b"\x1a\1\x80" * more)
        struct.pack_into(">I", data, place + 4, size + 3 * more)
        struct.pack_into(">I", data, PICTURE.index(b"mdat") - 4, size + 8 + 3 * more)
        found = read_header(bytes(data), ImageLimits())
        assert isinstance(found, ImageHeader) == is_taken, found


def test_pictures_that_lie_over_each_other_are_not_read_again_and_again() -> None:
    def change(parts: Parts) -> Parts:
        infe = b"".join(
            box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", number, 0, b"av01") + b"\0") for number in range(2, 500)
        )
        places = b"".join(struct.pack(">HHHII", number, 0, 1, 0, 0) for number in range(2, 500))
        kinds = {
            b"iinf": lambda body: body[:4] + struct.pack(">H", 499) + body[6:] + infe,
            b"iloc": lambda body: body[:6] + struct.pack(">H", 499) + body[8:] + places,
        }
        return [(kind, kinds[kind](body) if kind in kinds else body) for kind, body in parts]

    found = read_header(with_parts(change), ImageLimits())
    assert isinstance(found, Rejection)
    assert "over each other" in found.detail
