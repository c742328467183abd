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

LADDER_IMAGES = 20
"""Images of a ladder unless --limit says otherwise; each is scored 36 times."""


def check_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `check`."""
    _assessor_flags(parser)
    parser.add_argument("--rubric", help="as in the scoring job; default: what the checkpoint was trained on")
    parser.add_argument(
        "--ladder", type=Path, help="folder of images without labels: spoil them step by step, and see what falls"
    )
    parser.add_argument(
        "--output", type=local_output, help="with --ladder: folder for ladder.png, ladder.csv and ladder.json"
    )
    parser.add_argument("--limit", type=int, help=f"with --ladder: images to take (default {LADDER_IMAGES})")


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

    Raises CallerError on flags that do not go together, or a checkpoint that cannot be loaded.
    """
    from iqa_core.assessor.load import describe, fingerprint, own_limits
    from iqa_core.inspection.check import check
    from iqa_core.inspection.findings import failed, finding_lines

    if flags.ladder is None and (flags.output or flags.limit):
        raise CallerError("--output and --limit belong to --ladder")
    config = _config(flags)
    spec = describe(config, flags.rubric, own_limits(config))
    print(f"checkpoint     {flags.checkpoint}, {spec.fingerprint_parts['dtype']}")
    print(f"fingerprint    {fingerprint(spec.fingerprint_parts)}", flush=True)
    if flags.ladder is not None:
        if flags.output is None:
            raise CallerError("--ladder needs --output, a folder for the picture and the scores")
        from iqa_core.assessor.load import load

        require_folder(flags.output)
        _climb(load(spec, config), flags)
        return 0
    findings = check(spec, config)
    print(*finding_lines(findings), sep="\n")
    return 1 if failed(findings) else 0


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
    from iqa_core.inspection.ladder import climb, finest, images_in, ladder_lines, read_bounded, write_scores
    from iqa_core.inspection.ladder_picture import draw

    limit = LADDER_IMAGES if flags.limit is None else flags.limit
    paths = images_in(flags.ladder, limit)
    flags.output.mkdir(parents=True, exist_ok=True)
    ladder = climb(assessor, paths, lambda done: print(f"{done} of {len(paths)} images", file=sys.stderr))
    example = read_bounded(finest(ladder), assessor.preparer.limits)
    assert example is not None
    write_scores(ladder, flags.output)
    title = f"{flags.checkpoint} on {len(ladder.images)} images of {flags.ladder.name}"
    draw(ladder, example, title, flags.output / "ladder.png")
    rejected = f", {len(ladder.rejected)} left out (named in ladder.json)" if ladder.rejected else ""
    print(f"images         {len(ladder.images)}{rejected}")
    print("               Kendall's tau with strength (+1: falls at each step), change at the greatest strength\n")
    print(*ladder_lines(ladder), sep="\n")
    print(f"\npicture        {flags.output / 'ladder.png'}")
    print(f"scores         {flags.output / 'ladder.csv'}, {flags.output / 'ladder.json'}")
