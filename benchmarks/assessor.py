"""Images per second of the assessor against itself: one dimension, one prompt at a time, a generated sentence.

Without arguments: a Qwen2.5-VL of 6.4 million random parameters on the CPU, images of 448 x 448, four dimensions of 80
tokens; then the demo assessor at several sizes. On a GPU: --device cuda --shape qwen2.5-vl-7b, random weights of the
real size made on the device; this needs torch, transformers, numpy and Pillow alone.

What is compared takes turns within one run, and medians are taken: on a shared machine only ratios mean something.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.model_shapes import (
    SHAPES,
    decoder_operations,
    make_model,
    make_processor,
    make_prompts,
    tower_operations,
)
from iqa_core.assessor.encoding import EncodedBatch, PatchEncoder
from iqa_core.assessor.level_head import LevelHead
from iqa_core.assessor.prefix_sharing import PackedWay, PlainWay

DIMENSIONS, SUFFIX_TOKENS, ANSWER_TOKENS = 4, 80, 14
"""The last: of `The spatial aesthetic lighting quality level of this image is good.`"""
LEVEL_IDS = [11, 12, 13, 14, 15]


class Engine:
    """The parts of the assessor around a model of random weights."""

    def __init__(self, shape: str, device: torch.device, dtype: torch.dtype, num_prompts: int = DIMENSIONS) -> None:
        self.model = make_model(SHAPES[shape], device, dtype)
        self.full_head = self.model.get_output_embeddings()
        self.encoder = PatchEncoder(make_processor(), make_prompts(num_prompts, SUFFIX_TOKENS), self.model)
        self.model.set_output_embeddings(LevelHead(self.full_head, LEVEL_IDS))

    def packed(self) -> PackedWay:
        way = PackedWay.of(self.model, self.encoder)
        assert way is not None
        return way


def pictures(count: int, side: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def seconds(run: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def medians(runs: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Seconds of each, which take turns; the first round does not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            taken = seconds(run, device)
            if round_:
                found[name].append(taken)
    return {name: statistics.median(values) for name, values in found.items()}


@torch.inference_mode()
def generate(engine: Engine, batch: EncodedBatch) -> None:
    """What reading the level out of a generated sentence costs: the prompts without their answers' beginning, then
    the sentence token by token."""
    ends = [suffix[:-ANSWER_TOKENS] for suffix in batch.prompts[0].suffixes]
    for end in ends:
        ids = torch.tensor([[*batch.prompts[0].prefix, *end]], device=engine.model.device)
        types = (ids == engine.model.config.image_token_id).int()
        engine.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=types,
            **batch.pixels,
            max_new_tokens=ANSWER_TOKENS,
            min_new_tokens=ANSWER_TOKENS,
            do_sample=False,
        )


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a matrix product, the best of several sizes and tries."""
    best = 0.0
    for side in (1024, 2048) if device.type == "cpu" else (4096, 8192, 16384):
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        taken = min(seconds(lambda left=left, right=right: left @ right, device) for _ in range(6))
        best = max(best, 2 * side**3 / taken)
    return best


def measure_cpu(repeats: int) -> dict[str, Any]:
    device, dtype = torch.device("cpu"), torch.float32
    side, count = SHAPES["tiny"].sides[0], 4
    images = pictures(count, side)
    engine, single, untouched = (Engine("tiny", device, dtype, k) for k in (DIMENSIONS, 1, DIMENSIONS))
    rounded = Engine("tiny", device, torch.bfloat16)
    shared, one, plain, half = engine.packed(), single.packed(), PlainWay(untouched.model), rounded.packed()
    full = Engine("tiny", device, dtype)
    full.model.set_output_embeddings(full.full_head)

    def each(way: Any, encoder: PatchEncoder) -> None:
        for image in images:
            way.logits(encoder([image]))

    taken = medians(
        {
            "shared": partial(each, shared, engine.encoder),
            "one": partial(each, one, single.encoder),
            "separate": partial(each, plain, untouched.encoder),
            "generated": lambda: [generate(full, full.encoder([image])) for image in images],
            "bfloat16": partial(each, half, rounded.encoder),
        },
        repeats,
        device,
    )
    prompt = engine.encoder([images[0]]).prompts[0]
    operations = tower_operations(engine.model, side)
    operations += decoder_operations(engine.model, len(prompt.prefix), [len(suffix) for suffix in prompt.suffixes])
    rate = matrix_rate(device, dtype)
    return {
        "parameters": sum(p.numel() for p in full.model.parameters()),
        "images_per_s": count / taken["shared"],
        "k4_over_k1": taken["shared"] / taken["one"],
        "shared_over_separate": taken["separate"] / taken["shared"],
        "generated_over_shared": taken["generated"] / taken["shared"],
        "bfloat16_over_float32": taken["bfloat16"] / taken["shared"],
        "operations_per_image": operations,
        "matrix_rate": rate,
        "matrix_rate_fraction": operations * count / taken["shared"] / rate,
    }
