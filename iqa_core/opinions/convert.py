"""`python -m iqa_core convert`: annotation files of any format -> SA-BENCH's JSONL, or our own table."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from iqa_core.addresses import parse_address
from iqa_core.errors import CallerError, RunError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import Opinion
from iqa_core.opinions.reliable import reliable
from iqa_core.opinions.terms import Terms
from iqa_core.opinions.writing import TABLES, write_sa_bench, write_table
from iqa_core.rubrics import load_rubric
from iqa_core.rubrics.sa_bench import KIND
from iqa_core.slots import TextLimits, columns_of
from iqa_core.storage.outputs import local_output, require_file, require_folder

OTHER_DIMENSION = "another dimension than --dimension"


def convert_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `convert`."""
    parser.add_argument(
        "--annotations", action="append", required=True, help="opinions, as in jobs/evaluate_assessor.py; repeatable"
    )
    parser.add_argument(
        "--output",
        required=True,
        help=f"{KIND}:<folder>, or a table of our own: a file that ends in {', '.join(TABLES)}",
    )
    parser.add_argument(
        "--rubric", action="append", default=[], help=f"with {KIND}: words of the lines; repeatable, one per version"
    )
    parser.add_argument("--split", choices=["train", "test", "full"], help=f"with {KIND}: which part it is (full)")
    parser.add_argument("--dimension", action="append", default=[], help="this dimension alone; repeatable")
    parser.add_argument(
        "--slot",
        action="append",
        default=[],
        help="slot=column: keep this column of texts, of our own tables; repeatable",
    )
    parser.add_argument("--min-raters", type=int, help="leave out opinions of fewer raters")
    parser.add_argument("--max-std", type=float, help="leave out opinions whose standard deviation, on 1..5, is larger")


def run_convert(flags: argparse.Namespace) -> int:
    """Write the opinions that were asked for, and print how many rows were left out for which reason; the exit code.

    Raises CallerError on flags or files that are of no use; RunError when the output could not be written whole.
    """
    try:
        output = parse_address(flags.output, frozenset({KIND}))
    except ValueError as error:
        raise CallerError(f"--output {flags.output}: {error}") from None
    if output.options:
        raise CallerError(f"--output {flags.output}: it takes no options")
    if bool(output.kind) != bool(flags.rubric):
        raise CallerError(f"{KIND}:<folder> needs a --rubric, whose words its lines have; a table has none")
    if flags.split and not output.kind:
        raise CallerError(f"--split belongs to --output {KIND}:<folder>")
    if flags.slot and output.kind:
        raise CallerError(f"--slot: the lines of {KIND} have no place for texts; write a table")
    terms = _terms(flags.slot)
    opinions = load_opinions(flags.annotations, terms=terms)
    asked, dropped = _asked(opinions.rows, flags.dimension)
    kept, unreliable = reliable(asked, flags.min_raters, flags.max_std)
    rubrics, path = [load_rubric(name) for name in flags.rubric], local_output(output.place).expanduser()
    (require_folder if output.kind else require_file)(path)
    try:
        if output.kind:
            written = write_sa_bench(kept, rubrics, path, flags.split or "full")
        else:
            write_table(kept, path, terms.columns)
            written = [path]
    except OSError as error:
        raise RunError(f"--output {flags.output} was not written whole ({error}); remove what is there of it") from None
    counts = Counter(opinion.dimension for opinion in kept)
    print(f"opinions   {len(kept):,} ({', '.join(f'{name} {count:,}' for name, count in counts.items())})")
    for reason, count in (Counter(opinions.dropped) + dropped + unreliable).items():
        print(f"left out   {count:,} with {reason}")
    for file in written:
        print(f"written    {file}")
    return 0


def _terms(given: list[str]) -> Terms:
    """Every opinion needs the texts of these slots, at full length. Raises CallerError as `columns_of` does."""
    slots = tuple(flag.partition("=")[0] for flag in given)
    return Terms(columns_of(given, slots, TextLimits()), TextLimits(sys.maxsize), all_slots=slots)


def _asked(opinions: tuple[Opinion, ...], dimensions: list[str]) -> tuple[list[Opinion], Counter[str]]:
    there = {opinion.dimension for opinion in opinions}
    if unknown := sorted(set(dimensions) - there):
        raise CallerError(f"--dimension {', '.join(unknown)}: the annotations are about {', '.join(sorted(there))}")
    kept = [opinion for opinion in opinions if not dimensions or opinion.dimension in dimensions]
    left_out = len(opinions) - len(kept)
    return kept, Counter({OTHER_DIMENSION: left_out} if left_out else {})
