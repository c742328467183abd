"""Sizes and time limits of batches, with and without written answers."""

from __future__ import annotations

import pytest

from iqa_core.assessor.batching import GRACE_S, batch_bounds, quiet_limit_s, time_limit_s
from iqa_core.assessor.config import AssessorConfig
from iqa_core.rubrics import AnyRubric, load_any_rubric


def written(samples: int) -> AnyRubric:
    rubric = load_any_rubric("interior-written-v1")
    return rubric.model_copy(update={"decoding": rubric.decoding.model_copy(update={"samples": samples})})  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("decode_rows", "samples", "images"), [(None, 1, 256), (None, 5, 51), (20, 5, 4), (3, 5, 1), (4096, 1, 256)]
)
def test_a_batch_of_a_written_rubric_has_rows_for_its_samples(
    decode_rows: int | None, samples: int, images: int
) -> None:
    bounds = batch_bounds(AssessorConfig(decode_rows=decode_rows), written(samples))
    assert bounds[1] == images
    assert bounds[0] >= 10**9


def test_other_rubrics_are_bounded_as_ever() -> None:
    config = AssessorConfig(batch_tokens=4096, decode_rows=7, timeout_s=9)
    rubric = load_any_rubric("interior-v2")
    assert batch_bounds(config, rubric) == (4096, 256)
    assert time_limit_s(config, rubric, 200) == 9
    assert time_limit_s(config, rubric, 200, passes=17) == 153
    assert [quiet_limit_s(config, rubric, 7, passes) for passes in (1, 17)] == [7, 153 + GRACE_S]
    assert quiet_limit_s(config, rubric, 1800, 17) == 1800


def test_time_grows_with_images_and_tokens() -> None:
    config = AssessorConfig(timeout_s=100, timeout_per_image_s=2, timeout_per_100_tokens_s=10)
    assert time_limit_s(config, written(1), 30) == 100 + 60 + 25.6


def test_a_run_waits_for_a_full_batch_of_answers() -> None:
    config = AssessorConfig(decode_rows=20, timeout_s=100, timeout_per_image_s=2, timeout_per_100_tokens_s=10)
    full_s = time_limit_s(config, written(5), 4) + GRACE_S
    assert [quiet_limit_s(config, written(5), stall_s) for stall_s in (7, 1800)] == [full_s, 1800]
    assert quiet_limit_s(config, load_any_rubric("interior-v2"), 7) == 7
