"""A picture in memory (Pillow, array, tensor) -> a file of its pixels, or the reason why there is none.

The notebook and the client both come through here, so both see the same pixels: those that `decode` finds in the
picture's own file. Where that cannot be (32-bit samples, a closed file), both say so.

    Pillow, still unread      the bytes of its file, as they are, if that is of a format that is read here
    Pillow, any mode          8-bit RGB on white, as `decoding` says; EXIF in `info` turns it, as it turns a file
    array                     (H, W, 3) uint8
    torch tensor              (3, H, W), (1, H, W), (H, W, 3) or (H, W, 1); uint8, or floats from 0 to 1; any device
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from iqa_core.errors import CallerError
from iqa_core.images.containers.container import Unreadable, exif_orientation
from iqa_core.images.containers.formats import FORMATS
from iqa_core.images.inspection import rejection
from iqa_core.images.pixels import upright
from iqa_core.records import Reason, Rejection

Picture = Image.Image | NDArray[np.uint8]
"""Or a torch tensor, which is told by its name: torch is not imported for it."""

ImageLike = bytes | bytearray | memoryview | str | Path | Picture
"""Encoded bytes, a path, a Pillow image, an array (H, W, 3) uint8, or a torch tensor."""

_READ_FORMATS = frozenset({"MPO", *(known.decoder.format for known in FORMATS)})
"""Pillow's names. MPO: a JPEG that has more pictures behind its own."""
_FLOATS = frozenset({"torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"})


def as_file(picture: Picture, compress_level: int) -> bytes | Rejection:
    """The picture's own file where it is still unread, else a PNG. compress_level: 0 (fast) to 9 (small).

    Raises CallerError on what is no picture, or an array or tensor of another shape or type.
    """
    try:
        if isinstance(picture, Image.Image):
            return _unread_file(picture) or _png(_upright(picture), compress_level)
        if isinstance(picture, np.ndarray):
            return _png(_checked(picture), compress_level)
        if is_tensor(picture):
            return _png(_of_tensor(picture), compress_level)
    except (MemoryError, CallerError):
        raise
    except Exception as error:  # whatever it is: a file behind a Pillow image may be cut, closed or gone
        return _rejection(error)
    known = "bytes, a path, a Pillow image, an array or a torch tensor"
    raise CallerError(f"an image is {known}, not {type(picture).__name__}")


def listed(images: Iterable[Any]) -> Iterator[Any]:
    """The images one by one. Raises CallerError on a single one: its characters or rows would be taken for images."""
    if isinstance(images, str | bytes | bytearray | memoryview) or hasattr(images, "__fspath__"):
        raise CallerError(
            f"images are a list, not {images!r:.80}: give [image], or sorted(Path(folder).iterdir()) for a folder"
        )
    if isinstance(images, Image.Image) or getattr(images, "ndim", 1) in (2, 3):
        raise CallerError(f"images are a list or a batch of four dimensions, not one {type(images).__name__}: [image]")
    return iter(images)


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor, of any subclass."""
    return any((base.__module__, base.__name__) == ("torch", "Tensor") for base in type(value).__mro__)


def _unread_file(image: Image.Image) -> bytes | None:
    """Bytes of the file behind a picture whose pixels Pillow has not read yet; None where it has read them.

    None, too, at a later frame and in a draft: these are not the picture that the file is read as.
    """
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.format not in _READ_FORMATS:
        return None
    if image.tell() or image.decoderconfig or image.fp is None:
        return None
    at = image.fp.tell()
    image.fp.seek(0)
    data: bytes = image.fp.read()
    image.fp.seek(at)
    return data


def _upright(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    key = image.info.get("transparency")
    if image.mode in ("1", "L", "RGB") and np.max(key if key is not None else 0) > 255:
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, "a transparent colour of 16 bits has no match in 8-bit pixels")
    exif = image.info.get("exif")
    orientation = exif_orientation(exif) if isinstance(exif, bytes) else None
    return upright(image, orientation or 1)


def _checked(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise CallerError(f"an image array must be (H, W, 3) uint8, not {array.shape} {array.dtype}")
    return array


def _of_tensor(tensor: Any) -> NDArray[np.uint8]:
    """Shape (H, W, 3). Three or one in front are channels, as in torchvision; else they are behind."""
    shape, kind = tuple(tensor.shape), str(tensor.dtype)
    is_behind = len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3)
    if len(shape) != 3 or not (is_behind or shape[0] in (1, 3)) or 0 in shape:
        raise CallerError(f"an image tensor must be (3, H, W), (1, H, W), (H, W, 3) or (H, W, 1), not {shape}")
    if kind != "torch.uint8" and kind not in _FLOATS:
        raise CallerError(f"an image tensor must be uint8, or floating point from 0 to 1, not {kind}")
    values = tensor.detach().cpu()
    values = values.numpy() if kind == "torch.uint8" else _bytes_of_floats(values.float().numpy())
    pixels_HWC = values if is_behind else np.moveaxis(values, 0, -1)
    return np.ascontiguousarray(np.broadcast_to(pixels_HWC, (*pixels_HWC.shape[:2], 3)))


def _bytes_of_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        detail = f"the tensor's values go from {low:g} to {high:g}; they must lie from 0 to 1"
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, detail)
    return np.rint(values * 255).astype(np.uint8)


def _png(pixels_HWC: NDArray[np.uint8], compress_level: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()


def _rejection(error: Exception) -> Rejection:
    if isinstance(error, ValueError) and "closed" in str(error):
        return Rejection(Reason.FETCH_FAILED, "the image was closed before its pixels were read")
    return rejection(error, None)
