"""Real workers over gloo rank a tiny model's answers: resumed, shared or with fewer weights, they take the same steps.

Tests iqa_core/training/ranking/rollouts.py, iqa_core/training/ranking/reference.py and
iqa_core/training/ranking/task.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.model.processors import load_processor
from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.rubrics.written import Decoding, WrittenRubric
from iqa_core.training.ranking.objective import log_probs
from iqa_core.training.ranking.rollouts import Drawer, Rollout, Said
from iqa_core.training.ranking.task import RankingTask
from iqa_core.training.ranking.worth import worth_of
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample
from iqa_core.training.task import SCORES
from iqa_core.training.validation import PARSED
from iqa_core.training.written_validation import greedy, written_answers
from tests.training.ranking.tasks import encoder_of, make_ranking_task, save_warm, two_opinions
from tests.training.workers import Job, run_jobs, weights

pytestmark = pytest.mark.slow

STEPS = 4
ONE: dict[str, Any] = {"max_steps": 1, "passes": 4, "learning_rate": 1e-3, "warmup_ratio": 0}
"""One step, whose answers are learnt from well."""
Reports = dict[str, list[dict[str, float]]]
Numbers = NDArray[np.float64]
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
        Job("one", make_ranking_task(warm, opinions, **ONE)),
        Job("asked-otherwise", replace(full, train=asked_otherwise(full.train)), is_refused=True),
        Job(
            "sampled", replace(full, rubric=drawn(full.written), recipe=full.recipe.model_copy(update={"max_steps": 1}))
        ),
    ]
    return run_jobs(folder, 1, jobs)


@pytest.fixture(scope="module")
def together(runs: Path, warm: Path, opinions: list[Opinion]) -> Reports:
    """Two workers, the second of which cannot read one of its images of the last run's validation."""
    (runs / "together").mkdir()
    task = make_ranking_task(warm, opinions, **ONE)
    first, second, *others = task.rated
    gone = replace(second, sample=replace(second.sample, image=runs / "gone.png"))
    jobs = [Job("one", task), Job("unreadable", replace(task, rated=(first, gone, *others)), is_refused=True)]
    return run_jobs(runs / "together", 2, jobs)


def asked_otherwise(samples: Sequence[TrainingSample]) -> tuple[TrainingSample, ...]:
    """Learnt behind another question than the rubric's, by which answers are drawn."""
    return tuple(replace(sample, query="What is seen?") for sample in samples)


def drawn(rubric: WrittenRubric) -> WrittenRubric:
    """The rubric with several answers per image."""
    return rubric.model_copy(update={"decoding": Decoding(samples=3, temperature=1, max_new_tokens=16)})


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


def test_what_is_written_about_a_few_images_is_kept_at_each_validation(runs: Path, alone: Reports) -> None:
    """Of a resumed run, what the undisturbed one wrote."""
    folder = runs / "alone"
    found = {path.name: json.loads(path.read_text()) for path in (folder / "full").glob("examples-*.json")}
    assert found.keys() == {"examples-2.json", "examples-4.json"}
    assert [one["image"] for one in found["examples-2.json"]] == [one["image"] for one in found["examples-4.json"]]
    assert json.loads((folder / "full-restored" / "examples-4.json").read_text()) == found["examples-4.json"]
    rated = [one for one in found["examples-4.json"] if one["ratings"]]
    share = alone["full"][-1][PARSED]
    assert len(rated) == share * 4, "all four images are examples"
    assert all(one["ratings"].keys() == one["opinions"].keys() == {"quality", "layout"} for one in rated)
    assert all(one["text"] for one in found["examples-4.json"])


def test_what_is_kept_of_an_image_was_written_about_that_image(
    runs: Path, alone: Reports, warm: Path, opinions: list[Opinion]
) -> None:
    task, encoder = make_ranking_task(warm, opinions), encoder_of(warm, warm / "ranked.toml")
    model, processor = load_model(warm, "float32", "cpu", 1), load_processor(warm)
    model.load_state_dict(weights(runs / "alone", "full", STEPS), strict=False)
    rubric = greedy(task.written)
    wanted = [written_answers(model, processor, rubric, encoder, [each])[0].text for each in task.rated]
    examples = json.loads((runs / "alone" / "full" / f"examples-{STEPS}.json").read_text())
    kept = {one["image"]: one["text"] for one in examples}
    assert [kept[str(each.sample.image)] for each in task.rated] == wanted
    assert len(set(wanted)) > 1


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
    assert "kl" not in second, "none is computed, though the base is there to judge"


def test_two_workers_draw_and_rank_what_one_does(runs: Path, warm: Path, alone: Reports, together: Reports) -> None:
    assert_same(together["one"], alone["one"], 1e-3)
    both, one = (weights(runs / name, "one", 1) for name in ("together", "alone"))
    base = load_model(warm, "float32", "cpu", 1).state_dict()
    apart, moved = (sum(float((one[n] - each[n]).abs().sum()) for n in one) for each in (both, base))
    assert apart < 0.05 * moved, "each answer is learnt from by its own advantage"


def test_answers_that_are_learnt_behind_another_prompt_are_refused_at_the_start(runs: Path, alone: Reports) -> None:
    said = (runs / "alone" / "asked-otherwise" / "refusal-0.txt").read_text()
    assert "log-probabilities of answers differ by" in said
    assert "more than 0.01: this checkpoint's processor makes another prompt" in said
    assert alone["asked-otherwise"] == []


def test_a_worker_that_fails_in_a_validation_ends_the_others_with_its_message(runs: Path, together: Reports) -> None:
    first, second = ((runs / "together" / "unreadable" / f"refusal-{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert "worker 1: " in first
    assert "gone.png" in first
    assert together["unreadable"] == []


def test_a_checkpoint_has_what_its_export_is_calibrated_by(runs: Path, alone: Reports) -> None:
    """Greedy answers, or the mean of those that are drawn, as scoring will have them."""
    greedy, sampled = (
        json.loads((runs / "alone" / job / f"step-{step}" / SCORES).read_text())
        for job, step in (("full", STEPS), ("sampled", 1))
    )
    assert len(greedy) == len(sampled) == 4
    numbers = [number for said in greedy if said for number in said.values()]
    assert numbers
    assert all(number == round(number) for number in numbers)
    assert any(number != round(number) for said in sampled if said for number in said.values())


def drawer_of(task: RankingTask, model: torch.nn.Module, encoder: SampleEncoder) -> Drawer:
    return Drawer(model.eval(), load_processor(Path(task.base)), encoder, task.ranking)


@torch.no_grad()
def learnt(model: torch.nn.Module, encoder: SampleEncoder, sample: TrainingSample, drawn: Sequence[Rollout]) -> Numbers:
    """Mean log-probability of each answer's tokens, by the rows that are learnt from."""
    batch = encoder.batch([sample] * len(drawn), [one.ids for one in drawn])
    found = log_probs(model.eval(), batch, 1.0)
    return np.array([each[is_token].mean() for each, is_token in zip(found.each_NP, found.is_token_NP, strict=True)])


def test_what_is_worth_more_than_the_others_becomes_likelier(
    runs: Path, warm: Path, opinions: list[Opinion], alone: Reports
) -> None:
    """By how much answers about an image moved goes with their advantages, and not with those of other answers."""
    task, encoder = make_ranking_task(warm, opinions, **ONE), encoder_of(warm, warm / "ranked.toml")
    model, images = load_model(warm, "float32", "cpu", 1), task.images(0)
    samples = [task.train[i] for i in images]
    drawn = drawer_of(task, model, encoder)(samples, 0)
    advantage_NK = worth_of(task, images, Said.of(drawn, task.form)).advantage_NK
    before_NK, after_NK = np.empty_like(advantage_NK), np.empty_like(advantage_NK)
    for found_NK in (before_NK, after_NK):
        found_NK[:] = [learnt(model, encoder, *pair) for pair in zip(samples, drawn, strict=True)]
        model.load_state_dict(weights(runs / "alone", "one", 1), strict=False)
    moved_NK = after_NK - before_NK
    assert np.corrcoef(moved_NK.ravel(), advantage_NK.ravel())[0, 1] > 0.5


def test_a_shrunk_image_is_written_about_as_it_is_learnt_from(warm: Path, opinions: list[Opinion]) -> None:
    task, encoder = make_ranking_task(warm, opinions), encoder_of(warm, warm / "ranked.toml")
    model, whole = load_model(warm, "float32", "cpu", 1), task.train[0]
    small = replace(whole, max_pixels=encoder.pixels(whole)[..., 0].size // 2)
    assert encoder.pixels(small).size < encoder.pixels(whole).size
    [drawn] = drawer_of(task, model, encoder)([small], 0)
    said = np.array([np.mean(one.log_probs) for one in drawn])
    assert learnt(model, encoder, small, drawn) == pytest.approx(said, abs=1e-4)
    rated = replace(task.rated[0], sample=small)
    assert encoder.prepared(rated.as_scored).shape == encoder.prepared(whole).shape, "validated as it will be scored"


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
