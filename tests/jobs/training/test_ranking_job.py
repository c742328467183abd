"""What is found wrong with a training by ranking before it starts: one clear message, nothing written, no Ray.

Tests jobs/training/ranking_job.py and jobs/training/ranking_settings.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from iqa_core.demo.corpus import Extras, write_scenes
from iqa_core.errors import CallerError
from iqa_core.storage.storage import Storage
from iqa_core.training.ranking.recipe import PRESETS
from jobs.command import parse
from jobs.training.flow import train
from jobs.training.ranking_job import RankingJob, checked
from jobs.training.ranking_settings import RankingSettings
from jobs.training.records import FIGURES, RecordsFile
from jobs.training.report import RunReport
from jobs.training.watch import Watch, line
from tests.jobs.running import over

pytestmark = pytest.mark.slow

RUBRIC = "interior-written-v1"
NAMES = ("layout", "harmony", "lighting", "distortion", "quality")
SMALL = ("--images", 4, "--rollouts", 4, "--validation-fraction", "0.4")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Opinions on 12 scenes in four dimensions."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 12, 11, extras=Extras(texts=True))
    return folder / "annotations.csv"


def planned(table: Path, output: Path, *more: object) -> RankingJob:
    given = ("--train", table, "--rubric", RUBRIC, "--output", output, *SMALL)
    return checked(parse(RankingSettings, over(given, *more)))


@pytest.fixture
def refused(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The message of a training that must not begin; whatever lies in tmp_path stays as it was."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where nothing is: connecting would be another error

    def message(*more: object) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(CallerError) as caught:
            train(planned(table, tmp_path / "out", *more))
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "nothing is written"
        return str(caught.value)

    return message


def test_a_plan_says_what_will_be_done(table: Path, tmp_path: Path) -> None:
    job = planned(table, tmp_path / "out", "--num-workers", 2, "--rewards.score.width", 1.5)
    text = "\n".join(job.describe())
    assert "train      7 images (annotations 7)" in text
    assert "rewards    fidelity 1, score 1, format 0.5; sum then normalise, within" in text
    assert "1 of 4 images x 4 answers, 1 to an epoch: 2 workers x 2 x 4 accumulated, bf16, ZeRO 2" in text
    assert job.identity["rewards"]["score"] == {"kind": "cosine", "width": 1.5}
    assert job.task.people.y_NA.shape == (7, 5)


def test_what_is_given_takes_the_place_of_the_presets(table: Path, tmp_path: Path) -> None:
    weights = '{"score": 1, "words": 1, "format": 1}'
    texts = table.parent / f"{RUBRIC}.jsonl"
    given = ("--preset", "perception", "--rewards.composition.weights", weights, "--text", texts)
    job = planned(table, tmp_path / "out", *given)
    ranking, references = job.task.ranking, job.task.references
    assert references is not None
    assert all(len(of_image) == 1 and "think" not in of_image[0] for of_image in references), "without their tags"
    assert "texts      about 7 of these images" in job.describe()
    assert (ranking.lora_rank, ranking.kl_weight) == (16, 0.001), "the preset's"
    assert (ranking.images, ranking.rollouts) == (4, 4), "given"
    assert ranking.rewards.composition.weights == {"score": 1, "words": 1, "format": 1}
    assert (job.task.recipe.language, job.task.recipe.lora_rank) == ("lora", 16)


@pytest.mark.parametrize("preset", PRESETS)
def test_one_setting_of_the_composition_leaves_the_presets_weights(preset: str, table: Path) -> None:
    given = over(("--output", table.parent / "out", "--preset", preset, "--rewards.composition.std-floor", 0.2))
    found = parse(RankingSettings, given).recipe.rewards.composition
    assert (found.std_floor, found.weights) == (0.2, PRESETS[preset].rewards.composition.weights)


def test_a_preset_says_whether_the_export_is_calibrated_and_a_flag_says_otherwise(table: Path) -> None:
    """A run that was begun before there were calibrations goes on without one."""
    given = ("--output", table.parent / "out")
    for preset, flag, expected in (
        ("attributes", (), True),
        ("perception", (), False),
        ("attributes", ("--no-calibrate",), False),
        ("perception", ("--calibrate",), True),
    ):
        found = parse(RankingSettings, over((*given, "--preset", preset), *flag)).recipe
        assert found.calibrate is expected, (preset, flag)
    plain, calibrated = (planned(table, table.parent / "out", *flag) for flag in (("--no-calibrate",), ()))
    assert "calibrate" not in plain.identity
    assert calibrated.identity["calibrate"] is True
    assert (plain.task.is_calibrated, calibrated.task.is_calibrated) == (False, True)


def test_the_preset_of_four_rewards_is_for_answers_with_captions(table: Path, tmp_path: Path) -> None:
    given = ("--train", table.parent / "quality.csv", "--rubric", "interior-perception-v1")
    texts = ("--text", table.parent / "interior-perception-v1.jsonl")
    job = planned(table, tmp_path / "out", "--preset", "perception", *given, *texts)
    assert "rewards    score 1, caption 1, words 1, format 1; sum then normalise, within" in job.describe()


def test_opinions_of_several_files_on_one_image_are_of_one_data_set(table: Path, tmp_path: Path) -> None:
    """So that no image is in both parts, as it would be if each file were split by itself."""
    second = table.parent / "second.csv"
    rows = [f"scene-{i:06d}.png,quality,{1 + i % 4}" for i in range(12)]
    second.write_text("\n".join(["image,dimension,mos", *rows]))
    job = planned(table, tmp_path / "out", "--train", table, "--train", second)
    assert {sample.dataset for sample in job.task.train} == {"annotations"}
    assert not {sample.image for sample in job.task.train} & {each.sample.image for each in job.task.rated}
    assert len(job.task.train) + len(job.task.rated) == 12


def test_settings_that_do_not_fit_together(refused: Callable[..., str], table: Path) -> None:
    perception = ("--preset", "perception", "--text", table.parent / f"{RUBRIC}.jsonl")
    assert "the reward caption needs answers with a caption" in refused(*perception)
    words = ("--rewards.composition.weights", '{"score": 1, "words": 1}')
    assert "the reward words needs what people wrote" in refused(*words)
    texts = ("--text", table.parent / "interior-perception-v1.jsonl")
    assert "no text of --text answers the question of rubric interior-written-v1" in refused(*words, *texts)
    assert "--text is for the reward words" in refused(*texts)
    assert "--zero-stage 3 spreads the weights" in refused("--zero-stage", 3)
    assert "--images 4 cannot be shared evenly by 3 workers" in refused("--num-workers", 3)
    assert "is no multiple of 1 workers x --micro-batch 5" in refused("--micro-batch", 5)
    assert "it has layout" in refused("--rewards.attributes", '{"beauty": 2}')
    assert "every weight is 0" in refused("--rewards.attributes", json.dumps(dict.fromkeys(NAMES, 0)))
    assert "no weight is below 0" in refused("--rewards.attributes", '{"layout": -1}')
    assert "--epochs" in refused("--epochs", "inf")
    for name in ("--rewards.variance-floor", "--rewards.composition.std-floor"):
        assert f"{name}: Input should be a finite number" in refused(name, "inf")
    assert "homogeneous batches have those of one" in refused("--rewards.alignment", "none")
    assert "--alpha is about homogeneous batches" in refused("--batches", "mixed", "--alpha", 1)
    assert "up to 30000, and the model's context has" in refused("--max-new-tokens", 30000)
    assert "there is no reward beauty" in refused("--rewards.composition.weights", '{"beauty": 1}')


def test_data_and_rubrics_that_nothing_can_be_learnt_from(refused: Callable[..., str], table: Path) -> None:
    assert "rubric interior-v1 has closed sets of answers" in refused("--rubric", "interior-v1")
    assert "data set annotations has 7 images, and a batch takes 8 of it" in refused("--images", 8)
    assert "12 images are in --train and in --validation" in refused("--validation", table)
    assert "there is no model behind it" in refused("--base", "fake:")
    assert "needs the standard deviation of opinions" in refused("--rewards.preferences", "soft")
    perception = refused("--rubric", "interior-perception-v1")
    assert "--train has opinions on layout, but rubric interior-perception-v1 has quality" in perception
    unrated = refused("--train", table.parent / "quality.csv", "--rewards.attributes", '{"quality": 0}')
    assert "--train has no opinion on an attribute whose weight" in unrated
    alike = table.parent / "alike.csv"
    alike.write_text("\n".join(["image,dimension,mos", *(f"scene-{i:06d}.png,quality,3" for i in range(12))]))
    assert "are all 3, which ranks nothing" in refused("--train", alike)


def test_a_line_says_how_drawn_answers_are() -> None:
    record = {"step": 2, "steps": 9, "loss": 0.01, "samples_per_s": 3, "memory_gib": 1}
    drawn = {"reward": 1.5, "fidelity_normalised": 0.625, "parsed_drawn": 0.9, "kl": 0.001}
    assert line(record).endswith("GiB")
    assert line({**record, **drawn}).endswith("GiB  reward 1.500  fidelity 62%  drawn parsed 90%  KL 0.0010")


def test_a_run_that_goes_wrong_is_told_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(RunReport(str(tmp_path), Storage({}), []))
    record = {"steps": 99, "loss": 0.01, "samples_per_s": 3, "memory_gib": 1, "parsed_drawn": 0.3}
    file = RecordsFile.of(str(tmp_path), Storage({}), FIGURES)
    for last in (29, 30, 31):
        file.write([{**record, "step": step} for step in range(1, last + 1)])
        watch.look()
        assert capsys.readouterr().out.count("attention: 30% of answers are parsed") == (last == 30)
    watch.close()
