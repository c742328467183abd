"""Flags of `check` and `probe` -> what they print, and the exit code. Heavy imports stay inside of the commands."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_core.errors import CallerError
from iqa_core.storage.outputs import local_output, require_folder

if TYPE_CHECKING:
    from iqa_core.assessor.config import AssessorConfig
    from iqa_core.assessor.protocol import Assessor
    from iqa_core.grounding.locating import Method

LADDER_IMAGES, GROUNDING_IMAGES = 20, 200
"""Images of a ladder, and of --grounding, unless --limit says otherwise; each is scored 36 times, and asked 6 times."""


def check_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `check`."""
    _assessor_flags(parser)
    parser.add_argument("--rubric", help="as in the scoring job; default: what the checkpoint was trained on")
    parser.add_argument(
        "--ladder", type=Path, help="folder of images without labels: spoil them step by step, and see what falls"
    )
    parser.add_argument(
        "--grounding",
        type=Path,
        help="folder of good images without labels: spoil a cell of each, and see whether it is found",
    )
    parser.add_argument(
        "--output",
        type=local_output,
        help="with --ladder or --grounding: folder for ladder.png, ladder.csv and ladder.json, or grounding.json",
    )
    parser.add_argument(
        "--limit",
        type=int,
        help=f"with --ladder or --grounding: images to take (default {LADDER_IMAGES}, {GROUNDING_IMAGES})",
    )
    parser.add_argument(
        "--best-quarter",
        action="store_true",
        help="with --grounding: score four times as many images first, and take the quarter with the best scores",
    )
    parser.add_argument(
        "--dimensions", help="with --grounding: which are asked, between commas (default: those marked as local)"
    )
    parser.add_argument(
        "--method", choices=["views", "tiles"], help="with --grounding: how parts are asked about (default views)"
    )
    parser.add_argument(
        "--min-fall",
        type=float,
        help="with --grounding: points of 1 to 5 by which a cell must be below the best to be named (default 0)",
    )


def probe_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `probe`."""
    _assessor_flags(parser)
    parser.add_argument("--image", type=Path, required=True, help="image file")
    parser.add_argument(
        "--system", type=_text, help="system prompt; default: that of args.json beside the weights, else none"
    )
    parser.add_argument(
        "--user",
        type=_text,
        required=True,
        help="the user's turn, in which <image> stands for the image, and \\n for a new line",
    )
    parser.add_argument("--answer-prefix", required=True, help="beginning of the answer, up to the level word")
    parser.add_argument(
        "--levels", default="excellent,good,fair,poor,bad", help="five words, best to worst (default %(default)s)"
    )


def _text(value: str) -> str:
    """The text with `\\n` made a new line, which is hard to type; nobody asks a model about a backslash."""
    return value.replace("\\n", "\n")


def _assessor_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", default="demo", help="folder, hub id or URI, as in the scoring job (default %(default)s)"
    )
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="default %(default)s")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: all usable CPUs)")


def _config(flags: argparse.Namespace) -> AssessorConfig:
    from iqa_core.assessor.config import AssessorConfig

    if flags.threads is not None and flags.threads < 1:
        raise CallerError(f"--threads {flags.threads}: give 1 or more")
    return AssessorConfig(checkpoint=flags.checkpoint, dtype=flags.dtype, device=flags.device, threads=flags.threads)


def run_check(flags: argparse.Namespace) -> int:
    """Print findings and a verdict; 0 pass, 1 fail. With --ladder, print and write how scores fall instead.

    With --grounding, whether flaws are found where they were put; 1 where none is, better than by chance.
    Raises CallerError on flags that do not go together, or a checkpoint that cannot be loaded.
    """
    from iqa_core.assessor.load import describe, fingerprint, load, own_limits
    from iqa_core.inspection.check import check
    from iqa_core.inspection.findings import failed, finding_lines

    _require_together(flags)
    config = _config(flags)
    spec = describe(config, flags.rubric, own_limits(config))
    print(f"checkpoint     {flags.checkpoint}, {spec.fingerprint_parts['dtype']}")
    print(f"fingerprint    {fingerprint(spec.fingerprint_parts)}", flush=True)
    if flags.output is not None:
        require_folder(flags.output)
    if flags.ladder is not None:
        _climb(load(spec, config), flags)
        return 0
    if flags.grounding is not None:
        return _ground(load(spec, config), fingerprint(spec.fingerprint_parts), flags)
    findings = check(spec, config)
    print(*finding_lines(findings), sep="\n")
    return 1 if failed(findings) else 0


def _require_together(flags: argparse.Namespace) -> None:
    """Raises CallerError on flags that do not go together."""
    if flags.ladder is not None and flags.grounding is not None:
        raise CallerError("--ladder and --grounding are two checks: run one after the other")
    if flags.ladder is None and flags.grounding is None and (flags.output or flags.limit):
        raise CallerError("--output and --limit belong to --ladder or --grounding")
    own = (flags.best_quarter, flags.dimensions, flags.method, flags.min_fall)
    if flags.grounding is None and any(value not in (None, False) for value in own):
        raise CallerError("--best-quarter, --dimensions, --method and --min-fall belong to --grounding")
    if flags.min_fall is not None and not 0 <= flags.min_fall <= 4:
        raise CallerError(f"--min-fall {flags.min_fall}: scores of 1 to 5 fall by 0 to 4")
    if flags.ladder is not None and flags.output is None:
        raise CallerError("--ladder needs --output, a folder for the picture and the scores")


def run_probe(flags: argparse.Namespace) -> int:
    """Print what the model computes as one JSON object; 0. Raises CallerError as `probe` does."""
    from iqa_core.inspection.probe import probe

    config = _config(flags)
    levels = flags.levels.split(",")
    found = probe(config, flags.image, flags.user, flags.answer_prefix, levels, flags.system)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


def _climb(assessor: Assessor, flags: argparse.Namespace) -> None:
    if find_spec("matplotlib") is None:
        raise CallerError("--ladder draws with matplotlib, which is not installed: pip install 'iqa-ray[plots]'")
    from iqa_core.inspection.ladder import climb, finest, ladder_lines, write_scores
    from iqa_core.inspection.ladder_picture import draw
    from iqa_core.inspection.own_images import images_in, read_bounded
    from iqa_core.records import Rejection

    limit = LADDER_IMAGES if flags.limit is None else flags.limit
    paths = images_in(flags.ladder, limit, "--ladder")
    flags.output.mkdir(parents=True, exist_ok=True)
    ladder = climb(assessor, paths, lambda done: print(f"{done} of {len(paths)} images", file=sys.stderr))
    example = read_bounded(finest(ladder), assessor.preparer.limits)
    assert not isinstance(example, Rejection)
    write_scores(ladder, flags.output)
    title = f"{flags.checkpoint} on {len(ladder.images)} images of {flags.ladder.name}"
    draw(ladder, example, title, flags.output / "ladder.png")
    rejected = f", {len(ladder.rejected)} left out (named in ladder.json)" if ladder.rejected else ""
    print(f"images         {len(ladder.images)}{rejected}")
    print("               Kendall's tau with strength (+1: falls at each step), change at the greatest strength\n")
    print(*ladder_lines(ladder), sep="\n")
    print(f"\npicture        {flags.output / 'ladder.png'}")
    print(f"scores         {flags.output / 'ladder.csv'}, {flags.output / 'ladder.json'}")


def _ground(assessor: Assessor, fingerprint: str, flags: argparse.Namespace) -> int:
    from iqa_core.grounding.locating import names_asked
    from iqa_core.grounding.verdict import RECORD
    from iqa_core.inspection.grounding import best_quarter, require_askable, self_test
    from iqa_core.inspection.grounding_results import self_test_lines
    from iqa_core.inspection.own_images import images_in

    limit = GROUNDING_IMAGES if flags.limit is None else flags.limit
    taken = images_in(flags.grounding, limit * (4 if flags.best_quarter else 1), "--grounding")
    names = flags.dimensions and flags.dimensions.split(",")
    method: Method = flags.method or "views"
    names_asked(assessor.rubric, names, "--dimensions")
    require_askable(assessor, names, method)  # before any image is scored
    paths = best_quarter(assessor, taken) if flags.best_quarter else taken
    test = self_test(
        assessor,
        paths,
        names,
        method=method,
        min_fall=flags.min_fall or 0.0,
        progress=lambda done: print(f"{done} of {len(paths)} images", file=sys.stderr),
    )
    left = "".join(f", {count} left out ({reason})" for reason, count in sorted(test.rejected.items()))
    print(f"images         {test.images}{left}")
    print(f"method         {test.method}, flaws from seed {test.seed}\n")
    print(*self_test_lines(test), sep="\n")
    if flags.output is not None:
        flags.output.mkdir(parents=True, exist_ok=True)
        path = flags.output / RECORD
        record = {"fingerprint": fingerprint, **test.record}
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"\nresults        {path}")
    return 0 if test.is_above_chance else 1
