"""Flags of `rubric` -> a released judge's words as a rubric's TOML, on standard output or in a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic import ValidationError

from iqa_core.errors import CallerError
from iqa_core.rubrics import Rubric
from iqa_core.rubrics.released import Reading, toml_text
from iqa_core.rubrics.released.q_realign import read_q_realign
from iqa_core.rubrics.released.vqascore import RECOMMENDED, read_vqascore
from iqa_core.storage.outputs import local_output, require_file
from iqa_core.storage.storage import Storage

JUDGES = ("q-realign", "vqascore")


def rubric_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `rubric`."""
    parser.add_argument("judge", choices=JUDGES, help="whose words")
    parser.add_argument(
        "folder", type=Path, help="your copy of its code, or a model's folder; it is parsed, and nothing of it runs"
    )
    parser.add_argument("--model", help=f"with vqascore: which of its models, such as qwen3vl (default {RECOMMENDED})")
    parser.add_argument("--output", type=local_output, help="a .toml file (default: standard output)")


def run_rubric(flags: argparse.Namespace) -> int:
    """Print the rubric, or write it and print where each word stands; 0.

    Raises CallerError on words that are not where they were, that two places have otherwise, or that make no rubric.
    """
    if flags.output is not None:
        require_file(flags.output)
        if flags.output.suffix != ".toml":
            raise CallerError(f"--output {flags.output}: a rubric is a file that ends in .toml")
    reading = _read(flags.judge, flags.folder.expanduser(), flags.model)
    if flags.output is None:
        print(toml_text(reading), end="")
        return 0
    Storage().put(str(flags.output.absolute()), toml_text(reading).encode())
    width = max(len(what) for what, _ in reading.sources)
    print(*(f"{what:<{width}}  {place}" for what, place in reading.sources), *reading.notes, sep="\n")
    print(f"written in {flags.output}")
    return 0


def _read(judge: str, folder: Path, model: str | None) -> Reading:
    if not folder.is_dir():
        raise CallerError(f"{folder} is no folder; give your copy of the code of {judge}, or of a model's folder")
    if judge == "vqascore":
        reading = read_vqascore(folder, RECOMMENDED if model is None else model)
    elif model is None:
        reading = read_q_realign(folder)
    else:
        raise CallerError(f"--model {model}: {judge} asks all its models in the same words")
    try:
        Rubric.model_validate(reading.content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'rubric'}: {e['msg']}" for e in error.errors())
        raise CallerError(f"the words of {judge} in {folder} make no rubric: {faults}") from None
    return reading
