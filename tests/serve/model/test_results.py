"""Outcomes of a request's images -> results: the header with each, and the reward that the image gets alone."""

from __future__ import annotations

import numpy as np

from iqa_core.assessor.load import describe
from iqa_core.records import Assessment, ImageHeader, Reason, Rejection
from serve.model.results import Model, NoViews, ScoredImage, results_of
from serve.settings import ServeSettings

SETTINGS = ServeSettings.model_validate({"assessor": {"checkpoint": "fake:"}})
MODEL = Model.of(describe(SETTINGS.assessor, SETTINGS.rubric, SETTINGS.limits))


def header(number: int) -> ImageHeader:
    return ImageHeader(100 + number, 100, "png", 1)


def assessment(number: int) -> Assessment:
    scores_K = np.float32(1) + np.random.default_rng(number).random(len(MODEL.spec.rubric.names), np.float32) * 4
    return Assessment(scores_K, np.zeros_like(scores_K), (np.full(5, 0.2, np.float32),) * len(scores_K))


def test_each_image_keeps_its_place_its_header_and_the_reward_that_it_has_alone() -> None:
    outcomes: list[Assessment | Rejection] = [
        assessment(0),
        Rejection(Reason.ASSESSOR_FAILED, "it died"),
        *map(assessment, range(2, 20)),
    ]
    headers = [header(number) for number in range(20)]
    results = results_of(headers, outcomes, MODEL)
    assert [one.header for one in results if not isinstance(one, NoViews)] == headers
    assert results[1] == Rejection(Reason.ASSESSOR_FAILED, "it died", header(1))
    for number in (0, 2, 19):
        [alone] = results_of([header(number)], [assessment(number)], MODEL)
        together = results[number]
        assert isinstance(alone, ScoredImage)
        assert isinstance(together, ScoredImage)
        assert together.reward == alone.reward == round(float(np.mean(assessment(number).scores_K)), 6)


def test_images_that_are_all_rejected_need_no_reward() -> None:
    rejected = Rejection(Reason.CORRUPT, "it is broken")
    assert results_of([header(0)], [rejected], MODEL) == [Rejection(Reason.CORRUPT, "it is broken", header(0))]
    assert results_of([], [], MODEL) == []
