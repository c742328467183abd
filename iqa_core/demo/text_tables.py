"""What is said of scenes -> the tables beside the images: answers for training, opinions on scenes as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from iqa_core.demo.caption_tables import write_csv
from iqa_core.demo.texts import PERCEPTION, SceneTexts, written_rubrics
from iqa_core.rubrics.written.rubric import OVERALL
from iqa_core.written.parsing import Parsed, parsed


def write_texts(output: Path, texts: Mapping[str, SceneTexts]) -> None:
    """Write quality.csv, opinions, chains.jsonl, what two writers say, and for each rubric its .jsonl, for training.

    texts: by the image's path below the folder.
    """
    rows = [{"image": image, "dimension": OVERALL, "mos": f"{said.quality:.4f}"} for image, said in texts.items()]
    write_csv(output / f"{OVERALL}.csv", rows)
    with (output / "chains.jsonl").open("w", encoding="utf-8") as file:
        for image, said in texts.items():
            for rater, answer in (("first", said.answers[PERCEPTION]), ("other", said.other)):
                file.write(json.dumps({"image": image, "rater": rater, **_chain(answer)}) + "\n")
    for name, rubric in written_rubrics().items():
        with (output / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for image, said in texts.items():
                row = {"query": rubric.question, "response": said.answers[name], "image": image}
                file.write(json.dumps(row) + "\n")


def _chain(answer: str) -> dict[str, str | float | None]:
    said = parsed(answer, written_rubrics()[PERCEPTION].form)
    assert isinstance(said, Parsed)
    return {"caption": said.caption, "reasoning": said.reasoning, "rating": said.values[0]}
