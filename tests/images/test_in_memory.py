"""The same picture as a file, opened by Pillow, as an array or a tensor -> the same pixels, or a refusal by name."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from iqa_core.client import encoded as sent
from iqa_core.errors import CallerError
from iqa_core.images import decode
from iqa_core.images.in_memory import as_file, listed
from iqa_core.records import ImageLimits, Reason, Rejection, RgbImage
from tests.bad_images import encoded, exif_with_orientation, picture

LIMITS = ImageLimits(min_side=1)
SOUND = Path(__file__).parent.parent / "data" / "sound_images.zip"
RNG = np.random.default_rng(0)
RGB_HWC = RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)
GREY_HW = RGB_HWC[..., 0]
ALPHA_HW = (
    np.where(np.arange(9) < 4, 0, np.where(np.arange(9) < 7, 255, 77)).repeat(12).reshape(9, 12).T.astype(np.uint8)
)
RGB, GREY, ALPHA = (Image.fromarray(plane) for plane in (RGB_HWC, GREY_HW, ALPHA_HW))


def pixels_of(image: Any) -> NDArray[np.uint8]:
    """As the notebook sees them, and as the endpoint does."""
    data = as_file(image, compress_level=0)
    assert isinstance(data, bytes), data
    found, there = decode(data, LIMITS), decode(sent(image), LIMITS)
    assert isinstance(found, RgbImage), found
    assert isinstance(there, RgbImage), there
    np.testing.assert_array_equal(found.pixels_HWC, there.pixels_HWC)
    return found.pixels_HWC


def refusal(image: Any) -> Rejection:
    """The notebook's rejection; the client says the same."""
    found = as_file(image, compress_level=0)
    assert isinstance(found, Rejection), found
    with pytest.raises(CallerError) as caught:
        sent(image)
    assert found.reason in str(caught.value)
    assert found.detail in str(caught.value)
    return found


def on_white(colour_HWC: NDArray[Any], alpha_HW: NDArray[Any]) -> NDArray[np.float64]:
    share_HW1 = alpha_HW[..., None] / 255
    return colour_HWC * share_HW1 + 255 * (1 - share_HW1)


def triple(grey_HW: NDArray[Any]) -> NDArray[Any]:
    return np.dstack([grey_HW] * 3)


def with_info(image: Image.Image, **info: Any) -> Image.Image:
    copy = image.copy()
    copy.info.update(info)
    return copy


def with_palette(mode: str, colours: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(GREY_HW % 16).convert("P")
    image.putdata((GREY_HW % 16).reshape(-1).tolist())
    image.putpalette(colours.tobytes(), mode)
    return image


COLOURS = RNG.integers(0, 256, (16, 3), dtype=np.uint8)
COLOUR_ALPHAS = RNG.integers(0, 256, 16, dtype=np.uint8)
INDEXED = GREY_HW % 16
RGBA, LA = Image.merge("RGBA", [*RGB.split(), ALPHA]), Image.merge("LA", [GREY, ALPHA])
IS_LIGHT_HW, IS_THIRD_HW = GREY_HW > 127, GREY_HW[2, 2] == GREY_HW
BLACK_WHITE = Image.fromarray(IS_LIGHT_HW)
PLAIN = {
    "1": (BLACK_WHITE, triple(255 * IS_LIGHT_HW)),
    "L": (GREY, triple(GREY_HW)),
    "P": (with_palette("RGB", COLOURS), COLOURS[INDEXED]),
    "RGB": (RGB, RGB_HWC),
    "RGBX": (RGB.convert("RGBX"), RGB_HWC),
    "CMYK": (RGB.convert("CMYK"), RGB_HWC),
    "I;16": (Image.fromarray(GREY_HW.astype(np.uint16) * 257), triple(GREY_HW)),
    "I;16B": (Image.fromarray((GREY_HW.astype(np.uint16) * 257).astype(">u2")), triple(GREY_HW)),
    "RGBA": (RGBA, on_white(RGB_HWC, ALPHA_HW)),
    "LA": (LA, on_white(triple(GREY_HW), ALPHA_HW)),
    "palette with alpha": (
        with_palette("RGBA", np.hstack([COLOURS, COLOUR_ALPHAS[:, None]])),
        on_white(COLOURS[INDEXED], COLOUR_ALPHAS[INDEXED]),
    ),
    "1, key": (with_info(BLACK_WHITE, transparency=0), triple(255 + 0 * GREY_HW.astype(int))),
    "L, key": (
        with_info(GREY, transparency=int(GREY_HW[2, 2])),
        triple(np.where(IS_THIRD_HW, 255, GREY_HW)),
    ),
    "RGB, key": (
        with_info(RGB, transparency=tuple(RGB_HWC[3, 3].tolist())),
        np.where(np.all(RGB_HWC[3, 3] == RGB_HWC, axis=-1, keepdims=True), 255, RGB_HWC),
    ),
    "P, key": (
        with_info(with_palette("RGB", COLOURS), transparency=5),
        np.where(np.equal(INDEXED, 5)[..., None], 255, COLOURS[INDEXED]),
    ),
    "P, alphas": (
        with_info(with_palette("RGB", COLOURS), transparency=COLOUR_ALPHAS.tobytes()),
        on_white(COLOURS[INDEXED], COLOUR_ALPHAS[INDEXED]),
    ),
    "I;16, key": (
        with_info(Image.fromarray(GREY_HW.astype(np.uint16) * 257), transparency=int(GREY_HW[2, 2]) * 257),
        triple(np.where(IS_THIRD_HW, 255, GREY_HW)),
    ),
    "unused profile": (with_info(RGB, icc_profile=b"\xff" * 300), RGB_HWC),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_mode_is_the_picture_that_it_shows(kind: str) -> None:
    image, expected_HWC = PLAIN[kind]
    assert np.abs(pixels_of(image) - expected_HWC).max() <= 1


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "La", "RGBa", "PA"])
def test_a_mode_that_rounds_shows_the_picture_nearly(mode: str) -> None:
    source = {"La": LA, "RGBa": RGBA, "PA": with_palette("RGB", COLOURS)}.get(
        mode, Image.new("RGB", (9, 12), (90, 120, 60))
    )
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (9, 12), value) for value in (128, 128, 128)])
        assert np.abs(pixels_of(image).astype(int) - 119).max() <= 3  # half of L* is sRGB 119
        return
    assert np.abs(pixels_of(source.convert(mode)).astype(int) - pixels_of(source)).max() <= 6


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_an_agreed_white_are_refused_in_both_places(mode: str) -> None:
    for scale in (1.0, 1 / 255):
        assert (
            refusal(Image.fromarray((GREY_HW * scale).astype(np.float32)).convert(mode)).reason
            is Reason.UNSUPPORTED_FORMAT
        )


def test_a_key_of_16_bits_is_refused_where_its_pixels_have_8() -> None:
    assert refusal(with_info(RGB, transparency=(0, 300, 0))).reason is Reason.UNSUPPORTED_FORMAT


def test_what_pillow_opened_has_the_pixels_of_its_file_read_or_not() -> None:
    with zipfile.ZipFile(SOUND) as files:
        for name in files.namelist():
            data = files.read(name)
            expected = decode(data, LIMITS)
            assert isinstance(expected, RgbImage)
            for is_read in (False, True):
                with Image.open(BytesIO(data)) as image:
                    if is_read:
                        image.load()
                    np.testing.assert_array_equal(pixels_of(image), expected.pixels_HWC, name)


def test_an_unread_file_goes_as_it_is_and_stays_unread() -> None:
    data = encoded(picture(), "JPEG")
    for odd in (data, data[:-900], data[:-900] + bytes(900)):
        with Image.open(BytesIO(odd)) as image:
            assert as_file(image, compress_level=0) == odd
            assert image.tile
    with Image.open(BytesIO(data)) as image:
        image.load()
        assert as_file(image, compress_level=0) != data


def test_a_later_frame_or_a_draft_is_not_the_file() -> None:
    two = encoded(picture(), "GIF", save_all=True, append_images=[picture().rotate(180)])
    with Image.open(BytesIO(two)) as image:
        image.seek(1)
        np.testing.assert_array_equal(pixels_of(image), np.asarray(image.convert("RGB")))
    with Image.open(BytesIO(encoded(Image.new("RGB", (64, 64)), "JPEG"))) as image:
        image.draft("RGB", (16, 16))
        assert pixels_of(image).shape == (16, 16, 3)


def test_exif_turns_a_picture_as_it_turns_its_file() -> None:
    turned_HWC = np.rot90(RGB_HWC, -1)
    for image in (with_info(RGB, exif=exif_with_orientation(6).tobytes()), with_info(GREY, exif=b"noise")):
        expected_HWC = turned_HWC if image.mode == "RGB" else triple(GREY_HW)
        np.testing.assert_array_equal(pixels_of(image), expected_HWC)


def test_a_closed_or_cut_picture_is_its_own_rejection() -> None:
    closed = Image.open(BytesIO(encoded(picture(), "PNG")))
    closed.close()
    assert refusal(closed).reason is Reason.FETCH_FAILED
    gone = Image.open(BytesIO(encoded(picture(), "PNG")))
    assert isinstance(gone, ImageFile.ImageFile)
    assert gone.fp is not None
    gone.fp.close()
    assert refusal(gone).reason is Reason.FETCH_FAILED
    cut = Image.open(BytesIO(encoded(picture(), "PPM")[:-99]))
    assert refusal(cut).reason is Reason.TRUNCATED
    assert isinstance(as_file(with_info(RGB, transparency="white"), compress_level=0), Rejection)


def test_an_array_is_taken_in_one_layout() -> None:
    np.testing.assert_array_equal(pixels_of(RGB_HWC), RGB_HWC)
    np.testing.assert_array_equal(pixels_of(RGB_HWC[::-1, ::2]), RGB_HWC[::-1, ::2])
    wrong: list[Any] = [
        GREY_HW,
        RGB_HWC / 255,
        RGB_HWC.astype(int),
        RGB_HWC[None],
        RGB_HWC[:0],
        np.moveaxis(RGB_HWC, -1, 0),
    ]
    for array in wrong:
        with pytest.raises(CallerError, match=r"\(H, W, 3\) uint8, not \("):
            as_file(array, compress_level=0)


@pytest.mark.slow
def test_a_tensor_is_taken_in_every_layout_and_type_that_has_one_meaning() -> None:
    torch = pytest.importorskip("torch")
    whole = torch.from_numpy(RGB_HWC.copy())
    chw = whole.permute(2, 0, 1)
    for tensor in (whole, chw, chw.contiguous(), chw / 255, whole.double() / 255, (chw / 255).requires_grad_()):
        np.testing.assert_array_equal(pixels_of(tensor), RGB_HWC)
    for kind, most in ((torch.float16, 0), (torch.bfloat16, 1)):
        assert np.abs(pixels_of((chw / 255).to(kind)).astype(int) - RGB_HWC).max() <= most
    for grey in (chw[:1], whole[..., :1]):
        np.testing.assert_array_equal(pixels_of(grey), triple(GREY_HW))
    np.testing.assert_array_equal(pixels_of(torch.nn.Parameter(chw / 255)), RGB_HWC)
    for wrong in (
        chw[None],
        chw[0],
        chw[:2],
        chw[:, :0],
        torch.zeros(4, 9, 9),
        chw.long(),
        chw > 9,
        chw.to(torch.int8),
    ):
        with pytest.raises(CallerError, match=r"an image tensor must be .*, not "):
            as_file(wrong, compress_level=0)
    for values in (chw.float(), chw / 255 * 2 - 1, chw * float("nan")):
        assert "from 0 to 1" in refusal(values).detail
    assert [pixels_of(one).shape for one in listed(torch.stack([chw, chw]))] == [(12, 9, 3)] * 2


@pytest.mark.parametrize(
    "images", ["folder", b"bytes", bytearray(b"bytes"), memoryview(b"bytes"), Path("folder"), RGB, RGB_HWC]
)
def test_a_single_thing_is_no_list_of_images(images: Any) -> None:
    with pytest.raises(CallerError, match="images are a list"):
        listed(images)


def test_what_holds_several_images_is_a_list() -> None:
    several: list[Any] = [
        [RGB, RGB],
        (RGB, RGB),
        np.array(["a.png", "b.png"], dtype=object),
        RGB_HWC[None].repeat(2, 0),
    ]
    assert [len([*listed(images)]) for images in [*several, (path for path in ("a.png", "b.png"))]] == [2] * 5


@pytest.mark.parametrize("other", [7, None, {"data": ""}, [RGB]])
def test_what_is_no_picture_is_refused_by_its_type(other: Any) -> None:
    with pytest.raises(CallerError, match=f"not {type(other).__name__}"):
        as_file(other, compress_level=0)
