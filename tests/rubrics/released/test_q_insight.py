"""Q-Insight's words from a copy of its code, with the text before the image in use and behind it in training."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.q_insight import TRAINING, USE, read_q_insight
from tests.rubrics.released.copies import line_of, write_copy
from tests.rubrics.released.writer_copies import DEMONSTRATION, Q_INSIGHT


def test_as_it_is_used(tmp_path: Path) -> None:
    words = read_q_insight(write_copy(tmp_path, Q_INSIGHT))
    assert words.content["system"] == "You muse in <think> </think>, and say it in <answer> </answer>."
    assert words.content["question"] == 'How sound is it, from 1 to 5? Write {"rating": number}.'
    assert words.content["parts"] == ["text", "image"]
    assert words.content["output"] == {"grammar": "tagged-json", "thought": "think"}
    assert words.content["attributes"][0]["label"] == "rating"
    decoding = words.content["decoding"]
    assert [decoding[name] for name in ("temperature", "top_k", "top_p", "max_new_tokens")] == [1.0, 40, 0.9, 700]
    assert dict(words.sources)["question"] == line_of(tmp_path, USE, "SCORE_QUESTION_PROMPT =")
    wanted = line_of(tmp_path, TRAINING, '"role": "user"')
    assert words.notes[0] == f"{wanted}, has the image before the text: --form training asks so"


def test_as_it_was_trained(tmp_path: Path) -> None:
    words = read_q_insight(write_copy(tmp_path, Q_INSIGHT), "training")
    assert words.content["parts"] == ["image", "text"]
    assert words.content["question"].startswith("How sound was it")
    assert words.content["system"].startswith("In training")
    assert words.content["decoding"]["top_k"] == 40
    assert words.notes[0].endswith("has the text before the image: --form use asks so")


def test_use_needs_no_training_code(tmp_path: Path) -> None:
    write_copy(tmp_path, {USE: DEMONSTRATION})
    assert not any("--form" in note for note in read_q_insight(tmp_path).notes)
    with pytest.raises(CallerError, match=r"qinsight_multi_task.py is not there"):
        read_q_insight(tmp_path, "training")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("SCORE_QUESTION_PROMPT =", "QUESTION =", "assigns to SCORE_QUESTION_PROMPT nowhere"),
        ('"rating"', '"mark"', 'names "rating"'),
        ("<think>", "<muse>", "names <think>"),
        ("1 to 5", "1 to 10", "the words name the numbers 1, 10, and named 1 and 5"),
        ("1 to 5?", "1 to 10, 5 is fair?", "the words name the numbers 1, 5, 10"),
        ('"role": "system"', '"role": "tool"', "has no system turn any more"),
        ('"text": SCORE_QUESTION_PROMPT', '"text": SYSTEM_PROMPT', "SCORE_QUESTION_PROMPT is not what is asked"),
        ('"text": SCORE_QUESTION_PROMPT', '"text": given', "SCORE_QUESTION_PROMPT is not what is asked"),
        ('"role": "user"', '"role": "tool"', "no user's turn of one image and one text"),
        ("temperature=1.0", "temperature=-1.0", "a plain number is expected"),
        ("GenerationConfig(", "GenerationConfig(penalty_alpha=0.6, ", "penalty_alpha is set for decoding"),
    ],
)
def test_words_that_have_moved(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in DEMONSTRATION
    write_copy(tmp_path, {USE: DEMONSTRATION.replace(old, new)})
    with pytest.raises(CallerError, match=said):
        read_q_insight(tmp_path)
