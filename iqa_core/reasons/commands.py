"""`python -m iqa_core ratings`: a filled sheet of reasons -> a table for people, and JSON for programs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from iqa_core.agreement.figures import RESAMPLES, Figure
from iqa_core.errors import CallerError, RunError
from iqa_core.reasons.ratings import RatingSummary, read_sheet, summaries
from iqa_core.reasons.sheet import QUESTIONS
from iqa_core.storage.outputs import local_output, require_file


def ratings_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ratings`."""
    parser.add_argument("export", type=Path, help="JSON export of a Label Studio project that was made by --sheet")
    parser.add_argument("--output", type=local_output, help="JSON file for all figures")
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help="behind each interval; 0 for none (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="for the intervals (default %(default)s)")


def run_ratings(flags: argparse.Namespace) -> int:
    """Print what people think of each assessor's reasons; the exit code. Raises CallerError, RunError."""
    if flags.resamples < 0:
        raise CallerError(f"--resamples {flags.resamples}: it is 0, for no intervals, or more")
    if flags.output is not None:
        require_file(flags.output)
    sheet = read_sheet(flags.export)
    found = summaries(sheet.ratings, flags.resamples, flags.seed)
    for assessor, questions in found.items():
        print("\n".join([assessor, "", *_rows(questions), ""]))
    for count, what in ((sheet.unrated, "tasks without a rating"), (sheet.cancelled, "annotations that were skipped")):
        if count:
            print(f"left out   {count:,} {what}")
    if flags.output is not None:
        content = {
            "assessors": {name: {q: asdict(one) for q, one in of.items()} for name, of in found.items()},
            "unrated": sheet.unrated,
            "cancelled": sheet.cancelled,
        }
        try:
            flags.output.write_text(json.dumps(content, indent=2))
        except OSError as error:
            raise RunError(f"--output {flags.output} cannot be written: {error}") from None
    return 0


def _rows(questions: dict[str, RatingSummary]) -> Iterator[str]:
    yield "| statement | images | raters | ratings | mean, 1 to 5 | one rater (SRCC) |"
    yield "|---|---|---|---|---|---|"
    for question, one in questions.items():
        ceiling = _shown(one.ceiling.srcc) if one.ceiling is not None else "–"
        counts = f"{one.images:,} | {one.raters:,} | {one.ratings:,}"
        yield f"| {QUESTIONS[question]} | {counts} | {_shown(one.mean)} | {ceiling} |"


def _shown(figure: Figure) -> str:
    if figure.value is None:
        return "–"
    interval = "" if figure.low is None else f" [{figure.low:.2f}, {figure.high:.2f}]"
    return f"{figure.value:.2f}{interval}"
