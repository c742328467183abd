"""The demo's fine-tuning in other ways, one change at a time, from the same base: what each does to held-out agreement.

Prompt 4 against 1, soft targets against hard ones, the whole language model against LoRA; and fitted fusion weights
against equal ones, on preferences made from known weights. The table goes into the model card, whatever it shows.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.harness import ROOT
from iqa_core.agreement import Floats, spearman
from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.demo.base import HELD_OUT_SEED
from iqa_core.demo.card import ABLATIONS, shown, srcc_table, write_section
from iqa_core.demo.corpus import write_scenes
from iqa_core.demo.scenes import DIMENSIONS
from iqa_core.flags import StrictParser
from iqa_core.opinions.load import load_opinions
from iqa_core.preferences.bradley_terry import fit_weights, judge, splits
from iqa_core.records import Assessment

RECIPE = ROOT / "iqa_core" / "demo" / "fine_tuning.toml"
TRAINING_SEED = 1
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "prompt 4, linear targets, full": {},
    "prompt 1": {"rubric": "interior-v1"},
    "hard targets": {"targets": "hard"},
    "LoRA of rank 16": {"language": "lora"},
}

PAIRS, FIT, JUDGED, SPLITS = 1000, 750, 250, 10
LIKED = np.array([0.4, 0.1, 0.2, 0.3])
"""Weights of the truths behind the made-up preferences."""
DECIDED = 4.0
"""Log-odds of a preference per point of difference."""


def train(folder: Path, base: str, changes: Mapping[str, Any]) -> Path:
    """The exported checkpoint of one variant. Other prompts' words are left out: each variant knows its own alone."""
    recipe = {name: value for name, value in tomllib.loads(RECIPE.read_text()).items() if name != "text"}
    places = {"base": base, "train": [str(folder.parent / "train" / "annotations.csv")], "output": str(folder)}
    settings = {**recipe, **places, **changes}
    config = folder.with_suffix(".toml")
    config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    subprocess.run([sys.executable, str(ROOT / "jobs" / "train_sft.py"), "--config", str(config)], check=True)
    return folder / "checkpoint"


def scores_of(checkpoint: Path, images: list[Path]) -> Floats:
    """Scores (images, dimensions). Raises AssertionError on an image without."""
    found = assess_images(load_assessor(str(checkpoint)), images)
    assert all(isinstance(each, Assessment) for each in found)
    return np.array([each.scores_K for each in found if isinstance(each, Assessment)], dtype=np.float64)


def fusion(scores_NK: Floats, truths_NK: Floats) -> str:
    """How often a reward agrees with preferences that it was not fitted on, in words."""
    random = np.random.default_rng(0)
    first_P, second_P = (random.integers(len(scores_NK), size=PAIRS) for _ in range(2))
    odds_P = DECIDED * (truths_NK[first_P] - truths_NK[second_P]) @ LIKED
    shares_P = (random.random(PAIRS) < 1 / (1 + np.exp(-odds_P))).astype(np.float64)
    differences_PK = scores_NK[first_P] - scores_NK[second_P]
    right: dict[str, list[float]] = {"fitted": [], "equal": []}
    for fit, held in splits([""] * PAIRS, FIT, JUDGED, SPLITS, seed=0):
        fitted_K = fit_weights(differences_PK[fit], shares_P[fit])
        for name, weights_K in (("fitted", fitted_K), ("equal", np.ones(len(DIMENSIONS)))):
            right[name].append(judge(differences_PK[held] @ weights_K, shares_P[held], 0.0, 1).ties_half)
    fitted, equal = (statistics.mean(right[name]) for name in ("fitted", "equal"))
    return (
        f"Fusion: of {JUDGED} held-out preferences, made from weights {', '.join(f'{w:g}' for w in LIKED)} of the "
        f"truths, fitted weights get {shown(fitted)} right and equal ones {shown(equal)} (mean of {SPLITS} splits)."
    )


def main() -> None:
    parser = StrictParser(description=__doc__)
    parser.add_argument("--base", default="demo-model/base", help="checkpoint to fine-tune (default %(default)s)")
    parser.add_argument("--scenes", type=int, default=700, help="to train on (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=300, help="to judge on (default %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("demo-model/ablations"))
    flags = parser.parse_args()
    shutil.rmtree(flags.folder, ignore_errors=True)
    write_scenes(flags.folder / "train", flags.scenes, TRAINING_SEED)
    write_scenes(flags.folder / "held-out", flags.held_out, HELD_OUT_SEED)
    truths = load_opinions([str(flags.folder / "held-out" / "annotations.csv")])
    truths_NK = np.array([row.mos for row in truths.rows]).reshape(-1, len(DIMENSIONS))

    found, scores = [], {}
    for number, (name, changes) in enumerate(VARIANTS.items()):
        checkpoint = train(flags.folder / f"variant-{number}", flags.base, changes)
        scores[name] = scores_of(checkpoint, list(truths.images))
        srcc = {each: spearman(scores[name][:, k], truths_NK[:, k]) for k, each in enumerate(DIMENSIONS)}
        found.append((name, srcc))
        print(name, srcc, flush=True)
    title = (
        f"SRCC on {flags.held_out:,} held-out scenes after one epoch of {flags.scenes:,} scenes, asked in the words of "
        "one prompt alone; one change at a time to the first row:"
    )
    lines = [title, "", *srcc_table(found), "", fusion(next(iter(scores.values())), truths_NK)]
    write_section(ABLATIONS, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
