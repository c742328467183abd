"""Scenes -> answers that are true of them, parse to their truths, and are worded in many ways.

Tests iqa_core/demo/text_tables.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from iqa_core.__main__ import main
from iqa_core.demo.captions import words_of
from iqa_core.demo.scenes import DIMENSIONS, FURNITURE, Light, Scene, furniture_map, make_scene
from iqa_core.demo.texts import (
    CLAUSES,
    DEGREES,
    LEVELS,
    LIGHT_CLAUSES,
    PERCEPTION,
    WRITTEN,
    SceneTexts,
    make_texts,
    written_rubrics,
)
from iqa_core.opinions.chains import load_chains
from iqa_core.opinions.load import load_opinions
from iqa_core.training.samples import text_samples
from iqa_core.written.parsing import Parsed, parsed

SEED, COUNT = 21, 300
LIGHTS = {clause: light for light, clauses in LIGHT_CLAUSES.items() for clause in clauses}
DIMENSION_OF = {clause: name for name, clauses in CLAUSES.items() for clause in clauses} | dict.fromkeys(
    LIGHTS, "lighting"
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(SEED, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def texts(scenes: list[Scene]) -> list[SceneTexts]:
    return [make_texts(scene, SEED, index) for index, scene in enumerate(scenes)]


def said(texts: SceneTexts, rubric: str) -> Parsed:
    found = parsed(texts.answers[rubric], written_rubrics()[rubric].form)
    assert isinstance(found, Parsed), found
    return found


def claims(text: str) -> dict[str, tuple[str, str]]:
    """Dimension -> the clause about it and its degree, read back by another road than it was written."""
    found = {}
    for part in re.split(r"[;,.] ?", text.lower()):
        degrees = [word for word in part.split() if word in DEGREES]
        if degrees:
            clause = part.replace(degrees[0], "{}", 1)
            found[DIMENSION_OF[clause]] = (clause, degrees[0])
    return found


def test_both_forms_parse_to_the_truths(scenes: list[Scene], texts: list[SceneTexts]) -> None:
    for scene, made in zip(scenes, texts, strict=True):
        quality = np.mean([scene.truths[name] for name in DIMENSIONS])
        assert made.quality == scene.quality == pytest.approx(quality)
        wanted = [*(scene.truths[name] for name in DIMENSIONS), quality]
        assert said(made, WRITTEN).values == pytest.approx(wanted, abs=0.0501)
        assert said(made, PERCEPTION).values == pytest.approx([quality], abs=0.0501)


def test_every_clause_follows_the_truth(scenes: list[Scene], texts: list[SceneTexts]) -> None:
    for scene, made in zip(scenes, texts, strict=True):
        perceived = said(made, PERCEPTION)
        for text in (said(made, WRITTEN).reasoning, perceived.caption, perceived.reasoning):
            found = claims(text or "")
            assert found.keys() == set(DIMENSIONS)
            for name, (clause, word) in found.items():
                assert abs(1 + DEGREES.index(word) - scene.truths[name]) <= 0.5
                if name == "lighting" and word != DEGREES[-1]:
                    assert LIGHTS[clause] == scene.contents.light


def test_light_is_wrong_in_the_way_that_is_said(scenes: list[Scene]) -> None:
    """Of scenes with much of it: dark and bright by the mean, uneven by the difference of the sides."""
    found: dict[Light, list[tuple[float, float]]] = {light: [] for light in Light}
    for scene in scenes:
        if scene.truths["lighting"] < 2:
            grey = scene.pixels_HWC.mean(-1)
            found[scene.contents.light].append((grey.mean(), abs(grey[:, :30].mean() - grey[:, -30:].mean())))
    dark, bright, uneven = (np.array(found[light]).T for light in (Light.DARK, Light.BRIGHT, Light.UNEVEN))
    assert min(len(each[0]) for each in (dark, bright, uneven)) > 10
    assert dark[0].max() < bright[0].min()
    assert min(uneven[1]) > np.median(np.concatenate([dark[1], bright[1]]))


def test_the_best_the_worst_and_the_whole_are_named_as_they_are(scenes: list[Scene], texts: list[SceneTexts]) -> None:
    for scene, made in zip(scenes, texts, strict=True):
        thought, reasoning = (said(made, name).reasoning or "" for name in (WRITTEN, PERCEPTION))
        for text in (thought, reasoning):
            [level] = [word for word in re.findall(r"\w+", text) if word in LEVELS]
            assert abs(1 + LEVELS.index(level) - scene.quality) <= 0.5
        ends = {word: name for name, word in re.findall(r"(\w+) is (best|worst)", reasoning.lower())}
        values = [scene.truths[name] for name in DIMENSIONS]
        assert scene.truths[ends["best"]] == max(values)
        assert scene.truths[ends["worst"]] == min(values)


def test_captions_tell_what_is_there_and_no_score(scenes: list[Scene], texts: list[SceneTexts]) -> None:
    for index, (scene, made) in enumerate(zip(scenes, texts, strict=True)):
        caption = (said(made, PERCEPTION).caption or "").lower()
        words = re.findall(r"\w+", caption)
        assert not set(words) & {*LEVELS, "best", "worst"}
        assert not re.search(r"\d", caption)
        known = words_of(scene.contents)
        assert f"a {known['wall']} wall" in caption
        assert ("window" in known) == ("a window on the" in caption)
        if "window" in known:
            assert f"a window on the {known['window']}" in caption
        standing = {FURNITURE[k - 1] for k in np.unique(furniture_map(SEED, index)) if k}
        named = [word for word in words if word in FURNITURE]
        assert len(named) == 2
        assert set(named) <= standing


def test_texts_are_worded_in_many_ways_by_the_scene(scenes: list[Scene], texts: list[SceneTexts]) -> None:
    frames = {re.sub("|".join([*DEGREES, *LEVELS]), "_", said(made, WRITTEN).reasoning or "").lower() for made in texts}
    assert len(frames) > COUNT / 3
    assert make_texts(scenes[3], SEED, 3) == texts[3]
    assert make_texts(scenes[3], SEED, 4).answers != texts[3].answers


def test_the_command_writes_what_training_and_evaluation_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], texts: list[SceneTexts]
) -> None:
    plain, output = tmp_path / "plain", tmp_path / "out"
    for folder, flags in ((plain, []), (output, ["--texts"])):
        assert main(["scenes", "--count", "3", "--seed", str(SEED), "--output", str(folder), *flags]) == 0
    assert capsys.readouterr().out.endswith(f"and their annotations and texts in {output}\n")
    files = [f"{name}.jsonl" for name in written_rubrics()]
    assert {file.name for file in output.iterdir()} - {file.name for file in plain.iterdir()} == {
        *files,
        "quality.csv",
        "chains.jsonl",
    }
    assert all((output / file.name).read_bytes() == file.read_bytes() for file in plain.iterdir())
    samples = text_samples([output / name for name in files], {})
    wanted = [(f"scene-{index:06d}.png", name) for name in written_rubrics() for index in range(3)]
    assert [(sample.image.name, sample.dataset) for sample in samples] == wanted
    for sample, (image, name) in zip(samples, wanted, strict=True):
        assert sample.query == written_rubrics()[name].question
        assert sample.answer == texts[int(image[6:12])].answers[name]
    opinions = load_opinions([str(output / "quality.csv")]).rows
    assert {row.dimension for row in opinions} == {"quality"}
    assert [row.mos for row in opinions] == pytest.approx([made.quality for made in texts[:3]], abs=1e-4)
    chains = load_chains([str(output / "chains.jsonl")])
    assert [image.name for image in chains] == [f"scene-{index:06d}.png" for index in range(3)]
    for own, made in zip(chains.values(), texts[:3], strict=True):
        first, other = own
        assert first.caption == said(made, PERCEPTION).caption != other.caption
        assert first.reasoning == said(made, PERCEPTION).reasoning != other.reasoning
        assert first.ratings == other.ratings == {"quality": pytest.approx(made.quality, abs=0.05)}


def test_noise_is_in_the_numbers_alone(scenes: list[Scene], texts: list[SceneTexts]) -> None:
    """Words and opinions stay true, and numbers are off by what was asked for, inside of their range."""
    noisy = [make_texts(scene, SEED, index, noise=1.0) for index, scene in enumerate(scenes)]
    for rubric in (WRITTEN, PERCEPTION):
        for made, true in zip(noisy, texts, strict=True):
            found, wanted = said(made, rubric), said(true, rubric)
            assert (found.caption, found.reasoning, made.quality) == (wanted.caption, wanted.reasoning, true.quality)
        numbers, truths = (np.array([said(one, rubric).values for one in each]) for each in (noisy, texts))
        errors = np.abs(numbers - truths)[np.abs(truths - 3) < 0.5]
        assert np.median(errors) == pytest.approx(0.674, abs=0.1), "that of a normal error of 1 point"
        assert (numbers.min(), numbers.max()) == (1, 5)


@pytest.mark.parametrize(
    ("flags", "told"), [(["--noise", "-1", "--texts"], "0 or more"), (["--noise", "1"], "--texts")]
)
def test_noise_that_is_none_or_of_nothing_is_refused(
    flags: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scenes", "--count", "1", "--output", str(tmp_path / "new"), *flags]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
