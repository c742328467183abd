"""A checkout of MR-IQA -> a written rubric in its words.

It is asked for a number alone (`plain`) or for a thought and JSON (`thinking`). In training the first has a system turn
that its evaluation leaves out (`plain-training` asks with it).
"""

from __future__ import annotations

import ast
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.reading import ReleasedWords
from iqa_core.rubrics.released.source import Quote, Source, is_there, python_file
from iqa_core.rubrics.released.turns import flag_defaults, has_system_turn, order, template_arguments, user_turns
from iqa_core.rubrics.released.writers import Writer, written_reading

CODE = "src/mr_iqa"
USE, TRAINING, ONE_IMAGE = (f"{CODE}/{name}.py" for name in ("evaluate_mr_iqa", "train_mr_iqa", "infer_single_image"))
FORMS = ("plain", "thinking", "plain-training")
QUESTIONS = {"plain": ("NON_THINKING_PROMPT", "PROMPT"), "thinking": ("THINKING_PROMPT",)}
"""Names of the question in USE, of newer and older copies."""
IN_TRAINING = (("NON_THINKING_SYSTEM_PROMPT", "NON_THINKING_USER_PROMPT"), ("SYSTEM_PROMPT", "USER_PROMPT"))
"""Names of system and question in TRAINING, of newer and older copies."""
LIMIT = "max_new_tokens"
KEY = "rating"
PLAIN, THINKING = (
    {"grammar": "tagged-number", "thought": "none"},
    {"grammar": "tagged-json", "thought": "thinking"},
)


def read_mr_iqa(folder: Path, form: str = FORMS[0]) -> ReleasedWords:
    """The rubric; image and text are in evaluation's order. Raises CallerError when words are not where they were."""
    use, thinks = python_file(folder, USE), form == "thinking"
    system, question = _in_training(folder) if form == "plain-training" else _in_use(use, QUESTIONS[form])
    return written_reading(
        folder,
        Writer(
            id="mr-iqa" if form == "plain" else f"mr-iqa-{form}",
            description="MR-IQA's own question (arXiv 2606.29760).",
            system=system,
            question=question,
            parts=order(use, user_turns(use)),
            template=template_arguments(use),
            output=THINKING if thinks else PLAIN,
            label=KEY if thinks else None,
            asks_for=("<thinking>", "<answer>", f'"{KEY}"') if thinks else ("<answer>",),
            decoding=_decoding(folder, use, thinks),
            notes=_training_differs(folder) if form == "plain" and system is None else (),
        ),
    )


def _in_use(use: Source, names: tuple[str, ...]) -> tuple[Quote[str] | None, Quote[str]]:
    """System and question; the system stands beside the question's name in `return system, question`."""
    name = next((name for name in names if name in use.values), names[-1])
    question = use.text(use.assigned_once(name))
    returned = (node.value for node in use.nodes if isinstance(node, ast.Return))
    for pair in (value.elts for value in returned if isinstance(value, ast.Tuple) and len(value.elts) == 2):
        if isinstance(pair[1], ast.Name) and pair[1].id == name:
            gives_none = isinstance(pair[0], ast.Constant) and pair[0].value is None
            return None if gives_none else use.text(use.resolved(pair[0])), question
    if has_system_turn(use):
        raise CallerError(f"{use.file} has a system turn, and nothing returns its text with {name}: it is not known")
    return None, question


def _in_training(folder: Path) -> tuple[Quote[str], Quote[str]]:
    source = python_file(folder, TRAINING)
    newer, older = IN_TRAINING
    names = newer if newer[0] in source.values else older
    system, question = (source.text(source.assigned_once(name)) for name in names)
    return system, question


def _training_differs(folder: Path) -> tuple[str, ...]:
    if not is_there(folder, TRAINING):
        return ()
    system, _ = _in_training(folder)
    return (f"{system.place}, has a system turn for training: --form plain-training asks with it",)


def _decoding(folder: Path, use: Source, thinks: bool) -> dict[str, Quote[float]]:
    found = flag_defaults(use, (LIMIT, "temperature", "top_p"))
    return found | {LIMIT: _limit_of_thoughts(python_file(folder, ONE_IMAGE))} if thinks else found


def _limit_of_thoughts(source: Source) -> Quote[float]:
    """The x of `x if mode == "thinking" else y`."""
    for node in source.nodes:
        if isinstance(node, ast.IfExp) and isinstance(node.test, ast.Compare):
            compared = node.test.comparators[0]
            if isinstance(compared, ast.Constant) and compared.value == "thinking":
                return source.number(node.body)
    raise CallerError(f"{source.file} has no {LIMIT} for thinking any more, so how long it may write is not known")
