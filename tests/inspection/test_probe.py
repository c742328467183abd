"""One prompt and one image -> the numbers of plain transformers, as one JSON object."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from iqa_core.__main__ import main
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.samples import SAMPLES, read_sample
from iqa_core.errors import CallerError
from iqa_core.inspection.probe import probe

pytestmark = pytest.mark.slow

LEVELS = ["excellent", "good", "fair", "poor", "bad"]
USER, ANSWER = "Look: <image>\nHow good is the layout?", "The layout of this image is"
OVIS = Path(__file__).resolve().parent.parent / "data" / "ovis2_5"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "room.png"
    Image.fromarray(read_sample(SAMPLES[0]).pixels_HWC).save(path)
    return path


def looked_at(folder: Path, picture: Path, **changes: Any) -> dict[str, Any]:
    arguments = {"user": USER, "answer_prefix": ANSWER, "levels": LEVELS, "system": None, **changes}
    return probe(AssessorConfig(checkpoint=str(folder), threads=1), picture, **arguments)


@torch.inference_mode()
def plain(folder: Path, text: str, picture: Path) -> tuple[np.ndarray, Any, Any]:
    """Logits of the whole vocabulary, the processor, and what it made of the prompt."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), load_processor(folder)
    inputs = processor(text=[text], images=[[Image.open(picture)]], return_tensors="pt")
    return model(**inputs).logits[0, -1].double().numpy(), processor.tokenizer, inputs


def prompt(system: str) -> str:
    turn = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    asked = f"{turn}<|im_start|>user\n{USER.replace('<image>', image)}<|im_end|>\n"
    return f"{asked}<|im_start|>assistant\n{ANSWER}"


@pytest.mark.parametrize("system", ["", "You are strict."])
def test_the_numbers_are_those_of_plain_transformers(untuned: Path, picture: Path, system: str) -> None:
    found = looked_at(untuned, picture, system=system)
    logits_V, tokenizer, inputs = plain(untuned, prompt(system), picture)
    words = {word: logits_V[tokenizer.encode(f" {word}")[0]] for word in LEVELS}
    assert found["logits"] == pytest.approx(words, abs=1e-5)
    assert list(found["logits"]) == list(found["probabilities"]) == LEVELS
    weights = np.exp(np.array(list(words.values())))
    probs = weights / weights.sum()
    score = probs @ [5, 4, 3, 2, 1]
    assert list(found["probabilities"].values()) == pytest.approx(probs, abs=1e-6)
    assert found["score"] == pytest.approx(score, abs=1e-5)
    assert found["std"] == pytest.approx(np.sqrt(probs @ (np.array([5, 4, 3, 2, 1]) - score) ** 2), abs=1e-5)
    assert found["prompt_tokens"] == inputs["input_ids"].shape[1]
    assert found["visual_tokens"] == 16, "112 x 112 pixels in groups of 28 x 28"
    everything = np.exp(logits_V) / np.exp(logits_V).sum()
    likeliest = np.argsort(-everything)[:5]
    assert [entry["id"] for entry in found["top"]] == likeliest.tolist()
    assert [entry["probability"] for entry in found["top"]] == pytest.approx(everything[likeliest], abs=1e-6)
    assert found["top"][0]["token"] == tokenizer.decode([int(likeliest[0])])


def test_the_system_prompt_is_the_flags_or_args_jsons_or_none(untuned: Path, picture: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(untuned, tmp_path / "checkpoint"))
    assert looked_at(folder, picture)["system"] is None
    (folder / "args.json").write_text('{"system": "You are kind.", "seed": 3}')
    from_file = looked_at(folder, picture)
    assert (from_file["system"], from_file["system_from"]) == ("You are kind.", "args.json")
    given = looked_at(folder, picture, system="You are kind.")
    assert given["system_from"] == "--system"
    assert given["logits"] == from_file["logits"]


def test_bfloat16_is_read_in_float32(untuned: Path, picture: Path) -> None:
    config = AssessorConfig(checkpoint=str(untuned), threads=1, dtype="bfloat16")
    found = probe(config, picture, USER, ANSWER, LEVELS, None)
    values = torch.tensor(list(found["logits"].values()))
    assert not torch.equal(values, values.bfloat16().float())
    assert found["logits"] == pytest.approx(looked_at(untuned, picture)["logits"], abs=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": "How good?"}, "0 times"),
        ({"user": "<image><image>"}, "2 times"),
        ({"answer_prefix": "It is "}, "white space"),
        ({"levels": ["good", "bad"]}, "5 different words"),
        ({"levels": ["good", "good", "fair", "poor", "bad"]}, "5 different words"),
        ({"levels": ["good-", "good:", "fair", "poor", "bad"]}, "same token"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(
    untuned: Path, picture: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CallerError, match=message):
        looked_at(untuned, picture, **changes)


def test_an_image_that_cannot_be_read_is_refused(untuned: Path, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=r"no\.png cannot be read"):
        looked_at(untuned, tmp_path / "no.png")
    (tmp_path / "page.png").write_text("<!doctype html>")
    with pytest.raises(CallerError, match="unsupported_format"):
        looked_at(untuned, tmp_path / "page.png")


def test_as_a_command_it_prints_one_json_object(
    untuned: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--image", str(picture), "--user", USER.replace("\n", "\\n"), "--answer-prefix", ANSWER]
    assert main(["probe", "--checkpoint", str(untuned), "--threads", "1", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["logits"] == pytest.approx(
        looked_at(untuned, picture)["logits"], abs=1e-6
    )
    assert main(["probe", "--checkpoint", "fake:", *flags]) == 2
    assert "no model" in capsys.readouterr().err


@pytest.mark.skipif(not (OVIS / "expected.json").exists(), reason="the golden Ovis2.5 checkpoint is not there")
@pytest.mark.parametrize("case", range(4))
def test_the_golden_ovis_checkpoint_gives_its_numbers(case: int) -> None:
    expected = json.loads((OVIS / "expected.json").read_text())["cases"][case]
    asked = {name: expected[name] for name in ("system", "user", "answer_prefix")}
    found = looked_at(OVIS, OVIS / expected["image"], **asked)
    assert found["logits"] == pytest.approx(expected["rating_logits"], abs=1e-4)
    assert list(found["probabilities"].values()) == pytest.approx(expected["probabilities"], abs=1e-4)
    assert found["score"] == pytest.approx(expected["score"], abs=1e-4)
    assert found["visual_tokens"] == expected["num_visual_tokens"]
