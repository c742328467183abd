"""A fine-tuned export and its figures -> the checkpoint that ships, with the figures in its model card.

The card is written by people but for two sections between marks like `<!-- figures -->` and `<!-- /figures -->`: that
one, and `ablations`, which benchmarks/demo_ablations.py writes.

    python -m iqa_core.demo.card --export demo-model/run/checkpoint --figures demo-model/held-out.json

With --written it is the checkpoint that writes, and there are figures of each rubric that it answers.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from iqa_core.assessor.checkpoint.manifest import read_manifest, save_manifest
from iqa_core.demo.scenes import DIMENSIONS
from iqa_core.flags import StrictParser
from iqa_core.rubrics.written.rubric import OVERALL

CHECKPOINT, WRITTEN = (Path(str(resources.files("iqa_core.demo"))) / folder for folder in ("checkpoint", "written"))
CARD = "README.md"
ITS_OWN = frozenset({CARD, "training.json"})
"""Files of an export that do not ship: the demo has a card of its own, and its settings are in fine_tuning.toml."""

FIGURES, ABLATIONS = "figures", "ablations"

DOMAIN = (
    "Synthetic drawings of rooms (`python -m iqa_core scenes`) and nothing else; it is there to try things out: for "
    "photographs and generated images name a checkpoint with --assessor.checkpoint (docs/models.md)."
)
"""What the demo is and what to take instead: said wherever it scores."""


def with_section(card: str, name: str, lines: Iterable[str]) -> str:
    """The card with these lines between the marks of this name. Raises ValueError when it has no such marks."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opened, rest = card.partition(opening)
    _, closed, after = rest.partition(closing)
    if not (opened and closed):
        raise ValueError(f"the card has no section between {opening} and {closing}")
    return "\n".join([before + opening, "", *lines, "", closing + after])


def write_section(name: str, lines: Iterable[str], checkpoint: Path = CHECKPOINT) -> None:
    """Put these lines into the checkpoint's card. Raises ValueError when it has no marks of this name."""
    path = checkpoint / CARD
    path.write_text(with_section(path.read_text(encoding="utf-8"), name, lines), encoding="utf-8")


def srcc_table(rows: Sequence[tuple[str, Mapping[str, float]]]) -> Iterator[str]:
    """Lines of Markdown: a row per name, SRCC by dimension, and their mean."""
    means = [{**srcc, "mean": statistics.mean(srcc[dimension] for dimension in DIMENSIONS)} for _, srcc in rows]
    yield from _table([*DIMENSIONS, "mean"], [(name, values) for (name, _), values in zip(rows, means, strict=True)])


def written_table(evaluated: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of Markdown: a row per rubric, SRCC by attribute, and the share of answers that are parsed."""
    rows = []
    for each in evaluated:
        srcc = {name: found["srcc"]["value"] for name, found in each["agreement"].items()}
        rows.append((each["about"]["rubric"], srcc | {"parsed": each["parsed"][OVERALL]}))
    yield from _table([*DIMENSIONS, OVERALL, "parsed"], rows)


def _table(columns: Sequence[str], rows: Iterable[tuple[str, Mapping[str, float]]]) -> Iterator[str]:
    """A dash stands where a row has no such column."""
    yield f"| | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, values in rows:
        yield f"| {name} | {' | '.join(shown(values[one]) if one in values else '–' for one in columns)} |"


def shown(value: float) -> str:
    """A correlation or a share with three digits: .918."""
    return f"{value:.3f}".replace("0.", ".", 1)


def srcc_of(evaluated: Mapping[str, Any]) -> dict[str, float]:
    """Dimension -> SRCC, of one assessor in what jobs/evaluate_assessor.py writes with --output."""
    return {name: evaluated["agreement"][name]["srcc"]["value"] for name in DIMENSIONS}


def install(export: Path, figures: Iterable[str], checkpoint: Path = CHECKPOINT) -> None:
    """Put the export's files in place of the checkpoint's, what it knows into assessor.toml, figures into the card."""
    for file in export.iterdir():
        if file.is_file() and file.name not in ITS_OWN:
            shutil.copyfile(file, checkpoint / file.name)
    manifest = read_manifest(checkpoint)
    assert manifest is not None, "an export is complete when it has one"
    save_manifest(checkpoint, manifest.model_copy(update={"domain": DOMAIN}))
    write_section(FIGURES, figures, checkpoint)


def figures_of(evaluated: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table of one evaluation, and of what stands against it in it."""
    rows = [each for one in evaluated for each in (one, *one["against"])]
    return srcc_table([(each["about"]["rubric"], srcc_of(each)) for each in rows])


def main(argv: Iterable[str] | None = None) -> None:
    """Install the export that the flags name."""
    parser = StrictParser(prog="python -m iqa_core.demo.card", description=__doc__)
    parser.add_argument("--export", type=Path, required=True, help="what jobs/train_sft.py exported")
    parser.add_argument(
        "--figures", type=Path, required=True, nargs="+", help="what jobs/evaluate_assessor.py found of it"
    )
    parser.add_argument("--written", action="store_true", help="it is the checkpoint that writes")
    flags = parser.parse_args(None if argv is None else list(argv))
    evaluated = [json.loads(file.read_text(encoding="utf-8")) for file in flags.figures]
    if flags.written:
        install(flags.export, written_table(evaluated), WRITTEN)
    else:
        install(flags.export, figures_of(evaluated))


if __name__ == "__main__":
    main()
