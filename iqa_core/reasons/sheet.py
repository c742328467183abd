"""What models wrote about images -> a sheet on which people rate it, for Label Studio.

A rater sees image, texts and numbers, and not whose they are: that stands in the task's data, where `ratings` finds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

QUESTIONS: Mapping[str, str] = {
    "true": "What is said is true of the picture",
    "complete": "What matters for its quality is said",
    "follows": "The number follows from what is said",
}
"""Name of each rating -> the statement that is rated from 1 (not at all) to 5 (wholly)."""

MOST = 5
"""Stars of a rating."""


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer that people are to rate."""

    image: str
    """Path or URI, as Label Studio is to open it."""
    caption: str | None
    reasoning: str | None
    scores: Mapping[str, float]
    """Dimension -> score on 1 (worst) to 5 (best)."""
    assessor: str
    """Whose answer it is; not shown."""


def files(answers: Iterable[Rated]) -> dict[str, bytes]:
    """Name of a file -> its bytes: the tasks, and the labelling interface that shows them."""
    tasks = [{"data": _data(answer)} for answer in answers]
    return {
        "tasks.json": json.dumps(tasks, ensure_ascii=False, allow_nan=False, indent=1).encode(),
        "label_config.xml": _interface().encode(),
    }


def _data(answer: Rated) -> dict[str, Any]:
    said = [text for text in (answer.caption, answer.reasoning) if text]
    numbers = ", ".join(f"{name} {score:.2f}" for name, score in answer.scores.items())
    return {"image": answer.image, "said": "\n\n".join(said), "numbers": numbers, "assessor": answer.assessor}


def _interface() -> str:
    rows = [
        '  <Image name="image" value="$image"/>',
        '  <Text name="said" value="$said"/>',
        '  <Text name="numbers" value="$numbers"/>',
    ]
    for name, statement in QUESTIONS.items():
        rows += [
            f"  <Header value={quoteattr(statement)}/>",
            f'  <Rating name={quoteattr(name)} toName="said" maxRating="{MOST}" required="true"/>',
        ]
    rows.append('  <TextArea name="remark" toName="said" placeholder="What is wrong with it?" rows="2"/>')
    return "\n".join(["<View>", *rows, "</View>", ""])
