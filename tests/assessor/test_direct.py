"""Images as people have them -> assessments."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.errors import CallerError
from iqa_core.records import Assessment, ImageHeader, ImageLimits, PreparedShape, Reason, Rejection, RgbImage
from iqa_core.slots import TextLimits, TooLong
from tests.assessor.tiny import SHOWN, make_images

FAKE = load_assessor("fake:")
PIXELS = make_images((40, 60))[0].pixels_HWC


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def test_the_same_image_in_every_form_gets_the_same_score(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    path = tmp_path / "image.png"
    path.write_bytes(png(image))
    results = assess_images(FAKE, [path, str(path), path.read_bytes(), image, PIXELS])
    scores = [result.scores_K.tolist() for result in results if isinstance(result, Assessment)]
    assert scores == [scores[0]] * 5


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pillow_images_of_any_mode_are_taken(mode: str) -> None:
    [result] = assess_images(FAKE, [Image.fromarray(PIXELS).convert(mode)])
    assert isinstance(result, Assessment)


def test_a_rotated_photograph_is_turned_upright_in_either_form(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    image.getexif()[274] = 6
    path = tmp_path / "rotated.png"
    image.save(path, exif=image.getexif())
    corner = PIXELS[-1, 0].tobytes().hex()  # bottom left as stored is top left when upright
    with Image.open(path) as unread, Image.open(path) as read:
        read.load()
        results = assess_images(load_assessor(f"fake:?nan_on={corner}"), [path, unread, read, PIXELS])
    assert [type(result) for result in results] == [Rejection, Rejection, Rejection, Assessment]


def test_what_cannot_be_read_is_a_rejection_in_its_place(tmp_path: Path) -> None:
    results = assess_images(FAKE, [b"", PIXELS, tmp_path / "none.png", b"<html>", tmp_path])
    reasons = [result.reason if isinstance(result, Rejection) else None for result in results]
    expected = [Reason.EMPTY, None, Reason.MISSING, Reason.UNSUPPORTED_FORMAT, Reason.FETCH_FAILED]
    assert reasons == expected


def test_one_bad_image_leaves_the_others_their_scores(tmp_path: Path) -> None:
    cut = Image.open(BytesIO(png(Image.fromarray(PIXELS))[:-99]))
    odd: list[Any] = [
        Image.new("F", (40, 60)),
        Image.new("HSV", (40, 60)),
        cut,
        "no\0name",
        "\udcff.png",
        Image.new("L", (0, 9)),
    ]
    results = assess_images(FAKE, [PIXELS, *odd, PIXELS])
    reasons = [result.reason if isinstance(result, Rejection) else None for result in results]
    missing = Reason.MISSING
    expected = [None, Reason.UNSUPPORTED_FORMAT, None, Reason.TRUNCATED, missing, missing, Reason.CORRUPT, None]
    assert reasons == expected


class NoWidePictures:
    """The fake, with a preparer that cannot take what is wider than high: some models bound the ratio of the sides."""

    @property
    def preparer(self) -> NoWidePictures:
        return self

    @property
    def limits(self) -> ImageLimits:
        return FAKE.preparer.limits

    def shape(self, header: ImageHeader) -> PreparedShape:
        return FAKE.preparer.shape(header)

    def prepare(self, image: RgbImage) -> Any:
        if image.header.width > image.header.height:
            raise ValueError("the sides of the image are too unequal")
        return FAKE.preparer.prepare(image)

    @property
    def rubric(self) -> Any:
        return FAKE.rubric

    def assess(self, images: Any, texts: Any = None) -> Any:
        return FAKE.assess(images, texts)


def test_an_image_that_a_model_cannot_take_is_rejected_alone() -> None:
    wide, plain = assess_images(NoWidePictures(), [PIXELS, PIXELS.transpose(1, 0, 2)])  # type: ignore[arg-type]
    assert isinstance(wide, Rejection)
    assert wide.header is not None
    assert isinstance(plain, Assessment)


@pytest.mark.parametrize("images", ["folder", Path("folder"), PIXELS])
def test_a_folder_or_a_single_image_is_no_list(images: Any) -> None:
    with pytest.raises(CallerError, match="images are a list"):
        assess_images(FAKE, images)


@pytest.mark.parametrize("array", [PIXELS[..., 0], PIXELS.astype(np.float32), PIXELS[..., :2]])
def test_an_array_of_another_kind_is_the_callers_mistake(array: np.ndarray) -> None:
    with pytest.raises(CallerError, match="uint8"):
        assess_images(FAKE, [array])


@pytest.mark.slow
def test_a_real_model_scores_sizes_together(qwen: Path) -> None:
    assessor = load_assessor(str(qwen), threads=1)
    images = [image.pixels_HWC for image in make_images((64, 64), (90, 200), (33, 70))]
    together = assess_images(assessor, images)
    for pixels, result in zip(images, together, strict=True):
        [alone] = assess_images(assessor, [pixels])
        assert isinstance(alone, Assessment)
        assert isinstance(result, Assessment)
        np.testing.assert_allclose(alone.scores_K, result.scores_K, atol=1e-4)


def test_facts_that_a_preparer_does_not_take_are_one_images_matter() -> None:
    colour = PIXELS[0, 0].tobytes().hex()
    assessor = load_assessor(f"fake:?prepare_raise_on={colour}")
    result, sound = assess_images(assessor, [PIXELS, PIXELS + 1])
    assert isinstance(result, Rejection)
    assert (result.reason, result.detail) == (Reason.CORRUPT, "preparing it failed with RuntimeError")
    assert isinstance(sound, Assessment)


def test_texts_are_asked_about_beside_their_images(shown: Path) -> None:
    """An image that cannot be read takes its text along, and one without a text is rejected in its place."""
    assessor = load_assessor("fake:", str(shown))
    texts = [{"prompt": f"dog {i}", "style": "noir"} for i in range(5)]
    missing, framed = {"prompt": None, "style": "noir"}, {"prompt": " dog 3\n", "style": "noir"}
    odd = [*texts[:2], missing, framed, {"style": "x" * 2001}]
    results = assess_images(assessor, [PIXELS, b"", PIXELS, PIXELS, PIXELS], odd)
    reasons = [result.reason if isinstance(result, Rejection) else None for result in results]
    assert reasons == [None, Reason.EMPTY, Reason.MISSING_TEXT, None, Reason.MISSING_TEXT]
    for i in (0, 3):
        [expected] = assessor.assess([PIXELS], [texts[i]])
        found = results[i]
        assert isinstance(expected, Assessment)
        assert isinstance(found, Assessment)
        assert found.scores_K.tolist() == expected.scores_K.tolist()


def test_a_single_slot_takes_texts_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(SHOWN.replace(', "style"', "").replace(" in the style of {style}", "?"))
    assessor = load_assessor("fake:", str(path))
    plain = assess_images(assessor, [PIXELS] * 2, iter(["a dog", "a cat"]))
    named = assess_images(assessor, [PIXELS] * 2, [{"prompt": "a dog"}, {"prompt": "a cat"}])
    dog, cat, *same = [found.scores_K.tolist() for found in (*plain, *named) if isinstance(found, Assessment)]
    assert [dog, cat] == same
    assert dog != cat
    [none, cut] = assess_images(assessor, [PIXELS] * 2, [None, "a dog"], TextLimits(max_chars=1, too_long=TooLong.CUT))
    assert isinstance(none, Rejection)
    assert isinstance(cut, Assessment)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "asks with {prompt}, {style}"),
        ("a dog", "one for each image"),
        (["a dog"], "a mapping of these names"),
        ([{"prompt": "a", "style": "b"}], "there are 1 texts and more images"),
        ([{"prompt": "a", "style": "b"}] * 3, "there are 2 images and more texts"),
    ],
)
def test_texts_that_do_not_fit_are_the_callers_mistake(shown: Path, texts: Any, message: str) -> None:
    with pytest.raises(CallerError, match=message):
        assess_images(load_assessor("fake:", str(shown)), [PIXELS, PIXELS], texts)


def test_a_rubric_without_slots_takes_no_texts() -> None:
    with pytest.raises(CallerError, match="no slots"):
        assess_images(FAKE, [PIXELS], ["a dog"])
