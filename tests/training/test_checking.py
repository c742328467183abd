"""Samples -> usable ones: bad images and long rows stop the run or are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.training.checking import SHRUNK, TOO_LONG, usable
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample
from tests.training.tasks import make_encoder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder(qwen: Path) -> SampleEncoder:
    return make_encoder(qwen)


@pytest.fixture
def samples(opinions: list[Opinion], tmp_path: Path) -> list[TrainingSample]:
    """A good one, a missing one, one cut off, and one that is no image."""
    data = opinions[0].path.read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "page.png").write_text("<html>")
    paths = [opinions[0].path, tmp_path / "gone.png", tmp_path / "cut.png", tmp_path / "page.png"]
    return [TrainingSample(path, "?", "No.", "words") for path in paths]


def test_unreadable_images_stop_the_run_before_it_starts(encoder: SampleEncoder, samples: list[TrainingSample]) -> None:
    with pytest.raises(CallerError, match=r"gone.png: missing .* --skip-unreadable") as caught:
        usable(samples, encoder)
    assert "cut.png: truncated" in str(caught.value), "the pixels are looked at, not only the header"


def test_or_are_left_out_and_counted_by_reason(encoder: SampleEncoder, samples: list[TrainingSample]) -> None:
    found = usable(samples, encoder, skip_unreadable=True)
    assert [sample.image for sample in found.samples] == [samples[0].image]
    assert found.counts == {"image missing": 1, "image truncated": 1, "image unsupported_format": 1}
    assert found.samples[0].tokens > 16


def test_nothing_left_is_refused(encoder: SampleEncoder, samples: list[TrainingSample]) -> None:
    with pytest.raises(CallerError, match="no sample is left of 3"):
        usable(samples[1:], encoder, skip_unreadable=True)


def test_a_long_sample_is_left_out_or_its_image_shrunk(encoder: SampleEncoder, samples: list[TrainingSample]) -> None:
    [whole] = usable(samples[:1], encoder).samples
    bound = whole.tokens - 5
    short = TrainingSample(whole.image, "?", "No.", "words", max_pixels=84 * 84)
    dropped = usable([samples[0], short], encoder, max_tokens=bound)
    assert dropped.counts[TOO_LONG] == 1
    shrunk = usable(samples[:1], encoder, max_tokens=bound, too_long="shrink")
    assert shrunk.counts == {SHRUNK: 1}
    assert shrunk.samples[0].tokens <= bound
    assert encoder.batch(shrunk.samples).real_tokens == shrunk.samples[0].tokens


def test_a_text_that_is_too_long_by_itself_is_left_out(encoder: SampleEncoder, samples: list[TrainingSample]) -> None:
    long = TrainingSample(samples[0].image, "?", "word " * 60, "words")
    found = usable([samples[0], long], encoder, max_tokens=40, too_long="shrink")
    assert found.counts == {TOO_LONG: 1}
