"""Predictions -> figures, and the one that ranks checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iqa_core.records import ScoreRange
from iqa_core.training.samples import Level, TrainingSample
from iqa_core.training.validation import NO_CORRELATION, PARSED, RANK, Prediction, figures, written_figures
from iqa_core.training.written_validation import Rated


def samples(dimensions: tuple[str, ...], opinions: list[float]) -> list[TrainingSample]:
    target = (0.0, 0.0, 1.0, 0.0, 0.0)
    return [
        TrainingSample(
            Path(f"{mos}.png"), "?", "a", "d", level=Level("a", name, mos, target, tuple("abcde"), (1, 2, 3, 4, 5))
        )
        for name in dimensions
        for mos in opinions
    ]


def test_correlations_are_per_dimension_and_their_mean_ranks() -> None:
    part = samples(("layout", "harmony"), [1, 2, 3, 4])
    scores = [1.1, 2.1, 2.9, 4.2, 4, 3, 1, 2]
    found = figures(part, [Prediction(n, 0.5, score) for n, score in enumerate(scores)])
    assert found["srcc_layout"] == pytest.approx(1)
    assert found["srcc_harmony"] == pytest.approx(-0.8)
    assert found["srcc"] == found[RANK] == pytest.approx(0.1)
    assert found["validation_loss"] == 0.5


def test_two_answers_have_an_auc_and_errors_are_in_the_dimensions_own_units() -> None:
    level = Level("", "shown", 3, (0, 1), ("No", "Yes"), (1, 5), ScoreRange(1, 0))
    opinions, scores = [1.0, 1.0, 5.0, 5.0, 3.0], [1.0, 3.0, 3.0, 5.0, 3.0]
    shown = [TrainingSample(Path("x.png"), "?", "a", "d", level=replace(level, mos=mos)) for mos in opinions]
    found = figures(shown, [Prediction(n, 0.5, score) for n, score in enumerate(scores)])
    assert found["auc_shown"] == found["auc"] == 3.5 / 4, "a tie counts half; an opinion at the middle does not count"
    assert found["mae_shown"] == pytest.approx(4 / 5 / 4)
    five = figures(samples(("layout",), [1, 2, 3, 4]), [Prediction(n, 0.5, 2.0) for n in range(4)])
    assert five["mae_layout"] == 1
    assert not {"auc", "auc_layout", "mae"} & five.keys()


def test_opinions_that_are_all_alike_leave_the_mean_to_the_other_dimensions() -> None:
    part = [*samples(("layout",), [1, 2, 3, 4]), *samples(("harmony",), [2, 2, 2, 2])]
    found = figures(part, [Prediction(n, 0.5, 1 + n % 4) for n in range(8)])
    assert found[RANK] == found["srcc"] == pytest.approx(1)
    assert "srcc_harmony" not in found


def test_a_constant_score_has_no_correlation_and_ranks_last() -> None:
    part = samples(("layout",), [1, 2, 3, 4])
    found = figures(part, [Prediction(n, 0.5, 3.0) for n in range(4)])
    assert "srcc" not in found
    assert found[RANK] == NO_CORRELATION


def test_without_levels_the_loss_ranks() -> None:
    part = [TrainingSample(Path("x.png"), "?", "A room.", "words")]
    assert figures(part, [Prediction(0, 0.7, None)])[RANK] == -0.7


def written(*values: float | None) -> list[dict[str, float] | None]:
    return [None if value is None else {"quality": value, "layout": 3.0} for value in values]


def rated(*opinions: float, name: str = "quality") -> list[Rated]:
    return [Rated(TrainingSample(Path("x.png"), "?", "", "d"), {name: mos, "layout": mos}) for mos in opinions]


def test_what_is_written_ranks_by_quality_times_the_share_that_is_parsed() -> None:
    found = written_figures(rated(1, 2, 3, 4, 5), written(1.0, 2.5, None, 4.0, 3.0))
    assert found[PARSED] == 0.8
    assert found["srcc_quality"] == pytest.approx(0.8)
    assert found[RANK] == pytest.approx(0.8 * 0.8), "and not the mean, of which layout has none"
    assert found["mae_quality"] == pytest.approx((0 + 0.5 + 0 + 2) / 4)
    assert "srcc_layout" not in found
    whole = written_figures(rated(1, 2, 3, 4), written(1.0, 2.0, 3.0, 4.0))
    assert [whole[PARSED], whole[RANK]] == pytest.approx([1, 1])


def test_without_opinions_on_quality_the_mean_ranks() -> None:
    opinions = [replace(each, ratings={"layout": mos}) for mos, each in enumerate(rated(1, 2, 3), 1)]
    scores: list[dict[str, float] | None] = [{"quality": 3.0, "layout": value} for value in (1.0, 3.0, 2.0)]
    assert written_figures(opinions, scores)[RANK] == pytest.approx(0.5)
    opinions[0] = replace(opinions[0], ratings={"layout": 1.0, "quality": 4.0})
    assert written_figures(opinions, scores)[RANK] == pytest.approx(0.5), "one opinion on quality tells nothing"


def test_of_what_disagrees_none_gains_by_parsing_less() -> None:
    all_parsed = written_figures(rated(1, 2, 3, 4), written(4.0, 3.0, 2.0, 1.0))
    few_parsed = written_figures(rated(1, 2, 3, 4), written(4.0, 3.0, 2.0, None))
    assert all_parsed[RANK] == pytest.approx(-1) == few_parsed[RANK]


@pytest.mark.parametrize("scores", [written(None, None, None), written(3.0, 3.0, 3.0)])
def test_what_says_nothing_ranks_last(scores: list[dict[str, float] | None]) -> None:
    assert written_figures(rated(1, 2, 3), scores)[RANK] == NO_CORRELATION
