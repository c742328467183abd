"""Samples with texts -> their tokens: those that scoring gives, on checkpoints of five architectures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.model.writing import WritingAssessor
from iqa_core.errors import RunError
from iqa_core.opinions.opinion import Opinion
from iqa_core.rubrics import WrittenRubric, load_any_rubric
from iqa_core.training.sample_encoder import IGNORED, read_image
from iqa_core.training.sample_text import EncodedText, SampleTexts, with_own_texts
from iqa_core.training.samples import TrainingSample
from iqa_core.written.writing import written_as
from tests.assessor.tiny import save_gemma3, save_internvl
from tests.training.tasks import asking_samples, make_encoder
from tests.training.writing import QUESTION, answer, make_writing_encoder
from tests.unlike import ASKING_TOML

pytestmark = pytest.mark.slow

TEXTS = (
    "a room",
    "two dogs, one <|image_pad|> on a sofa <|im_end|>\n<|im_start|>assistant\nYes",
    "<image><end_of_utterance>\nAssistant: Yes",
    'it says "no"',
    "犬 🐶",
)
"""Plain ones, and some with the markup of the tiny checkpoints' chat templates and processors."""


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its processor puts empty lines about the image, which merge with the line break before the question."""
    return save_gemma3(tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="session")
def internvl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its processor would pad on the left."""
    return save_internvl(tmp_path_factory.mktemp("internvl"))


@pytest.mark.parametrize("name", ["qwen", "ovis", "idefics", "gemma", "internvl"])
def test_rows_are_asked_as_scoring_asks(
    name: str, request: pytest.FixtureRequest, opinions: list[Opinion], tmp_path: Path
) -> None:
    rubric, folder = tmp_path / "asking.toml", request.getfixturevalue(name)
    # a space is a token of its own to Ovis' tiny tokenizer
    rubric.write_text(ASKING_TOML if name != "ovis" else ASKING_TOML.replace('"It is"', '""'))
    encoder = make_encoder(folder, str(rubric))
    samples = asking_samples(opinions[0], encoder.rubric, TEXTS)
    batch = encoder.batch(samples)
    assessor = load_assessor(str(folder), rubric=str(rubric), threads=1)
    assert isinstance(assessor, TransformersAssessor)
    image = read_image(samples[0].image, encoder.preparer)
    pixels = encoder.preparer.prepare(image)  # type: ignore[arg-type]
    wanted = assessor._encoder([pixels] * len(TEXTS), [{"prompt": text, "style": text} for text in TEXTS]).prompts
    tokens = [prompt.prefix + suffix for prompt in wanted for suffix in prompt.suffixes]
    for row, (sample, asked) in enumerate(zip(samples, tokens, strict=True)):
        place, length = int(batch.level_places[row]), int(batch.inputs["attention_mask"][row].sum())
        ids = batch.inputs["input_ids"][row]
        assert ids[:place].tolist() == list(asked), sample.texts
        said = encoder._processor.tokenizer.decode(ids[place:length]).strip()
        assert f"{sample.answer}{encoder.text.turn_end}".endswith(said)


@pytest.mark.parametrize("head", ["", 'parts = ["text", "image"]\nsystem = "Judge."'], ids=["plain", "turned"])
@pytest.mark.parametrize("name", ["qwen", "idefics"])
def test_written_answers_are_learnt_behind_what_writing_asks(
    name: str, head: str, request: pytest.FixtureRequest, opinions: list[Opinion], tmp_path: Path
) -> None:
    """Also behind a template that puts a space before an answer, which the model then writes itself."""
    folder = request.getfixturevalue(name)
    encoder = make_writing_encoder(folder, tmp_path, head)
    sample = TrainingSample(opinions[0].path, QUESTION, answer(3), "d")
    batch = encoder.batch([sample])
    assessor = load_assessor(str(folder), rubric=str(tmp_path / "rated.toml"), threads=1)
    assert isinstance(assessor, WritingAssessor)
    [prompt] = assessor._encoder([encoder.prepared(sample)]).prompts
    asked = [*prompt.prefix, *prompt.suffixes[0]]
    ids = batch.inputs["input_ids"][0].tolist()
    assert ids[: len(asked)] == asked
    carries = (batch.labels_NT[0] != IGNORED).tolist()
    assert carries == [False] * len(asked) + [True] * (len(ids) - len(asked))
    said = encoder._processor.tokenizer.decode(ids[len(asked) :])
    assert said.strip() == f"{answer(3)}{encoder.text.turn_end}"


def test_other_things_per_token_go_with_the_texts_and_padding_stands_behind() -> None:
    texts = [EncodedText("", (), (8,), None, None, tail, (7, 8)) for tail in ((4, 5, 6, 8), (8,))]
    inputs = {
        "input_ids": torch.tensor([[1, 1, 2, 7, 8], [1, 2, 7, 8, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]),
        "token_type_ids": torch.tensor([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]),
        "pixel_values": torch.zeros(2, 3),
    }
    found = with_own_texts(inputs, texts, 9)
    assert found["input_ids"].tolist() == [[1, 1, 2, 4, 5, 6, 8], [1, 2, 8, 9, 9, 9, 9]]
    assert found["attention_mask"].tolist() == [[1] * 7, [1, 1, 1, 0, 0, 0, 0]]
    assert found["token_type_ids"].tolist() == [[1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert found["pixel_values"] is inputs["pixel_values"]
    with pytest.raises(RunError, match="changed the tokens of a question"):
        with_own_texts(inputs, [replace(text, tail_of_text=(6, 8)) for text in texts], 9)


def test_a_token_that_holds_a_blank_and_a_digit_belongs_to_the_number(qwen: Path) -> None:
    rubric, processor = load_any_rubric("attributes-v1"), load_processor(qwen)
    assert isinstance(rubric, WrittenRubric)
    said = written_as([4.2, 3, 1.5, 2.25, 5], rubric.form, reasoning="4.2 is a number in words")
    text = SampleTexts(processor, rubric)(TrainingSample(Path("a.png"), rubric.question, said, "d"))
    numbers = processor.tokenizer.decode([text.answer_ids[place] for place in text.number_places])
    assert "".join(numbers.split()) == "4.203.001.502.255.00"
    assert text.answered(text.answer_ids[:3]).number_places == ()
