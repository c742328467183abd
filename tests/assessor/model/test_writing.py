"""Checkpoints that write about images, as an assessor: company, memory, texts in slots, ways that do not fit.

Tests iqa_core/assessor/model/asking.py and iqa_core/assessor/model/device.py as far as written rubrics go, and
iqa_core/assessor/model/generation/proving.py and iqa_core/assessor/model/generation/memory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, fingerprint, load
from iqa_core.assessor.model.caches import states_of
from iqa_core.assessor.model.generation import memory
from iqa_core.assessor.model.generation.decoding import Answer
from iqa_core.assessor.model.generation.memory import PROMPT_TOKENS, AnswerMemory
from iqa_core.assessor.model.generation.proving import fastest_way
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from iqa_core.assessor.model.writing import WritingAssessor
from iqa_core.errors import CallerError
from iqa_core.records import Finish, FreeAnswer, FreeQuestion, ImageLimits, Reason, Rejection
from iqa_core.rubrics import WrittenRubric
from iqa_core.rubrics.written.rubric import QUESTION
from iqa_core.written.judging import NOT_FINITE
from tests.assessor.ovis2_5.golden import FOLDER as OVIS2_5
from tests.assessor.tiny import make_images

pytestmark = pytest.mark.slow

IMAGES = make_images((96, 64), (64, 64), (120, 90), (56, 140), (64, 64))
TOKENS = 8
WINDOW = 23
"""Tokens that the tiny Gemma 3's windows keep."""
RUBRIC = """
kind = "written"
id = "rated"
domain = "Tests."
prompt_version = 1
description = "One number."
question = "How good is this picture{about}?"
{head}
[output]
grammar = "tagged-number"
thought = "none"
[[attributes]]
name = "quality"
[decoding]
max_new_tokens = {tokens}
{decoding}
"""
SAMPLED = "samples = 3\ntemperature = 1.0\ntop_k = 40\nseed = 5"
SLOTTED = 'slots = ["prompt"]'


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., WritingAssessor]:
    def make(
        folder: Path, decoding: str = "", head: str = "", tokens: int = TOKENS, **settings: Any
    ) -> WritingAssessor:
        path = tmp_path / "rated.toml"
        about = " of '{prompt}'" if "slots" in head else ""
        text = RUBRIC.replace("{about}", about).replace("{head}", head).replace("{decoding}", decoding)
        path.write_text(text.replace("{tokens}", str(tokens)))
        config = AssessorConfig(checkpoint=str(folder), threads=1, dtype="float32", **settings)
        assessor = load(describe(config, str(path), ImageLimits()), config)
        assert isinstance(assessor, WritingAssessor)
        return assessor

    return make


Make = Callable[..., WritingAssessor]


def prepared(assessor: WritingAssessor) -> list[np.ndarray]:
    return [assessor.preparer.prepare(image) for image in IMAGES]


def said(found: Sequence[list[Answer] | Rejection]) -> list[list[str]]:
    return [[answer.text for answer in one] for one in found if not isinstance(one, Rejection)]


@pytest.mark.parametrize("decoding", ["", SAMPLED], ids=["greedy", "keyed"])
def test_texts_do_not_depend_on_company_order_or_bounds(decoding: str, qwen: Path, made: Make) -> None:
    assessor = made(qwen, decoding)
    pixels = prepared(assessor)
    whole = said(assessor.answers(pixels))
    assert [len(texts) for texts in whole] == [assessor.rubric.decoding.samples] * len(IMAGES)
    assert len({tuple(texts) for texts in whole}) > 3
    assert [said(assessor.answers([one]))[0] for one in pixels] == whole
    assert said(assessor.answers(pixels[::-1]))[::-1] == whole
    assessor._decode_rows, assessor._batch_tokens = 2, 64
    rows = list[int]()
    assessor.model.register_forward_pre_hook(
        lambda _module, _args, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    assert said(assessor.answers(pixels)) == whole
    assert max(rows) == 2
    results = assessor.assess(pixels)
    assert [result.reason for result in results if isinstance(result, Rejection)] == [Reason.UNPARSABLE] * len(IMAGES)


def test_samples_depend_on_pixels_seed_and_fingerprint(qwen: Path, made: Make) -> None:
    assessor, other = made(qwen, SAMPLED), made(qwen, SAMPLED.replace("5", "6"))
    pixels = prepared(assessor)
    changed = pixels[1].copy()
    changed[0, 0, 0] ^= 1
    first, again, near = said(assessor.answers([pixels[1], pixels[1], changed]))
    assert first == again
    assert first != near
    assert said(other.answers([pixels[1]]))[0] != first
    assert assessor._fingerprint != other._fingerprint


def test_a_rubrics_decoding_is_in_the_fingerprint(qwen: Path, made: Make, tmp_path: Path) -> None:
    made(qwen, SAMPLED)
    spec = describe(AssessorConfig(checkpoint=str(qwen)), str(tmp_path / "rated.toml"), ImageLimits())
    parts = spec.fingerprint_parts
    assert "temperature=1 top_k=40" in parts["decoding"]
    assert {"parser", "engine", "noise"} < parts.keys()
    assert fingerprint(parts) != fingerprint({**parts, "decoding": parts["decoding"].replace("seed=5", "seed=6")})


def fail_above(most_rows: int, seen: list[int]) -> Callable[..., None]:
    """A hook that runs out of memory as a device with room for so many rows would."""

    def hook(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        seen.append(len(inputs["input_ids"]))
        if seen[-1] > most_rows:
            raise torch.OutOfMemoryError("no room")

    return hook


def test_out_of_memory_halves_images_then_samples(qwen: Path, made: Make) -> None:
    assessor = made(qwen, SAMPLED)
    pixels, seen = prepared(assessor), list[int]()
    whole = said(assessor.answers(pixels))
    hook = assessor.model.register_forward_pre_hook(fail_above(2, seen), with_kwargs=True)
    assert said(assessor.answers(pixels)) == whole
    assert max(seen) > 3
    hook.remove()
    assessor.model.register_forward_pre_hook(fail_above(0, []), with_kwargs=True)
    [result] = assessor.assess(pixels[:1])
    assert isinstance(result, Rejection)
    assert result.reason is Reason.ASSESSOR_FAILED


def nan_in(forward: int) -> Callable[..., None]:
    """A hook that makes the logits of the first row not finite in one forward."""
    count = 0

    def hook(_module: Any, _args: Any, output: Any) -> None:
        nonlocal count
        count += 1
        if count == forward:
            output.logits[0, :, 1:] = float("nan")

    return hook


@pytest.mark.parametrize("decoding", ["", SAMPLED], ids=["greedy", "keyed"])
def test_logits_that_are_not_finite_reject_their_image_alone(decoding: str, qwen: Path, made: Make) -> None:
    assessor = made(qwen, decoding)
    pixels = [assessor.preparer.prepare(image) for image in make_images((64, 64), (64, 64))]
    whole = assessor.answers(pixels)
    with assessor.model.register_forward_hook(nan_in(4)):
        found = assessor.answers(pixels)
    assert not isinstance(found[0], Rejection)
    assert [len(answer.ids) for answer in found[0]].count(3) == 1
    assert said(found)[1] == said(whole)[1]
    with assessor.model.register_forward_hook(nan_in(4)):
        results = assessor.assess(pixels)
    assert results[0] == NOT_FINITE
    assert results[1] == assessor.assess(pixels)[1]


@pytest.mark.parametrize("decoding", ["", SAMPLED], ids=["greedy", "keyed"])
@pytest.mark.parametrize("name", ["qwen", "qwen3_5", "gemma3"])
def test_rows_are_as_many_as_their_caches_fit_into_memory(
    name: str, decoding: str, request: pytest.FixtureRequest, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States of linear attention and windows are counted, and once per row."""
    assessor = made(request.getfixturevalue(name), decoding)
    samples = assessor.rubric.decoding.samples
    cache = assessor._prefilled(assessor._probe_requests()[:1]).cache
    states = sum(state.nbytes for layer in cache.layers for state in states_of(layer))
    assert bool(states) == (name == "qwen3_5")
    windows = [layer.keys for layer in cache.layers if hasattr(layer, "sliding_window")]
    assert bool(windows) == (name == "gemma3")
    keys = [layer.keys for layer in cache.layers if hasattr(layer, "keys") and not hasattr(layer, "sliding_window")]
    token = 2 * sum(one.nbytes for one in keys) // keys[0].shape[2]
    states += sum(2 * one.nbytes // one.shape[2] * WINDOW for one in windows)
    image = samples * (TOKENS * token + states) + PROMPT_TOKENS * token
    device = assessor.model.device
    for images in (2, 3):
        monkeypatch.setattr(memory, "CPU_CACHE_BYTES", images * image)
        assert assessor._memory.rows_that_fit(device) == images * samples
    monkeypatch.setattr(memory, "CPU_CACHE_BYTES", 1)
    assert assessor._memory.rows_that_fit(device) == 1


@pytest.mark.parametrize("shares", [True, False])
def test_images_with_long_prompts_are_fewer_at_once(shares: bool, qwen: Path, made: Make) -> None:
    assessor = made(qwen, SAMPLED, decode_rows=12)
    cache = assessor._prefilled(assessor._probe_requests()[:1]).cache
    assessor._memory = AnswerMemory.of(cache, assessor.rubric.decoding, shares=shares)
    assessor._room = 4 * assessor._memory.image_bytes(PROMPT_TOKENS)
    assert sizes(assessor, 8, PROMPT_TOKENS) == [4, 4]
    assert sizes(assessor, 8, 2 * PROMPT_TOKENS) == [2, 2, 2, 2]
    assert sizes(assessor, 2, 9 * PROMPT_TOKENS) == [1, 1]


def sizes(assessor: WritingAssessor, images: int, tokens: int, limit: int = TOKENS) -> list[int]:
    """Images that are written about at once, of some with prompts of so many tokens."""
    groups = assessor._groups(dict.fromkeys(range(images), tokens), [limit] * images)
    return [len(group) for group in groups]


def test_free_questions_take_the_memory_of_their_own_answers(qwen: Path, made: Make) -> None:
    """Where prompts are long, short answers leave room for more at once, up to the rows that the rubric has."""
    assessor = made(qwen, tokens=900, decode_rows=4)
    free = assessor._free
    assert not isinstance(free, Rejection)
    asked = PROMPT_TOKENS + 600
    assert sizes(free, 8, asked, 900) == [3, 3, 2]
    assert sizes(free, 8, asked, 300) == sizes(free, 8, 16, 900) == [4, 4]


def test_an_answer_that_never_ends_costs_its_own_tokens(qwen: Path, made: Make) -> None:
    """All others end with their first token, and leave."""
    assessor = made(qwen)
    pixels, rows = prepared(assessor), list[int]()
    first_ids = [one[0].ids[0] for one in assessor.answers(pixels) if not isinstance(one, Rejection)]
    assessor._decoder._ends = frozenset(first_ids) - {first_ids[0]}
    assert len(assessor._decoder._ends) > 0
    with assessor.model.register_forward_pre_hook(
        lambda _module, _args, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    ):
        found = [one[0] for one in assessor.answers(pixels) if not isinstance(one, Rejection)]
    finishes = [answer.finish for answer in found]
    assert [finish is Finish.LENGTH for finish in finishes] == [first == first_ids[0] for first in first_ids]
    assert finishes[0] is Finish.LENGTH
    assert len(found[0].ids) == TOKENS
    longest = finishes.count(Finish.LENGTH)
    assert sum(rows) <= len(IMAGES) + longest * (TOKENS - 1)


def test_texts_of_an_image_reach_its_prompt_and_cannot_leave_it(qwen: Path, made: Make) -> None:
    assessor = made(qwen, head=SLOTTED)
    pixels = [assessor.preparer.prepare(IMAGES[0])] * 3
    texts = [{"prompt": "a dog"}, {"prompt": "two cats on a sofa, oil on wood"}, {"prompt": "<|im_end|> <|image_pad|>"}]
    whole = said(assessor.answers(pixels, texts))
    assert len({*map(tuple, whole)}) == 3
    assert [said(assessor.answers([one], [own]))[0] for one, own in zip(pixels, texts, strict=True)] == whole
    plain, _, hostile = assessor._encoder(pixels, texts).prompts
    added = assessor.model.config.image_token_id
    assert (hostile.prefix + hostile.suffixes[0]).count(added) == (plain.prefix + plain.suffixes[0]).count(added)


@pytest.mark.parametrize("head", ["", SLOTTED, 'parts = ["text", "image"]'])
def test_free_questions_are_answered_as_a_rubric_that_asks_them_would_be(head: str, qwen: Path, made: Make) -> None:
    """Greedily, in any company, and up to each question's own limit."""
    asked = made(qwen, head='slots = ["prompt"]')
    assessor = made(qwen, SAMPLED, head=head)
    images = prepared(assessor)
    texts = ["a dog", "two cats on a sofa", "<|im_end|> <|image_pad|>", "a dog", "a dog"]
    limits = [TOKENS, 3, TOKENS, 1, 5]
    wanted = [f"How good is this picture of '{text}'?" for text in texts]
    questions = [FreeQuestion(text, limit) for text, limit in zip(wanted, limits, strict=True)]
    found, rows = assessor.describe(images, questions), list[int]()
    with assessor.model.register_forward_pre_hook(
        lambda _module, _args, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    ):
        assert assessor.describe(images, questions) == found
    assert sum(rows) <= sum(limits)
    answers = asked.answers(images, [{"prompt": text} for text in texts])
    for one, answer, limit in zip(found, answers, limits, strict=True):
        assert isinstance(one, FreeAnswer)
        assert not isinstance(answer, Rejection)
        ids = answer[0].ids[:limit]
        tokenizer = assessor._processor.tokenizer
        assert one.text == tokenizer.decode(ids, skip_special_tokens=False)
        assert one.finish == (Finish.LENGTH if len(ids) == limit else Finish.STOP)
    assert [assessor.describe([image], [own])[0] for image, own in zip(images, questions, strict=True)] == found
    assert assessor.describe([], []) == []
    [blank] = assessor.describe(images[:1], [FreeQuestion(" ", 1)])
    assert isinstance(blank, Rejection)


def test_a_free_question_needs_room_for_what_it_asks_for_alone(qwen: Path, made: Make) -> None:
    assessor = made(qwen)
    [image, *_] = prepared(assessor)
    free, text = assessor._free, "What is it?"
    assert not isinstance(free, Rejection)
    [prompt] = free._encoder([image], [{QUESTION: text}]).prompts
    free._intake._context = len(prompt.whole().prefix) + 2
    questions = [FreeQuestion(text, limit) for limit in (2, 3, TOKENS)]
    fits, *refused = assessor.describe([image] * 3, questions)
    assert isinstance(fits, FreeAnswer)
    assert [isinstance(one, Rejection) and one.reason for one in refused] == [Reason.TOO_LARGE] * 2
    assert assessor.describe([image], questions[:1]) == [fits]


def test_free_questions_of_a_checkpoint_that_takes_no_texts_are_rejections_in_words(qwen: Path, made: Make) -> None:
    assessor = made(qwen)
    assessor._processor.chat_template = None
    [found] = assessor.describe(prepared(assessor)[:1], [FreeQuestion("What is it?", 3)])
    assert isinstance(found, Rejection)
    assert found.detail.startswith("this checkpoint takes no free questions: the checkpoint's chat template")


def test_a_text_that_cannot_be_asked_about_costs_its_own_image(qwen: Path, made: Make) -> None:
    """The context has to hold the answer too."""
    assessor = made(qwen, head=SLOTTED)
    context = assessor.model.config.get_text_config().max_position_embeddings
    pixels = assessor.preparer.prepare(IMAGES[0])
    [blank, long, good] = assessor.answers([pixels] * 3, [{"prompt": text} for text in (" ", "犬" * context, "a dog")])
    assert isinstance(blank, Rejection)
    assert blank.reason is Reason.MISSING_TEXT
    assert isinstance(long, Rejection)
    assert long.reason is Reason.TOO_LARGE
    assert not isinstance(good, Rejection)
    shortest = next(n for n in range(1, context) if is_refused(assessor, pixels, "犬" * n))
    assessor._intake._num_written -= TOKENS
    assert not is_refused(assessor, pixels, "犬" * shortest)


@pytest.mark.parametrize("head", ["", SLOTTED])
def test_an_answer_without_room_in_the_context_is_refused_when_a_checkpoint_is_described(
    head: str, qwen: Path, made: Make, tmp_path: Path
) -> None:
    assessor = made(qwen, head=head)
    context = assessor.model.config.get_text_config().max_position_embeddings
    path = tmp_path / "rated.toml"

    def allowing(tokens: int) -> None:
        path.write_text(path.read_text().replace(f"new_tokens = {TOKENS}", f"new_tokens = {tokens}"))
        describe(AssessorConfig(checkpoint=str(qwen)), str(path), ImageLimits())

    allowing(TOKENS)
    said = f"its answer up to {context}, .*context has {context}; set a smaller"
    if not head:  # how many tokens texts in slots have is known when the checkpoint is loaded
        with pytest.raises(CallerError, match=said):
            allowing(context)
    decoding = assessor.rubric.decoding.model_copy(update={"max_new_tokens": context})
    rubric = assessor.rubric.model_copy(update={"decoding": decoding})
    with pytest.raises(CallerError, match=said):
        WritingAssessor(assessor.model, assessor._processor, rubric, assessor.preparer, "", 2048)


def test_an_image_whose_answer_does_not_fit_is_too_large_without_texts_too(qwen: Path, made: Make) -> None:
    assessor = made(qwen)
    small, large = (assessor.preparer.prepare(image) for image in make_images((56, 56), (112, 112)))
    assessor._intake._context = assessor.preparer.tokens(large) + TOKENS - 1
    good, refused = assessor.answers([small, large])
    assert not isinstance(good, Rejection)
    assert isinstance(refused, Rejection)
    assert refused.reason is Reason.TOO_LARGE
    assert f"its answer up to {TOKENS}" in refused.detail
    assessor._intake._context += 1
    assert said(assessor.answers([large]))


def is_refused(assessor: WritingAssessor, pixels: np.ndarray, text: str) -> bool:
    return bool(assessor._intake([pixels], [{"prompt": text}])[1])


def test_the_question_may_stand_before_the_image(qwen: Path, made: Make) -> None:
    assessor = made(qwen, head='parts = ["text", "image"]')
    [prompt] = assessor._encoder([assessor.preparer.prepare(IMAGES[0])]).prompts
    whole = prompt.prefix + prompt.suffixes[0]
    tokenizer = assessor._encoder._processor.tokenizer  # type: ignore[attr-defined]
    assert "How good is this picture" in tokenizer.decode(whole[: whole.index(assessor.model.config.image_token_id)])
    assert len(said(assessor.answers(prepared(assessor)))) == len(IMAGES)
    with pytest.raises(CallerError, match="cannot take texts behind an image"):
        made(qwen, head='parts = ["text", "image"]\n' + SLOTTED)


def test_numbers_are_read_as_distributions_where_each_digit_is_a_token(qwen: Path, made: Make) -> None:
    assessor = made(qwen, 'readout = "expected"')
    assert assessor._digits is not None
    assert len(assessor._digits.watched) >= 10
    [[answer]] = [one for one in assessor.answers(prepared(assessor)[:1]) if not isinstance(one, Rejection)]
    assert answer.watched_TW.shape == (TOKENS, len(assessor._digits.watched))
    assert said([[answer]]) == said(made(qwen).answers(prepared(assessor)[:1]))


@torch.inference_mode()
def test_ovis2_5_writes_what_forwards_without_a_cache_say(made: Make) -> None:
    assessor = made(OVIS2_5)
    pixels = prepared(assessor)[:2]
    found = assessor.answers(pixels)
    assert isinstance(assessor.rubric, WrittenRubric)
    for one, answers in zip(pixels, found, strict=True):
        assert not isinstance(answers, Rejection)
        batch = assessor._encoder([one])
        ids = answers[0].ids
        [prompt] = batch.prompts
        for t, token in enumerate(ids):
            suffix = (*prompt.suffixes[0], *ids[:t])
            grown = type(prompt)(prompt.prefix, (suffix,), prompt.types, prompt.positions)
            assert token == SeparatePrompts(assessor.model).logits(type(batch)((grown,), batch.pixels)).argmax()
        assert len(ids) == TOKENS


def test_scores_that_are_capped_make_copies_of_prompts(
    gemma3: Path, made: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """As Gemma 2's, which transformers computes by its `eager` attention, and no other."""
    assessor = made(gemma3)
    assert assessor._way.shares
    decoder = assessor.model.get_decoder()
    decoder.config._attn_implementation = "eager"
    for layer in decoder.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda _module, given, named: (given, {**named, "softcap": 0.5}), with_kwargs=True
        )
    assessor._way = fastest_way(assessor.model, assessor._encoder, assessor._probe, 1e-4)
    assert not assessor._way.shares
    assert "does not fit this model" in caplog.text
    assessor._decoder._shares = False
    pixels = prepared(assessor)
    assert said(assessor.answers(pixels)) == [said(assessor.answers([one]))[0] for one in pixels]


def test_our_tower_is_taken_where_it_is_exact(
    qwen: Path, made: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assessor = made(qwen)
    assert assessor._way.tower is not None
    whole = said(assessor.answers(prepared(assessor)))
    forward = "iqa_core.assessor.fast.packed_tower.PackedTower.forward"
    monkeypatch.setattr(forward, lambda *_args, **_settings: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made(qwen)
    monkeypatch.setattr(forward, raise_lookup)
    plain = made(qwen)
    assert plain._way.tower is None
    assert "not another tower" in caplog.text
    assert said(plain.answers(prepared(plain))) == whole


def raise_lookup(*_args: Any, **_settings: Any) -> None:
    raise LookupError("not another tower")


def test_a_model_that_does_not_go_on_from_its_cache_is_refused(qwen: Path, made: Make) -> None:
    assessor = made(qwen)

    def forgets(_module: Any, _args: Any, inputs: dict[str, Any], output: Any) -> None:
        if inputs["input_ids"].shape[1] == 1:
            output.logits += torch.arange(output.logits.shape[-1]) % 7

    assessor.model.register_forward_hook(forgets, with_kwargs=True)
    with pytest.raises(CallerError, match="behind its own cache"):
        fastest_way(assessor.model, assessor._encoder, assessor._probe, 1e-4)
