"""Samples -> rows and labels: exactly the answer's tokens carry loss, on checkpoints of four architectures."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from iqa_core import demo
from iqa_core.assessor.prompts.chat import answer_joint, build_prompt
from iqa_core.assessor.prompts.level_tokens import level_token_ids
from iqa_core.errors import CallerError, RunError
from iqa_core.opinions.opinion import Opinion
from iqa_core.training.sample_encoder import IGNORED, PADDING, PatchedRows, SampleEncoder, read_image
from iqa_core.training.samples import TrainingSample, level_samples
from iqa_core.training.targets import TargetKind
from tests.assessor.tiny import save_paligemma
from tests.training.tasks import LevelEncoder, make_encoder
from tests.unlike import TRAINABLE_TOML

pytestmark = pytest.mark.slow


@pytest.fixture(params=["qwen", "qwen3", "ovis", "idefics"])
def encoder(request: pytest.FixtureRequest) -> LevelEncoder:
    return make_encoder(request.getfixturevalue(request.param))


def samples_of(encoder: LevelEncoder, opinions: list[Opinion]) -> list[TrainingSample]:
    return level_samples(opinions, encoder.rubric, "linear", {})


def test_only_answer_tokens_carry_loss(encoder: LevelEncoder, opinions: list[Opinion]) -> None:
    samples = samples_of(encoder, opinions[:6])
    tokenizer = encoder._processor.tokenizer
    batch = encoder.batch(samples)
    for row, sample in enumerate(samples):
        labels = batch.labels_NT[row]
        place = int(batch.level_places[row])
        assert labels[place] == IGNORED, "the level token has a loss of its own"
        carrying = labels != IGNORED
        carrying[place] = True
        said = tokenizer.decode(batch.inputs["input_ids"][row][carrying])
        assert said == sample.answer + encoder.text.turn_end
        assert (labels[carrying][torch.arange(int(carrying.sum())) != int(place - carrying.nonzero()[0])] >= 0).all()
        assert (batch.inputs["attention_mask"][row][carrying] == 1).all(), "padding carries no loss"


def test_the_level_token_stands_where_scoring_reads_it(encoder: LevelEncoder, opinions: list[Opinion]) -> None:
    [sample] = samples_of(encoder, opinions[:1])
    batch = encoder.batch([sample])
    place = int(batch.level_places[0])
    tokenizer = encoder._processor.tokenizer
    prompt = build_prompt(encoder._processor, encoder.rubric.questions[0], None)
    tail = tokenizer.encode(prompt, add_special_tokens=False)[-8:]
    assert batch.inputs["input_ids"][0][place - 8 : place].tolist() == tail
    assert sample.level is not None
    words = [tokenizer.decode([token]).strip() for token in batch.level_ids_NL[0].tolist()]
    assert words == list(encoder.rubric.levels)
    assert batch.targets_NL[0].tolist() == pytest.approx(sample.level.target)


def test_descriptions_carry_loss_on_all_of_their_words(encoder: LevelEncoder, opinions: list[Opinion]) -> None:
    text = TrainingSample(opinions[0].path, "What is wrong?", "The sofa floats above the floor.", "words")
    batch = encoder.batch([text, *samples_of(encoder, opinions[:1])])
    assert batch.level_rows.tolist() == [1]
    labels = batch.labels_NT[0]
    tokenizer = encoder._processor.tokenizer
    assert tokenizer.decode(labels[labels != IGNORED]) == text.answer + encoder.text.turn_end


def test_tokens_that_a_model_wrote_stand_where_an_answer_would(encoder: LevelEncoder, opinions: list[Opinion]) -> None:
    """They are its tokens, whatever a tokenizer would make of their text; rows are those of the same answers."""
    answers = ("The sofa floats above the floor.", "The rug.")
    texts = [TrainingSample(opinions[0].path, "What is wrong?", answer, "words") for answer in answers]
    wanted = encoder.batch(texts)
    written = [labels[labels != IGNORED].tolist() for labels in wanted.labels_NT]
    found = encoder.batch([replace(text, answer="The sofa.") for text in texts], written)
    assert torch.equal(found.labels_NT, wanted.labels_NT)
    assert found.inputs.keys() == wanted.inputs.keys()
    assert all(
        torch.equal(found.inputs[name], value) for name, value in wanted.inputs.items() if name != "pixel_values"
    )
    torch.testing.assert_close(found.inputs["pixel_values"], wanted.inputs["pixel_values"], rtol=0, atol=1e-5)


def test_rows_are_those_of_the_checkpoints_own_processor(encoder: LevelEncoder, opinions: list[Opinion]) -> None:
    samples = [
        replace(sample, max_pixels=bound)
        for sample, bound in zip(samples_of(encoder, opinions[:3]), (None, 80 * 80, 64 * 64), strict=True)
    ]
    encoder.batch(samples)
    texts, pictures = [encoder.text(sample) for sample in samples], [encoder.pixels(sample) for sample in samples]
    assert encoder._make_rows is not None
    found, wanted = encoder._make_rows(texts, pictures), encoder._processed(texts, pictures)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert value.dtype == wanted[name].dtype, name
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-5)


def test_rows_of_the_qwen_family_need_no_processor(
    qwen: Path, qwen3: Path, ovis: Path, opinions: list[Opinion]
) -> None:
    for checkpoint, is_quick in ((qwen, True), (qwen3, True), (ovis, False)):
        encoder = make_encoder(checkpoint)
        encoder.batch(samples_of(encoder, opinions[:1]))
        assert isinstance(encoder._make_rows, PatchedRows) == is_quick, checkpoint


def test_pictures_are_kept_up_to_a_bound(qwen: Path, opinions: list[Opinion]) -> None:
    known = make_encoder(qwen)
    samples = samples_of(known, opinions)
    encoder = SampleEncoder(known._processor, known.rubric, known.preparer, known.pixels(samples[0]).nbytes)
    other = next(sample for sample in samples if sample.image != samples[0].image)
    first = encoder.pixels(samples[0])
    assert encoder.pixels(other) is not encoder.pixels(other)
    assert encoder.pixels(samples[0]) is first


def test_expected_pictures_take_the_place_of_others(qwen: Path, opinions: list[Opinion]) -> None:
    known = make_encoder(qwen)
    first, second, third, *_ = {sample.image: sample for sample in samples_of(known, opinions)}.values()
    encoder = SampleEncoder(known._processor, known.rubric, known.preparer, 2 * known.pixels(first).nbytes)
    kept = [encoder.pixels(sample) for sample in (first, second)]
    encoder.expect([second, third])
    assert encoder.pixels(third) is encoder.prepared(third)
    assert encoder.pixels(second) is kept[1]
    assert encoder.pixels(first) is not encoder.pixels(first), "neither of the expected makes room"


def test_padding_stands_behind_and_is_counted(qwen: Path, opinions: list[Opinion]) -> None:
    encoder = make_encoder(qwen)
    short = TrainingSample(opinions[0].path, "?", "No.", "words")
    long = TrainingSample(opinions[0].path, "What is wrong with this room?", "Nothing at all is wrong.", "words")
    batch = encoder.batch([short, long])
    assert batch.real_tokens == int(batch.inputs["attention_mask"].sum())
    assert batch.real_tokens < batch.labels_NT.numel()
    lengths = batch.inputs["attention_mask"].sum(1).tolist()
    for sample, length in zip([short, long], lengths, strict=True):
        image = read_image(sample.image, encoder.preparer)
        assert encoder.tokens(sample, image.header) == length, "counted from the header alone"  # type: ignore[arg-type]


def test_a_row_with_tiles_is_counted_from_the_header_alone(idefics: Path, opinions: list[Opinion]) -> None:
    encoder = make_encoder(idefics)
    [sample] = samples_of(encoder, opinions[:1])
    image = read_image(sample.image, encoder.preparer)
    assert encoder.tokens(sample, image.header) == encoder.batch([sample]).real_tokens  # type: ignore[arg-type]


def test_a_shrunk_image_has_fewer_tokens(qwen: Path, opinions: list[Opinion]) -> None:
    encoder = make_encoder(qwen)
    [sample] = samples_of(encoder, opinions[:1])
    shrunk = replace(sample, max_pixels=84 * 84)
    assert encoder.batch([shrunk]).real_tokens == encoder.batch([sample]).real_tokens - 16 + 9


def test_an_answer_that_merges_with_the_prompt_is_refused(qwen: Path, tmp_path: Path) -> None:
    encoder = make_encoder(qwen)
    template = (
        "{% for m in messages %}{% for part in m.content %}{{ part.text or '<|image_pad|>' }}{% endfor %}{% endfor %}"
    )
    encoder._processor.chat_template = template
    merging = next(
        word
        for word in encoder._processor.tokenizer.get_vocab()
        if len(word) == 2 and word.isascii() and word.isalpha()
    )
    sample = TrainingSample(tmp_path / "x.png", merging[0], merging[1], "words")
    with pytest.raises(CallerError, match="merges the answer"):
        encoder.text(sample)


def test_an_image_that_vanished_stops_the_run(qwen: Path, tmp_path: Path) -> None:
    sample = TrainingSample(tmp_path / "gone.png", "?", "No.", "words")
    with pytest.raises(RunError, match=r"gone.png was readable when the run began, but now: missing"):
        make_encoder(qwen).batch([sample])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its processor
def test_a_processor_that_changes_answers_is_found_out(tmp_path: Path, opinions: list[Opinion]) -> None:
    """PaliGemma's puts a line break behind every prompt."""
    encoder = make_encoder(save_paligemma(tmp_path / "paligemma"), "interior-v2")
    with pytest.raises(RunError, match=r"PaliGemmaProcessor changed the tokens of an answer: .* cannot be trained"):
        encoder.batch(samples_of(encoder, opinions[:1]))


def test_the_chat_template_says_how_a_turn_ends(qwen: Path, idefics: Path) -> None:
    assert make_encoder(qwen).text.turn_end == "<|im_end|>"
    assert make_encoder(idefics).text.turn_end == "<end_of_utterance>"
    assert json.loads((qwen / "config.json").read_text())["model_type"] == "qwen2_5_vl"


@pytest.mark.parametrize(("name", "between"), [("qwen", ""), ("qwen", 'between = ""\n'), ("idefics", "")])
def test_answers_of_any_number_stand_where_scoring_reads_them(
    name: str, between: str, request: pytest.FixtureRequest, opinions: list[Opinion], tmp_path: Path
) -> None:
    (tmp_path / "unlike.toml").write_text(between + TRAINABLE_TOML)
    encoder = make_encoder(request.getfixturevalue(name), str(tmp_path / "unlike.toml"))
    processor, rubric = encoder._processor, encoder.rubric
    asked = [replace(opinions[0], dimension=question.name, mos=4.9) for question in rubric.questions]
    samples = level_samples(asked, rubric, "hard", {})
    batch = encoder.batch(samples)
    for row, question in enumerate(rubric.questions):
        prompt = build_prompt(processor, question, None)
        assert encoder.text(samples[row]).text.startswith(prompt)
        joint, count = answer_joint(processor, question, None), len(question.scale.answers)
        ids = level_token_ids(processor.tokenizer, prompt, question.scale.answers, joint)
        assert batch.level_ids_NL[row].tolist() == [*ids, *[PADDING] * (5 - count)]
        place = int(batch.level_places[row])
        tail = processor.tokenizer.encode(prompt, add_special_tokens=False)[-4:]
        assert batch.inputs["input_ids"][row, place - 4 : place + 1].tolist() == [*tail, ids[-1]], "the best answer"


def test_rows_of_a_rubric_of_five_levels_are_what_they_always_were(opinions: list[Opinion]) -> None:
    """A run that was begun earlier goes on with the same batches; taken anew with the demo's tokens."""
    encoder, digest = make_encoder(Path(demo.__file__).parent / "checkpoint"), hashlib.sha256()
    kinds: tuple[TargetKind, ...] = ("hard", "linear")
    for kind in kinds:
        batch = encoder.batch(level_samples(opinions[:8], encoder.rubric, kind, {"layout": 2.0}))
        values = [batch.labels_NT, batch.level_rows, batch.level_places, batch.level_ids_NL, batch.targets_NL]
        values += [batch.worths, batch.weights_N]
        values += [
            batch.inputs[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
        ]
        for value in values:
            digest.update(value.numpy().tobytes())
    assert digest.hexdigest()[:16] == "41bbb7a624286527"
