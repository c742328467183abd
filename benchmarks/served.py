"""Images per second of written answers at a server of chat completions over those of the assessor here: demo-written.

The same weights, rubric and new scenes of 112 x 112 on both sides, greedy, in turns. Here torch has one thread, the
server has what it was started with; PNG and HTTP count as its time. ENGINE_URL names it: it serves the weights of
`iqa_core/demo/written` as `demo-written` in float32. Not part of `make bench`.

vLLM wants `processor_class` to be `Qwen2_5_VLProcessor` in a copy's preprocessor_config.json and tokenizer_config.json.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import main
from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.protocol import Assessor
from iqa_core.demo.scenes import make_scene
from iqa_core.records import Assessment, ImageHeader, Rejection, RgbImage

SIDE, WARM, TIMED, TURNS = 112, 16, 64, 3
SEED = time.time_ns() % 2**31
"""Another in each run: a server has images that it saw before in its caches."""
RUBRIC = "interior-written-v1"


def measure() -> Mapping[str, Any]:
    url = os.environ.get("ENGINE_URL")
    if not url:
        raise SystemExit("ENGINE_URL: name a server that serves demo-written, such as http://localhost:8000")
    both = {
        "ours": load_assessor("demo-written", RUBRIC, dtype="float32", device="cpu", threads=1),
        "served": load_assessor("demo-written", RUBRIC, engine=f"openai:{url}"),
    }
    for assessor in both.values():
        timed(assessor, range(WARM))
    rates: dict[str, list[float]] = {name: [] for name in both}
    found: dict[str, list[Assessment | Rejection]] = {name: [] for name in both}
    for turn in range(TURNS):
        for name, assessor in both.items():
            rate, results = timed(assessor, range(WARM + turn * TIMED, WARM + (turn + 1) * TIMED))
            rates[name].append(round(rate, 2))
            found[name] += results
    return {
        "images_per_s": rates,
        "served_over_ours": statistics.median(b / a for a, b in zip(rates["ours"], rates["served"], strict=True)),
        **beside(found["ours"], found["served"]),
        "seed": SEED,
        "engine": dict(both["served"].versions),
    }


def timed(assessor: Assessor, indices: range) -> tuple[float, list[Assessment | Rejection]]:
    """Images per second of the assessor alone, and its results: scenes are drawn and prepared before."""
    prepared = [assessor.preparer.prepare(scene(index)) for index in indices]
    began = time.monotonic()
    results = assessor.assess(prepared)
    return len(prepared) / (time.monotonic() - began), results


def scene(index: int) -> RgbImage:
    return RgbImage(make_scene(SEED, index, SIDE).pixels_HWC, ImageHeader(SIDE, SIDE, "png", 1))


def beside(ours: list[Assessment | Rejection], served: list[Assessment | Rejection]) -> dict[str, float]:
    """How far answers of the two are apart, over images that both scored."""
    pairs = [
        (a, b) for a, b in zip(ours, served, strict=True) if isinstance(a, Assessment) and isinstance(b, Assessment)
    ]
    return {
        "images": len(ours),
        "scored_by_both": len(pairs),
        "same_text": sum(a.written == b.written for a, b in pairs) / len(pairs),
        "largest_difference": max(float(np.abs(a.scores_K - b.scores_K).max()) for a, b in pairs),
    }


if __name__ == "__main__":
    main("served", measure)
