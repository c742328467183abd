"""`python -m iqa_core <command>` -> one door for the small commands, none of which needs Ray.

A command is one entry of COMMANDS: a line of help, its flags, and its function, which does the heavy imports.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from iqa_core.errors import CallerError, RunError, exit_code
from iqa_core.flags import StrictParser, json_object
from iqa_core.inspection.commands import check_flags, probe_flags, run_check, run_probe
from iqa_core.inspection.words import rubric_flags, run_rubric
from iqa_core.opinions.convert import convert_flags, run_convert
from iqa_core.reasons.commands import ratings_flags, run_ratings
from iqa_core.storage.outputs import local_output, require_file


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command."""

    summary: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Runs the command with its flags; the exit code."""


def _scenes_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=local_output, required=True, help="folder, new or empty")
    parser.add_argument("--count", type=int, default=500, help="number of images (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default %(default)s)")
    parser.add_argument(
        "--format", default="folder", help="folder, webdataset, parquet or sa-bench (default %(default)s)"
    )
    parser.add_argument("--size", type=int, default=112, help="pixels of a side (default %(default)s)")
    parser.add_argument("--image-format", default="png", help="png or jpeg (default %(default)s)")
    parser.add_argument(
        "--captions", action="store_true", help="each with a caption, which is true or false in one detail"
    )
    flaws = parser.add_mutually_exclusive_group()
    flaws.add_argument(
        "--flawed", action="store_true", help="each blurred, noisy, warped or the like, in one place or everywhere"
    )
    flaws.add_argument(
        "--local", action="store_true", help="the same in one cell of a grid, and in flaws.jsonl what and where"
    )
    parser.add_argument(
        "--texts", action="store_true", help="and what a writer would say of each, as answers of two written rubrics"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        help="standard deviation, in points, of what the numbers in those texts are off by (default %(default)g)",
    )


def _scenes(flags: argparse.Namespace) -> int:
    from iqa_core.demo.corpus import Extras, write_scenes

    extras = Extras(captions=flags.captions, texts=flags.texts, noise=flags.noise, flaw=flags.flawed, place=flags.local)
    written = write_scenes(flags.output, flags.count, flags.seed, flags.format, flags.size, flags.image_format, extras)
    named = " and ".join(["annotations", *extras.beside])
    print(
        f"{written.images:,} scenes of {flags.size} x {flags.size} ({written.num_bytes / 1e6:.1f} MB of "
        f"{flags.image_format}, {flags.format}) and their {named} in {flags.output}"
    )
    return 0


def _report_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scores", required=True, help="output of a scoring run; another one goes to --against")
    parser.add_argument("--against", help="output of another run over the same images, to compare with")
    parser.add_argument("--output", type=local_output, default="report.html", help="HTML file (default %(default)s)")
    parser.add_argument("--storage-options", type=json_object, default={}, help="JSON object passed to fsspec")


def _report(flags: argparse.Namespace) -> int:
    from iqa_core.report.scoring_report import scoring_report
    from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
    from iqa_core.storage.storage import Storage
    from iqa_core.tables.scores.score_table import open_score_table

    require_file(flags.output)
    storage = Storage(flags.storage_options)
    try:
        table = open_score_table(storage, flags.scores)
        against = None if flags.against is None else open_score_table(storage, flags.against)
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(str(error)) from error
    storage.put(str(flags.output.absolute()), scoring_report(table, against))
    print(f"report of {len(table.chunks):,} of {table.planned:,} chunks in {flags.output}")
    return 0


def _status_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", help="--output of a scoring run: a folder, or a URI of an object store")
    parser.add_argument("--verify", action="store_true", help="read the table: is every planned image there once?")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with all that is known")
    parser.add_argument("--storage-options", type=json_object, default={}, help="JSON object passed to fsspec")


def _status(flags: argparse.Namespace) -> int:
    from iqa_core.status import status
    from iqa_core.storage.storage import Storage

    return status(flags.output, Storage(flags.storage_options), flags.verify, flags.json)


COMMANDS = {
    "scenes": Command("make a corpus of synthetic interior scenes with known quality", _scenes_flags, _scenes),
    "check": Command("look for faults that give plausible scores and no error", check_flags, run_check),
    "probe": Command("show what a model computes for one prompt and image, as JSON", probe_flags, run_probe),
    "rubric": Command("write a rubric in a released judge's words, from your copy of it", rubric_flags, run_rubric),
    "convert": Command("write people's opinions in SA-BENCH's or our own format", convert_flags, run_convert),
    "ratings": Command("sum up how people rate what models wrote", ratings_flags, run_ratings),
    "status": Command("tell how far a scoring run is, and whether its table is true", _status_flags, _status),
    "report": Command("write the report of a score table, and compare it with another", _report_flags, _report),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 1 failed or found faults (`check`, `status --verify`), 2 a wrong call."""
    parser = StrictParser(prog="python -m iqa_core", description="Small commands.")
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, command in COMMANDS.items():
        command_parser = commands.add_parser(name, help=command.summary, description=command.summary)
        command.add_flags(command_parser)
        command_parser.set_defaults(run=command.run)

    def run() -> int:
        flags = parser.parse_args(argv)
        code: int = flags.run(flags)
        return code

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
