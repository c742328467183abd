"""Answers before and after a training -> figures on the same answers, their change, and a table."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from iqa_core.__main__ import main as command
from iqa_core.agreement import Floats
from iqa_core.demo.card import WRITTEN
from iqa_core.demo.ranked import (
    GREEDY_MAE,
    GREEDY_PARSED,
    GREEDY_SRCC,
    MEAN_MAE,
    MEAN_SRCC,
    NAMES,
    PARSED,
    SINGLE_SRCC,
    Ranked,
    Said,
    main,
    ranked,
    table,
    truths_of,
)
from iqa_core.errors import CallerError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import Opinions
from jobs.training.ranking_settings import RankingSettings
from jobs.training.settings import TrainSettings

N, K, A = 40, 2, 3
OVERALL = 2
FOLDER = WRITTEN.parent


@pytest.fixture(scope="module")
def truths() -> Floats:
    return np.random.default_rng(0).uniform(1, 5, (N, A))


def said(truths: Floats, noise: float, seed: int, shift: float = 0.0) -> Said:
    """Drawn answers that are off by noise, and greedy ones off by a tenth of it and a shift."""
    drawn, greedy = np.random.default_rng(seed).normal(size=(2, N, K, A)) * noise
    return Said(truths + shift + greedy[:, 0] / 10, truths[:, None] + drawn)


def unparsed(one: Said, image: int, answer: int) -> Said:
    drawn = one.drawn_NKA.copy()
    drawn[image, answer] = np.nan
    return replace(one, drawn_NKA=drawn)


def test_single_answers_are_compared_where_both_are_parsed(truths: Floats) -> None:
    before, after = unparsed(said(truths, 2, 1), 7, 0), unparsed(said(truths, 1, 2), 9, 0)
    before.drawn_NKA[9, 0] = 1e3 * np.arange(A)  # would be seen
    [change] = ranked(before, [after], truths, OVERALL, resamples=0).changes
    kept = [np.setdiff1d(np.arange(N), [7, 9]), *[np.arange(N)] * (K - 1)]
    for one, figures in ((before, change.before), (after, change.after)):
        wanted = [
            spearmanr(one.drawn_NKA[kept[k], k, a], truths[kept[k], a]).statistic for k in range(K) for a in range(A)
        ]
        assert figures[SINGLE_SRCC].value == pytest.approx(np.mean(wanted))
        assert figures[PARSED].value == pytest.approx(1 - 1 / (N * K))
    grown = change.after[SINGLE_SRCC].value - change.before[SINGLE_SRCC].value  # type: ignore[operator]
    assert change.grown[SINGLE_SRCC].value == pytest.approx(grown)
    assert grown > 0.1


def test_greedy_answers_are_measured_by_order_and_by_scale(truths: Floats) -> None:
    before, after = said(truths, 0, 1), said(truths, 0, 1, shift=0.5)
    after.greedy_NA[4] = np.nan
    [change] = ranked(before, [after], truths, OVERALL, resamples=0).changes
    assert [change.before[name].value for name in (GREEDY_SRCC, GREEDY_PARSED, GREEDY_MAE)] == [1, 1, 0]
    found = [change.after[name].value for name in (GREEDY_SRCC, GREEDY_PARSED, GREEDY_MAE)]
    assert found == pytest.approx([1, 1 - 1 / N, 0.5])


def test_drawn_answers_are_measured_by_their_mean_too(truths: Floats) -> None:
    before, after = said(truths, 2, 1), unparsed(said(truths, 1, 2), 3, 0)
    after.drawn_NKA[5] = np.nan  # nothing is parsed
    [change] = ranked(before, [after], truths, OVERALL, resamples=0).changes
    mean_NA = after.drawn_NKA.mean(axis=1)
    mean_NA[3] = after.drawn_NKA[3, 1]
    kept = np.setdiff1d(np.arange(N), 5)
    wanted = np.mean([spearmanr(mean_NA[kept, a], truths[kept, a]).statistic for a in range(A)])
    assert change.after[MEAN_SRCC].value == pytest.approx(wanted)
    error = np.abs(mean_NA - truths)[kept, OVERALL].mean()
    assert change.after[MEAN_MAE].value == pytest.approx(error)


def test_intervals_hold_what_changed_and_the_mean_is_over_trainings(truths: Floats) -> None:
    before, afters = said(truths, 2, 1), [said(truths, noise, seed) for noise, seed in ((1.0, 2), (0.7, 3))]
    found = ranked(before, afters, truths, OVERALL, resamples=50)
    assert found == ranked(before, afters, truths, OVERALL, resamples=50)
    values = [change.grown[SINGLE_SRCC].value for change in found.changes]
    assert found.grown[SINGLE_SRCC].value == pytest.approx(np.mean([value for value in values if value is not None]))
    for figure in (found.grown[SINGLE_SRCC], *(change.grown[SINGLE_SRCC] for change in found.changes)):
        assert figure.low is not None
        assert figure.high is not None
        assert 0 < figure.low < figure.value < figure.high  # type: ignore[operator]
    same = ranked(before, [before], truths, OVERALL, resamples=20).grown[SINGLE_SRCC]
    assert (same.low, same.value, same.high) == (0, 0, 0)


def test_the_table_has_a_column_per_training_and_the_change(truths: Floats) -> None:
    found = ranked(said(truths, 0, 1), [said(truths, 0, 1), said(truths, 0, 1, shift=0.5)], truths, OVERALL, 20)
    head, _, *rows = table(found)
    assert head == "| | before | after 1 | after 2 | change |"
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in NAMES]
    assert rows[-1].startswith(f"| {GREEDY_MAE} | .000 | .000 | .500 | +0.250 (+")
    silent = Said(np.full((N, A), np.nan), np.full((N, K, A), np.nan))
    assert "| – | – | – |" in [*table(ranked(silent, [said(truths, 0, 1)], truths, OVERALL, 0))][2]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "held-out"
    assert command(["scenes", "--texts", "--count", "6", "--seed", "5", "--output", str(folder)]) == 0
    return folder


def opinions_of(scenes: Path, *files: str) -> Opinions:
    return load_opinions([str(scenes / file) for file in files])


def test_every_image_needs_a_truth_of_each_attribute(scenes: Path) -> None:
    y_NA = truths_of(opinions_of(scenes, "annotations.csv", "quality.csv"), ("layout", "quality"))
    assert y_NA.shape == (6, 2)
    with pytest.raises(CallerError, match=r"no opinion on quality of .*scene-000000\.png"):
        truths_of(opinions_of(scenes, "annotations.csv"), ("layout", "quality"))


def test_what_cannot_be_asked_is_refused(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--annotations", str(scenes / "annotations.csv"), "--after", "demo"]
    assert main(["--before", "demo", *flags]) == 2
    assert "has no number of quality that is written" in capsys.readouterr().err
    assert main(["--before", "demo-written", *flags, "--answers", "65"]) == 2
    assert "--answers 65: give 1 to 64" in capsys.readouterr().err


@pytest.mark.slow
def test_two_checkpoints_are_asked_about_the_same_scenes(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = scenes.parent / "ranked.json"
    assert main(["--before", "demo-written", "--after", "demo", f"--annotations={scenes / 'annotations.csv'}"]) == 2
    assert "they must agree" in capsys.readouterr().err
    files = [f"--annotations={scenes / name}" for name in ("annotations.csv", "quality.csv")]
    flags = ["--before", "demo-written", "--after", "demo-written", "--answers", "2", "--resamples", "20"]
    assert main([*flags, *files, "--output", str(output)]) == 0
    assert f"| {GREEDY_PARSED} | 1.000 | 1.000 | +0.000 (+0.000 to +0.000) |" in capsys.readouterr().out
    found = json.loads(output.read_text())
    assert (found["images"], found["answers"], len(found["changes"])) == (6, 2, 1)
    assert found["grown"][SINGLE_SRCC]["value"] == 0, "the same weights draw the same answers"
    assert found["changes"][0]["before"][GREEDY_SRCC]["value"] > 0.5
    assert {*Ranked.__annotations__} == found.keys()


def test_what_the_target_trains_with_are_settings() -> None:
    """`make demo-grpo` gives these files to the jobs; the second begins where the first ends."""
    noisy, ranking = (
        tomllib.loads((FOLDER / name).read_text(encoding="utf-8")) for name in ("noisy_writing.toml", "ranking.toml")
    )
    assert ranking["base"] == f"{TrainSettings.model_validate(noisy).output}/checkpoint"
    recipe = RankingSettings.model_validate({**ranking, "output": "runs/ranked"}).recipe
    assert recipe.every == recipe.max_steps, "the last checkpoint is exported"
    assert recipe.rewards.composition.weights["score"] > 0, "the scale is held"
