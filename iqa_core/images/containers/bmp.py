"""A BMP's header -> its size, and whether its pixels are all there."""

from __future__ import annotations

from iqa_core.images.containers.container import Container, must_reach, read


def walk_bmp(data: bytes) -> Container:
    pixels_at, header_bytes = read("<II", data, 10)
    if header_bytes == 12:
        width, height, _, bits = read("<HHHH", data, 18)
        compression = data_bytes = 0
    else:
        width, height, _, bits, compression, data_bytes = read("<iiHHII", data, 18)
    if compression in (1, 2):
        must_reach(pixels_at + data_bytes, data, "pixel data")
    else:
        must_reach(pixels_at + (width * bits + 31) // 32 * 4 * abs(height), data, "pixel data")
    return Container("bmp", width, abs(height), data)
