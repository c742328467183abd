"""Real workers over gloo rank a tiny model's answers: resumed, shared or with fewer weights, they take the same steps.

Tests iqa_core/training/ranking/rollouts.py, iqa_core/training/ranking/reference.py and
iqa_core/training/ranking/task.py.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.training.validation import PARSED
from tests.training.ranking.tasks import make_ranking_task, save_warm, two_opinions
from tests.training.workers import Job, run_jobs, weights

pytestmark = pytest.mark.slow

STEPS = 4
Reports = dict[str, list[dict[str, float]]]
SAME = ("reward", "reward_fidelity", "reward_score", "reward_format", "kl", "entropy", "loss", "learning_rate")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def warm(runs: Path, qwen: Path, opinions: list[Opinion]) -> Path:
    return save_warm(qwen, runs / "warm", opinions)


@pytest.fixture(scope="module")
def alone(runs: Path, warm: Path, opinions: list[Opinion]) -> Reports:
    """One worker; a restored run begins from what another left."""
    full, lora = make_ranking_task(warm, opinions), make_ranking_task(warm, opinions, lora_rank=4, learning_rate=1e-3)
    spread = make_ranking_task(warm, opinions, zero_stage=2, passes=2)
    weights = {"caption": 1.0, "format": 1.0}
    settings = {"rewards": {"composition": {"weights": weights}}, "max_new_tokens": 64, "max_steps": 2}
    seen = make_ranking_task(warm, opinions, "seen.toml", **settings, learning_rate=1e-3, lora_rank=4, kl_weight=0)
    folder = runs / "alone"
    folder.mkdir()
    jobs = [
        Job("full", full),
        Job("full-restored", full, folder / "full" / "step-2"),
        Job("lora", lora),
        Job("lora-restored", lora, folder / "lora" / "step-2"),
        Job("spread", spread),
        Job("spread-restored", spread, folder / "spread" / "step-2"),
        Job("seen", seen),
    ]
    return run_jobs(folder, 1, jobs)


def assert_same(found: list[dict[str, float]], wanted: list[dict[str, float]], tolerance: float) -> None:
    assert [each["step"] for each in found] == [each["step"] for each in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert {name: one[name] for name in SAME} == pytest.approx({name: other[name] for name in SAME}, abs=tolerance)


@pytest.mark.parametrize(("job", "done"), [("full", 2), ("lora", 2), ("spread", 2)])
def test_after_a_resume_every_step_is_the_undisturbed_runs(runs: Path, alone: Reports, job: str, done: int) -> None:
    """Epochs are of three steps, so the second one's order is among them; the base stays the base."""
    assert_same(alone[f"{job}-restored"], alone[job][done:], 1e-4)
    found, wanted = (weights(runs / "alone", name, STEPS) for name in (f"{job}-restored", job))
    assert max(float((found[name] - value).abs().max()) for name, value in wanted.items()) <= 1e-4


def test_it_learns_from_its_own_answers_and_says_how_they_are(runs: Path, alone: Reports, warm: Path) -> None:
    first, *_, last = alone["full"]
    assert first["kl"] == pytest.approx(0, abs=1e-6), "before the first update the model is its base"
    assert alone["full"][1]["kl"] > 1e-5
    assert first["loss"] == pytest.approx(0, abs=1e-5), "ratios are 1, and advantages of a group sum to 0"
    assert 0 < first["parsed_drawn"] <= 1
    assert 1 <= first["distinct_texts"] <= 4
    assert {"spread", "reward_std", "dead_groups", "cut", "fidelity_normalised", "answer_tokens"} <= first.keys()
    assert {PARSED, "mae_quality"} <= last.keys(), "validated greedily at the last step"
    assert {"single_parsed", "single_mae_quality"} <= last.keys(), "and by single answers"
    assert alone["full-restored"][-1]["single_parsed"] == pytest.approx(last["single_parsed"], abs=1e-6)


def test_low_rank_updates_have_the_base_below_them(alone: Reports) -> None:
    """What they draw in the first step is what all of the weights draw, and the divergence is from the same base."""
    assert alone["lora"][0]["kl"] == pytest.approx(0, abs=1e-6)
    assert alone["lora"][0]["reward"] == pytest.approx(alone["full"][0]["reward"], abs=1e-6)
    assert alone["lora"][1]["kl"] > 1e-5


def test_a_second_pass_is_off_the_policy_that_drew(alone: Reports) -> None:
    assert any(abs(each["loss"]) > 1e-4 for each in alone["spread"])
    assert any(each["clipped"] > 0 for each in alone["spread"])


def test_captions_are_judged_by_the_model_and_by_its_base(alone: Reports) -> None:
    first, second = alone["seen"]
    assert 0 < first["reward_caption"] < 1
    assert first["caption_read"] > 0.1
    assert first["caption_read"] == first["caption_read_base"], "before the first update the model is its base"
    assert second["kl"] == 0, "none is asked for, though the base is there to judge"


def test_two_workers_draw_and_rank_what_one_does(
    runs: Path, warm: Path, opinions: list[Opinion], alone: Reports
) -> None:
    (runs / "together").mkdir()
    found = run_jobs(runs / "together", 2, [Job("full", make_ranking_task(warm, opinions, max_steps=2))])["full"]
    names = [name for name in SAME if name != "learning_rate"]  # of two steps it is another
    assert {name: found[0][name] for name in names} == pytest.approx(
        {name: alone["full"][0][name] for name in names}, abs=1e-6
    )


def test_opinions_on_what_the_rubric_does_not_ask_are_refused(warm: Path, opinions: list[Opinion]) -> None:
    task = make_ranking_task(warm, opinions)
    assert task.people.y_NA.shape == (12, 2)
    assert [float(row.mos) for row in two_opinions(opinions)[:2]] == pytest.approx(task.people.y_NA[0].tolist())
    odd = [*two_opinions(opinions), Opinion("x", opinions[0].path, "beauty", 3.0, "d")]
    from iqa_core.training.ranking.task import people_of

    with pytest.raises(CallerError, match="opinions on beauty, but rubric ranked has quality, layout"):
        people_of(task.train, odd, task.rubric)  # type: ignore[arg-type]


def test_epochs_have_orders_of_their_own(warm: Path, opinions: list[Opinion]) -> None:
    task = make_ranking_task(warm, opinions)
    epochs = [[task.images(step).tolist() for step in range(begin, begin + 3)] for begin in (0, 3)]
    assert epochs[0] != epochs[1]
    assert all(sorted(chain(*epoch)) == list(range(12)) for epoch in epochs)
    assert torch.equal(torch.tensor(task.images(4)), torch.tensor(make_ranking_task(warm, opinions).images(4)))
