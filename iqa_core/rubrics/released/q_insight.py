"""A checkout of Q-Insight -> a written rubric in the words that it rates one image in.

Its demonstration puts the question before the image (`use`), its training behind it (`training`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.reading import ReleasedWords
from iqa_core.rubrics.released.source import Source, is_there, python_file
from iqa_core.rubrics.released.turns import (
    Turn,
    asked_text,
    call_settings,
    has_system_turn,
    order,
    template_arguments,
    user_turns,
)
from iqa_core.rubrics.released.writers import Writer, written_reading

USE = "src/eval/demo_score.py"
TRAINING = "src/open-r1-multimodal/src/open_r1/qinsight_multi_task.py"
FORMS = ("use", "training")
QUESTION, SYSTEM = "SCORE_QUESTION_PROMPT", "SYSTEM_PROMPT"
KEY = "rating"


def read_q_insight(folder: Path, form: str = FORMS[0]) -> ReleasedWords:
    """The rubric; decoding is always the demonstration's. Raises CallerError when words are not where they were."""
    demonstration = python_file(folder, USE)
    asking = demonstration if form == "use" else python_file(folder, TRAINING)
    turns = user_turns(asking)
    parts = order(asking, turns)
    if form == "use":
        _check_asked(demonstration, turns)
    return written_reading(
        folder,
        Writer(
            id="q-insight" if form == "use" else f"q-insight-{form}",
            description="Q-Insight's own question about one image (arXiv 2503.22679).",
            system=asking.text(asking.assigned_once(SYSTEM)),
            question=asking.text(asking.assigned_once(QUESTION)),
            parts=parts,
            template=template_arguments(demonstration),
            output={"grammar": "tagged-json", "thought": "think"},
            label=KEY,
            asks_for=("<think>", "<answer>", f'"{KEY}"'),
            decoding=call_settings(demonstration),
            notes=_other_order(folder, form, parts.value),
        ),
    )


def _check_asked(demonstration: Source, turns: Sequence[Turn]) -> None:
    """Raises CallerError where the turns are not of the two texts that are read."""
    if not has_system_turn(demonstration):
        raise CallerError(f"{USE} has no system turn any more, so {SYSTEM} is not what is asked with")
    for turn in turns:
        asked = asked_text(demonstration, turn.text)
        if asked != demonstration.text(demonstration.assigned_once(QUESTION)):
            raise CallerError(f"{demonstration.place(turn.text)}: {QUESTION} is not what is asked any more")


def _other_order(folder: Path, form: str, taken: tuple[str, ...]) -> tuple[str, ...]:
    """A note where the file that is not asked by has image and text the other way round."""
    name, other = (TRAINING, "training") if form == "use" else (USE, "use")
    if not is_there(folder, name):
        return ()
    source = python_file(folder, name)
    parts = order(source, user_turns(source))
    if parts.value == taken:
        return ()
    return (f"{parts.place}, has the {parts.value[0]} before the {parts.value[1]}: --form {other} asks so",)
