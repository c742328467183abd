"""The fake assessor: its scores, its answers, its faults, its options.

Tests iqa_core/assessor/fake.py and iqa_core/assessor/fake_writer.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.fake import FakeOptions
from iqa_core.errors import CallerError
from iqa_core.records import Assessment, ImageHeader, Reason, Rejection, RgbImage
from iqa_core.written.judging import NOT_FINITE
from tests.clock import least_s

MAGENTA = np.full((10, 10, 3), (255, 0, 255), dtype=np.uint8)
GREY = np.full((10, 10, 3), 128, dtype=np.uint8)
HEADER = ImageHeader(10, 10, "png", 1)


def test_scores_depend_on_pixels_and_dimension_only() -> None:
    first, second = load_assessor("fake:").assess([MAGENTA, GREY])
    [again] = load_assessor("fake:?sleep_s=0.01&nan_on=000000").assess([MAGENTA])
    assert isinstance(first, Assessment)
    assert isinstance(second, Assessment)
    assert isinstance(again, Assessment)
    np.testing.assert_array_equal(again.scores_K, first.scores_K)
    assert len({*first.scores_K.tolist(), *second.scores_K.tolist()}) == 8


def test_a_text_changes_the_answers_to_the_questions_that_have_it(shown: Path) -> None:
    """By every letter: a text that came to the wrong image, or to the wrong slot, is seen."""
    assessor = load_assessor("fake:", str(shown))
    texts = [("a dog", "noir"), ("a cat", "noir"), ("a dog", "oil"), ("noir", "a dog")]
    results = assessor.assess([GREY] * 4, [{"prompt": prompt, "style": style} for prompt, style in texts])
    scores_NK = np.stack([result.scores_K for result in results if isinstance(result, Assessment)])
    assert len(set(scores_NK[:, 0])) == 3, "the first and third have the same prompt"
    assert len(set(scores_NK[:, 1])) == 4
    assert len(set(scores_NK[:, 2])) == 1, "no text is in this question"


def test_it_takes_any_rubric() -> None:
    assert load_assessor("fake:").rubric.id == "interior-v1"
    [result] = load_assessor("fake:", "q-align").assess([GREY])
    assert isinstance(result, Assessment)
    assert result.scores_K.shape == (2,)


def test_an_image_may_have_no_score() -> None:
    bad, good = load_assessor("fake:?nan_on=ff00ff").assess([MAGENTA, GREY])
    assert isinstance(bad, Rejection)
    assert bad.reason is Reason.ASSESSOR_FAILED
    assert isinstance(good, Assessment)


def test_an_image_may_raise() -> None:
    with pytest.raises(RuntimeError, match="ff00ff"):
        load_assessor("fake:?raise_on=ff00ff").assess([GREY, MAGENTA])
    preparer = load_assessor("fake:?prepare_raise_on=ff00ff").preparer
    with pytest.raises(RuntimeError, match="ff00ff"):
        preparer.prepare(RgbImage(MAGENTA, HEADER))
    np.testing.assert_array_equal(preparer.prepare(RgbImage(GREY, HEADER)), GREY)


def test_a_batch_takes_its_time() -> None:
    assessor = load_assessor("fake:?sleep_s=0.2")
    assert 0.2 <= least_s(lambda: assessor.assess([GREY] * 3), 0.39) < 0.4
    assert assessor.assess([]) == []


SCRIPT = """
import numpy as np
from iqa_core.assessor.direct import load_assessor
from iqa_core.records import ImageHeader, RgbImage
assessor = load_assessor("fake:?{option}=ff00ff")
pixels = np.full((9, 9, 3), (255, 0, 255), dtype=np.uint8)
print("ready", flush=True)
assessor.assess([assessor.preparer.prepare(RgbImage(pixels, ImageHeader(9, 9, "png", 1)))])
print("survived")
"""


@pytest.mark.slow
@pytest.mark.parametrize("option", ["exit_on", "prepare_exit_on"])
def test_an_image_may_end_the_process(option: str) -> None:
    command = [sys.executable, "-c", SCRIPT.format(option=option)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "ready\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["hang_on", "prepare_hang_on"])
def test_an_image_may_never_return(option: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(option=option)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.kill()


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("fake:?slep_s=1", "slep_s: .*options are sleep_s, prepare_sleep_s, exit_on"),
        ("fake:?sleep_s=long", "sleep_s"),
        ("fake:?sleep_s=-1", "sleep_s"),
        ("fake:?exit_on=red", "exit_on"),
        ("fake:?exit_on=000000&exit_on=ffffff", "twice"),
        ("fake:sleep_s=1", "does not begin with"),
    ],
)
def test_a_wrong_option_is_the_callers_mistake(checkpoint: str, message: str) -> None:
    with pytest.raises(CallerError, match=message):
        FakeOptions.parse(checkpoint)


def written_by(checkpoint: str, rubric: str, images: list[np.ndarray]) -> list[Assessment | Rejection]:
    return load_assessor(checkpoint, rubric).assess(images)


def some_images(count: int) -> list[np.ndarray]:
    return [np.full((8, 8, 3), (i, 2 * i % 256, 3 * i % 256), np.uint8) for i in range(count)]


def test_a_fake_writes_what_a_written_rubric_asks_for() -> None:
    [found] = written_by("fake:", "interior-written-v1", [GREY])
    assert isinstance(found, Assessment)
    assert found.written is not None
    [text] = found.written.answers
    assert re.fullmatch(r"<think>(The \w+ is \w+\. ?){5}</think>\n(\w+: \d\.\d(, )?){5}", text)
    assert found.written.reasoning is not None
    assert found.written.reasoning in text


def test_some_answers_are_cut_and_the_others_stay_as_they_are() -> None:
    images = some_images(200)
    whole, cut = (written_by(name, "perception-v1", images) for name in ("fake:", "fake:?cut_share=0.2"))
    rejected = [isinstance(one, Rejection) for one in cut]
    assert 20 <= sum(rejected) <= 60
    for one, other in zip(whole, cut, strict=True):
        assert isinstance(one, Assessment)
        if isinstance(other, Assessment):
            assert other.written == one.written
    codes = {code for one in cut if isinstance(one, Rejection) for code in one.codes}
    assert codes == {"no_open", "no_close"}


def test_a_fake_draws_several_samples_and_reads_distributions(tmp_path: Path) -> None:
    shipped = resources.files("iqa_core.rubrics.written").joinpath("attributes-v1.toml").read_text()
    path = tmp_path / "drawn.toml"
    path.write_text(shipped.replace("samples = 1\ntemperature = 0", "samples = 3\ntemperature = 1"))
    [drawn] = written_by("fake:", str(path), [GREY])
    assert isinstance(drawn, Assessment)
    assert drawn.written is not None
    assert len(set(drawn.written.answers)) == drawn.written.parsed == 3
    assert (drawn.stds_K > 0).all()
    path.write_text(shipped + 'readout = "expected"\n')
    [expected] = written_by("fake:", str(path), [GREY])
    assert isinstance(expected, Assessment)
    assert expected.stds_K.tolist() == pytest.approx([0.1] * 5)
    assert written_by("fake:?nan_on=808080", "attributes-v1", [GREY]) == [NOT_FINITE]
