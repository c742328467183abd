"""A checkout of MR-IQA-2 -> a written rubric in the words of its actor, which answers with one object of JSON.

Its code has several such forms; the one with evidence and solution is read, which its weights are evaluated in.
"""

from __future__ import annotations

import ast
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.reading import ReleasedWords
from iqa_core.rubrics.released.source import Quote, Source, agreed, python_file, together
from iqa_core.rubrics.released.turns import flag_defaults, order, user_turns
from iqa_core.rubrics.released.writers import Writer, written_reading

WORDS, FIELDS = "actor/plugin/prompt_contract.py", "actor/plugin/actor_contract.py"
USE = "actor/scripts/eval_training_aligned_actor.py"
SCHEMA = "REASONING_EVIDENCE_SOLUTION_RATING_ACTOR_SCHEMA"
QUESTION, SYSTEM, THINKING = "USER_PROMPT_TEXT", "SYSTEM_PROMPT", "ENABLE_THINKING"
REASONING, PIXELS = "reasoning", "max_pixels"
SETTINGS = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty")


def read_mr_iqa_2(folder: Path) -> ReleasedWords:
    """The rubric. Raises CallerError when the words are not where they were."""
    words, fields, use = (python_file(folder, name) for name in (WORDS, FIELDS, USE))
    pixels = flag_defaults(use, (PIXELS,))[PIXELS]
    keys = together(fields.texts(fields.assigned_once("REASONING_FIELDS")))
    outer = together(fields.texts(fields.assigned_once("REASONING_RATING_FIELDS")))
    if len(outer.value) != 2 or outer.value[0] != REASONING:
        raise CallerError(f"{outer.place}: the answer has {', '.join(outer.value)}; it had {REASONING} and a number")
    number = outer.value[1]
    return written_reading(
        folder,
        Writer(
            id="mr-iqa-2",
            description="MR-IQA-2's own question to its actor (arXiv 2608.18579).",
            system=words.text(words.assigned_once(SYSTEM)),
            question=_question(words),
            parts=order(words, user_turns(words)),
            template={"enable_thinking": words.truth(words.assigned_once(THINKING))},
            output={"grammar": "json", "reasoning": list(keys.value), "quoted": True, "strip_prefix": True},
            label=number,
            asks_for=tuple(f'"{key}"' for key in (REASONING, *keys.value, number)),
            decoding=flag_defaults(use, SETTINGS),
            sources=(("keys of the answer", f"{outer.place}; {keys.place}"),),
            notes=(f"images have at most {pixels.value:.0f} pixels ({pixels.place}): --assessor.max-pixels",),
        ),
    )


def _question(words: Source) -> Quote[str]:
    """The question under `if ACTOR_SCHEMA == SCHEMA`."""
    branches = [node.body for node in words.nodes if isinstance(node, ast.If) and _is_schema(node.test)]
    assigned = [one for body in branches for one in body if isinstance(one, ast.Assign)]
    found = [words.text(one.value) for one in assigned if getattr(one.targets[0], "id", None) == QUESTION]
    if not found:
        raise CallerError(f"{words.file} has no {QUESTION} under {SCHEMA} any more: the words are not where they were")
    return agreed("question", found)


def _is_schema(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and any(getattr(one, "id", None) == SCHEMA for one in test.comparators)
