"""What is found wrong with a training before it starts: one clear message, nothing written, no Ray.

Tests jobs/training/job.py, jobs/training/run.py and jobs/opinion_texts.py.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from iqa_core.demo.scenes import DIMENSIONS, make_scene
from iqa_core.demo.texts import WRITTEN, make_texts, written_rubrics
from iqa_core.errors import CallerError
from jobs.command import parse
from jobs.training.flow import train
from jobs.training.job import TrainingJob, checked
from jobs.training.run import claim
from jobs.training.settings import TrainSettings
from jobs.training.watch import line
from tests.assessor.tiny import save_paligemma
from tests.jobs.running import over
from tests.training.tasks import write_opinions
from tests.unlike import ASKING_TOML

pytestmark = pytest.mark.slow


ROOT = Path(__file__).resolve().parents[3]
COUNT = 12


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_opinions(tmp_path_factory.mktemp("scenes"), COUNT)


@pytest.fixture
def refused(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The message of a training that must not begin; whatever lies in tmp_path stays as it was."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where nothing is: connecting would be another error

    def message(*arguments: object, given: object = table) -> str:
        flags = ["--train", str(given), "--output", str(tmp_path / "out"), *map(str, arguments)]
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(CallerError) as caught:
            train(checked(parse(TrainSettings, flags)))
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "nothing is written"
        return str(caught.value)

    return message


def planned(table: Path, output: Path, *arguments: object) -> TrainingJob:
    flags = ["--train", str(table), "--output", str(output), "--validation-fraction", "0.4", *map(str, arguments)]
    return checked(parse(TrainSettings, flags))


def rewritten(table: Path, target: Path, **changes: str) -> Path:
    """The table beside its images, with other values in its second row."""
    with table.open(newline="") as source:
        rows = list(csv.DictReader(source))
    rows[1].update(changes)
    path = table.parent / target
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_unreadable_images_are_named(refused: Callable[..., str], table: Path, tmp_path: Path) -> None:
    message = refused(given=rewritten(table, Path("gone.csv"), image="gone.png"))
    assert "gone.png: missing" in message
    assert "--skip-unreadable" in message


def test_or_skipped_and_counted(table: Path, tmp_path: Path) -> None:
    plan = planned(rewritten(table, Path("gone.csv"), image="gone.png"), tmp_path / "out", "--skip-unreadable")
    assert plan.dropped["image missing"] == 1
    assert len(plan.task.train) + len(plan.task.validation) == 4 * COUNT - 1


def test_missing_annotations(refused: Callable[..., str], table: Path, tmp_path: Path) -> None:
    assert "none.csv cannot be read" in refused(given=tmp_path / "none.csv")
    empty = rewritten(table, Path("empty.csv"), mos="")
    plan = planned(empty, tmp_path / "out")
    assert plan.dropped == {"no opinion": 1}, "a row without an opinion is a counted skip"


def test_an_unknown_dimension(refused: Callable[..., str], table: Path) -> None:
    assert "opinions on sharpness, but rubric interior-v4 asks for layout" in refused(
        given=rewritten(table, Path("sharp.csv"), dimension="sharpness")
    )


def test_mixed_scales(refused: Callable[..., str], table: Path) -> None:
    message = refused(given=rewritten(table, Path("mixed.csv"), mos="68.7"))
    assert "mixed.csv, line 3: mos: 68.7 is outside of 1 (worst) to 5 (best)" in message


def test_an_empty_split(refused: Callable[..., str]) -> None:
    assert "the validation part is empty: 12 images" in refused("--validation-fraction", "0.0001")


def test_a_validation_part_that_was_trained_on(refused: Callable[..., str], table: Path) -> None:
    assert "12 images are in --train and in --validation" in refused("--validation", table)


@pytest.mark.parametrize("base", ["fake:", "none/at/all", "/nowhere"])
def test_a_wrong_base(refused: Callable[..., str], base: str) -> None:
    assert base in refused("--base", base)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's processor
def test_a_processor_that_changes_answers(
    refused: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = save_paligemma(tmp_path_factory.mktemp("paligemma"))
    flags = ("--base", base, "--rubric", "interior-v2", "--validation-fraction", 0.4)
    assert "PaliGemmaProcessor changed the tokens of an answer" in refused(*flags)


def test_settings_that_do_not_fit_together(refused: Callable[..., str]) -> None:
    assert "--global-batch 10 is no multiple" in refused("--global-batch", 10, "--num-workers", 4)
    assert "all parts are frozen" in refused("--language", "frozen", "--validation-fraction", "0.4")
    assert "--number-weight is about numbers of written answers" in refused("--number-weight", 8)
    assert "--zero-stage: Input should be 0, 2 or 3" in refused("--zero-stage", 1)
    assert "need the standard deviation" in refused("--targets", "gaussian", "--validation-fraction", "0.4")
    assert "--weight layout" in refused("--weight", "layout", "--validation-fraction", "0.4")
    assert "--weight loyout" in refused("--weight", "loyout=2", "--validation-fraction", "0.4")


def test_a_plan_says_what_will_be_done(table: Path, tmp_path: Path) -> None:
    flags = ("--num-workers", 2, "--global-batch", 16, "--epochs", 2, "--max-tokens", 126)
    text = "\n".join(planned(table, tmp_path / "out", *flags).describe())
    assert "16 samples: 2 workers x 2 x 4 accumulated, bf16, ZeRO 2" in text
    assert "too long" in text
    assert "parts      vision frozen, aligner frozen, language full" in text


def test_an_output_goes_on_with_the_same_settings_only(table: Path, tmp_path: Path) -> None:
    claim(planned(table, tmp_path / "out"))
    claim(planned(table, tmp_path / "out", "--threads", 2, "--log-every", 5))
    with pytest.raises(CallerError, match=r"started otherwise:\n  learning_rate: 2e-05 there, 0.001 now"):
        claim(planned(table, tmp_path / "out", "--learning-rate", "1e-3"))
    others = ("--rubric", "interior-v2", "--seed", 7, "--epochs", 9, "--targets", "linear")
    with pytest.raises(CallerError) as caught:
        claim(planned(table, tmp_path / "out", *others))
    said = str(caught.value)
    assert "\n  rubric: interior-v4 of the checkpoint there, interior-v2 now\n" in said
    for name in ("digests.rubric", "epochs", "rubric", "seed", "targets"):
        assert f"\n  {name}: " in said, "all that differs, not the first three"
    file = tmp_path / "out" / "training.json"
    begun = json.loads(file.read_text())
    for later in ("rubric_named", "number_weight"):  # as it was written before there were these
        begun.pop(later, None)
    file.write_text(json.dumps(begun))
    claim(planned(table, tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "training.json").read_text())["seed"] == 0
    assert "number_weight" not in json.loads((tmp_path / "out" / "training.json").read_text())


def test_other_wordings_are_part_of_what_a_run_is(table: Path, tmp_path: Path) -> None:
    """They are remembered, since the rubric's digest does not have them."""
    flags = ("--rubric", "interior-v1", "--augment-prompts-paraphrase", "--augment-prompts-drop", 0.1)
    plan = planned(table, tmp_path / "out", *flags)
    assert "asked      by query or paraphrase, 10% of words left out" in plan.describe()
    assert all(len(sample.paraphrases) == 3 for sample in plan.task.train)
    assert not any(sample.paraphrases for sample in plan.task.validation)
    assert len(plan.identity["paraphrases"]["harmony"]) == 3
    assert not [line for line in planned(table, tmp_path / "out").describe() if line.startswith("asked")]


def test_the_demos_recipe_freezes_what_its_base_has_learnt_and_asks_in_all_other_words() -> None:
    """`make demo-model` names the data; that the files are there after `convert` is seen when it runs."""
    settings = parse(TrainSettings, ["--config", str(ROOT / "iqa_core" / "demo" / "fine_tuning.toml")])
    assert (settings.vision, settings.aligner, settings.language) == ("frozen", "frozen", "full")
    assert len(set(settings.text)) == len(DIMENSIONS) * 3
    made = re.search(r"scenes --count (\d+) .*--output demo-model/others", (ROOT / "Makefile").read_text())
    assert made is not None
    assert {path.name.split("_", 1)[1] for path in settings.text} == {
        f"{made[1]}_full_prompt{version}.jsonl" for version in (1, 2, 3)
    }


@pytest.fixture
def asking(table: Path, tmp_path: Path) -> tuple[object, ...]:
    """Flags of a rubric with slots and statements, and of opinions on two images and three captions."""
    (tmp_path / "asking.toml").write_text(ASKING_TOML)
    rows = [["image", "caption", "style", "faithful", "dog"]]
    for index in range(2):
        rows += [[f"scene-{index:06d}.png", caption, "modern", str(index), "0.25"] for caption in ("a", "b" * 60, " ")]
    path = table.parent / "asking.csv"
    path.write_text("\n".join(map(",".join, rows)))
    given = ("--train", f"{path}?dimensions=faithful,dog&range=own", "--rubric", tmp_path / "asking.toml")
    return *given, "--targets", "linear", "--validation-fraction", 0.5, "--output", tmp_path / "out"


def test_opinions_come_with_the_texts_of_their_own_question(asking: tuple[object, ...]) -> None:
    plan = checked(parse(TrainSettings, over(asking, "--slot", "prompt=caption")))
    assert plan.dropped == {"no text for a slot": 2, "a second opinion on the same image and dimension": 4}
    [short, dog, long] = plan.task.train
    assert [sample.texts for sample in plan.task.train] == [
        (("prompt", "a"),),
        (("style", "modern"),),
        (("prompt", "b" * 60),),
    ]
    assert short.tokens < long.tokens, "texts count"
    assert dog.level is not None
    assert dog.level.target == pytest.approx((0.75, 0.25))
    assert plan.identity["slot"] == ["prompt=caption"]
    assert "slots      {prompt} is column caption, {style} is column style; longer than 2,000 characters: left out" in (
        plan.describe()
    )


def test_long_texts_are_left_out_or_cut_and_counted(asking: tuple[object, ...]) -> None:
    bound = ("--slot", "prompt=caption", "--slot-chars", 50)
    assert checked(parse(TrainSettings, over(asking, *bound))).dropped["a text above --slot-chars"] == 2
    plan = checked(parse(TrainSettings, over(asking, *bound, "--slot-too-long", "cut")))
    assert plan.dropped["a text of which the beginning is asked about"] == 2
    assert plan.task.train[2].texts == (("prompt", "b" * 50),)


def test_slots_that_do_not_fit_are_refused(
    refused: Callable[..., str], asking: tuple[object, ...], table: Path, tmp_path: Path
) -> None:
    flags, address = ("--rubric", tmp_path / "asking.toml"), asking[1]
    assert "asking.csv, line 2: no column prompt with texts for {prompt}" in refused(*flags, given=address)
    assert "the rubric has no slot title" in refused(*flags, "--slot", "title=caption", given=address)
    assert "the rubric has no slot prompt (it has none)" in refused("--slot", "prompt=caption")
    assert "--slot-chars are about texts for slots" in refused("--slot-chars", 5)
    assert "opinions on things, a group of statements" in refused(
        *flags, given=rewritten(table, Path("things.csv"), dimension="things")
    )


def test_a_run_begun_before_there_were_slots_goes_on(table: Path, tmp_path: Path) -> None:
    """The identity of a run on a rubric without slots has no settings of theirs."""
    assert not [name for name in planned(table, tmp_path / "out").identity if name.startswith("slot")]


@pytest.fixture
def texts(table: Path) -> list[object]:
    """Flags of answers about all images, the first of which is in another form."""
    lines = [
        {"query": rubric.question, "response": made.answers[name], "image": f"scene-{index:06d}.png"}
        for name, rubric in written_rubrics().items()
        for index in range(COUNT)
        for made in [make_texts(make_scene(11, index), 11, index)]
    ]
    lines[0]["response"] = "It is fine."
    path = table.parent / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return ["--text", path, "--rubric", WRITTEN]


def written(texts: list[object], output: Path, *more: object) -> TrainingJob:
    return checked(parse(TrainSettings, [*map(str, (*texts, "--output", output, *more))]))


def test_answers_are_learnt_without_opinions(texts: list[object], tmp_path: Path) -> None:
    plan = written(texts, tmp_path / "out", "--validation-fraction", 0.25)
    assert plan.task.rubric.id == WRITTEN
    train, validation = ({sample.image for sample in part} for part in (plan.task.train, plan.task.validation))
    assert not train & validation
    assert len(validation) == 3
    assert len(plan.task.train) + len(plan.task.validation) == 2 * COUNT - 1, "of both rubrics"
    assert plan.dropped == {"answer that does not parse": 1}
    rated = plan.task.rated
    assert {each.sample.image for each in rated} == validation
    index = int(rated[0].sample.image.stem[-6:])
    truths = make_scene(11, index).truths
    assert {name: rated[0].ratings[name] for name in DIMENSIONS} == pytest.approx(dict(truths), abs=0.0501)
    assert "           3 images are written about at each validation" in plan.describe()
    assert plan.identity["train"] == []


def test_opinions_may_say_what_is_true(texts: list[object], table: Path, tmp_path: Path) -> None:
    write_opinions(tmp_path / "others", 3, seed=5)
    others = tmp_path / "others" / "annotations.csv"
    plan = written(texts, tmp_path / "out", "--validation", others)
    assert (len(plan.task.train), plan.task.validation) == (2 * COUNT - 1, ())
    assert [dict(each.ratings) for each in plan.task.rated] == [
        pytest.approx(dict(make_scene(5, index).truths), abs=1e-4) for index in range(3)
    ]
    with pytest.raises(CallerError, match="12 images are in --text and in --validation"):
        written(texts, tmp_path / "out", "--validation", table)


def test_what_writing_cannot_be_learnt_from_is_refused(texts: list[object], table: Path, tmp_path: Path) -> None:
    def message(*flags: object) -> str:
        with pytest.raises(CallerError) as caught:
            written([*texts[:2], *flags], tmp_path / "out")
        return str(caught.value)

    assert "rubric interior-v4 has closed sets of answers" in message()
    assert "training on --train: interior-written-v1 is a written rubric" in message(*texts[2:], "--train", table)
    assert "--zero-stage 3 spreads the weights" in message(*texts[2:], "--zero-stage", 3)
    assert "--split-by group: texts have no group" in message(*texts[2:], "--split-by", "group")
    assert "--max-std is about opinions" in message(*texts[2:], "--max-std", 1)
    assert "--level-weight is about level words" in message(*texts[2:], "--level-weight", 5)
    assert "answers the question of rubric perception-v1" in message("--rubric", "perception-v1")
    long = tmp_path / "long.toml"
    text = (ROOT / "iqa_core" / "rubrics" / "written" / f"{WRITTEN}.toml").read_text()
    long.write_text(re.sub(r"max_new_tokens = \d+", "max_new_tokens = 4096", text))
    assert "its answer up to 4096, and the model's context has 4096; set a smaller" in message("--rubric", long)
    with pytest.raises(CallerError, match="nothing to learn from"):
        written([], tmp_path / "out")


def test_a_line_of_a_run_that_writes_has_every_number() -> None:
    figures = {"step": 5, "steps": 9, "loss": 1, "samples_per_s": 2, "memory_gib": 3, "rank_by": 0.5, "parsed": 0.99}
    assert line(figures | {"srcc": 0.7, "srcc_layout": 0.8, "srcc_quality": 0.6, "plcc_quality": 0.5}) == (
        "step 5/9  loss 1.0000  2.0 samples/s  3.0 GiB  parsed 99.0%  SRCC 0.700  "
        "PLCC by attribute quality 0.500  SRCC by attribute layout 0.800, quality 0.600"
    )
