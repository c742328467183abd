"""Flags of `rubric` -> a released judge's words as a rubric's TOML, on standard output or in a file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.rubrics.load import parse_rubric
from iqa_core.rubrics.released import ReleasedWords, mr_iqa, q_insight, toml_text, visualquality_r1
from iqa_core.rubrics.released.mr_iqa_2 import read_mr_iqa_2
from iqa_core.rubrics.released.q_realign import read_q_realign
from iqa_core.rubrics.released.vqascore import RECOMMENDED, read_vqascore
from iqa_core.storage.outputs import local_output, require_file
from iqa_core.storage.storage import Storage

FORMS: Mapping[str, tuple[tuple[str, ...], Callable[[Path, str], ReleasedWords]]] = {
    "visualquality-r1": (visualquality_r1.FORMS, visualquality_r1.read_visualquality_r1),
    "q-insight": (q_insight.FORMS, q_insight.read_q_insight),
    "mr-iqa": (mr_iqa.FORMS, mr_iqa.read_mr_iqa),
}
"""Judges that are asked in several ways, of which the first is the default, and their readers."""

READERS: Mapping[str, Callable[[Path], ReleasedWords]] = {"q-realign": read_q_realign, "mr-iqa-2": read_mr_iqa_2}
"""Judges that are asked in one way, and their readers."""

JUDGES = ("q-realign", "vqascore", *FORMS, "mr-iqa-2")


def rubric_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `rubric`."""
    parser.add_argument("judge", choices=JUDGES, help="whose words")
    parser.add_argument(
        "folder", type=Path, help="your copy of its code, or a model's folder; it is parsed, and nothing of it runs"
    )
    parser.add_argument("--model", help=f"with vqascore: which of its models, such as qwen3vl (default {RECOMMENDED})")
    ways = "; ".join(f"{judge}: {', '.join(forms)}" for judge, (forms, _) in FORMS.items())
    parser.add_argument("--form", help=f"which way of asking; the first is the default ({ways})")
    parser.add_argument("--output", type=local_output, help="a .toml file (default: standard output)")


def run_rubric(flags: argparse.Namespace) -> int:
    """Print the rubric, or write it and print where each word stands; 0.

    Raises CallerError on words that are not where they were, that two places have otherwise, or that make no rubric.
    """
    if flags.output is not None:
        require_file(flags.output)
        if flags.output.suffix != ".toml":
            raise CallerError(f"--output {flags.output}: a rubric is a file that ends in .toml")
    reading = _read(flags.judge, flags.folder.expanduser(), flags.model, flags.form)
    text = toml_text(reading)
    parse_rubric(text.encode(), f"in the words of {flags.folder}")
    if flags.output is None:
        print(text, end="")
        return 0
    Storage().put(str(flags.output.absolute()), text.encode())
    width = max(len(what) for what, _ in reading.sources)
    print(*(f"{what:<{width}}  {place}" for what, place in reading.sources), *reading.notes, sep="\n")
    print(f"written in {flags.output}")
    return 0


def _read(judge: str, folder: Path, model: str | None, form: str | None) -> ReleasedWords:
    if not os.path.isdir(folder):  # a path of 300 letters too is none, where Path.is_dir raises
        raise CallerError(f"{folder} is no folder; give your copy of the code of {judge}, or a folder of its model")
    if form is not None and judge not in FORMS:
        raise CallerError(f"--form {form}: {judge} has one way of asking; leave it out")
    if judge == "vqascore":
        return read_vqascore(folder, RECOMMENDED if model is None else model)
    if model is not None:
        raise CallerError(f"--model {model}: {judge} asks all its models in the same words")
    if judge in READERS:
        return READERS[judge](folder)
    forms, read = FORMS[judge]
    if form is not None and form not in forms:
        raise CallerError(f"--form {form}: {judge} is asked as one of {', '.join(forms)}")
    return read(folder, forms[0] if form is None else form)
