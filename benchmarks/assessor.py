"""Images per second of the assessor against itself: one dimension, one prompt at a time, a generated sentence.

Without arguments: a Qwen2.5-VL of 7.4 million random parameters on the CPU, images of 448 x 448, four dimensions of 80
tokens; four dimensions of a tiny Qwen3.5; checklists of 64 and 256 questions; the demo assessor at several sizes. On a
GPU: --device cuda --shape ovis2.5-9b or qwen2.5-vl-7b, random weights of the real size made on the device; this needs
torch, transformers, numpy and Pillow alone.

What is compared takes turns within one run, and medians are taken: on a shared machine only ratios mean something.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.model_shapes import SHAPES, make_prompts
from iqa_core.assessor.encoders.base import EncodedBatch
from iqa_core.assessor.model.level_head import LevelHead
from iqa_core.assessor.model.prefix_sharing.cached import PrefixCaching
from iqa_core.assessor.model.prefix_sharing.packed import PackedSequences
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from iqa_core.flags import StrictParser

DIMENSIONS, SUFFIX_TOKENS, ANSWER_TOKENS = 4, 80, 14
"""The last: of `The spatial aesthetic lighting quality level of this image is good.`"""
LEVEL_IDS = [11, 12, 13, 14, 15]


class Engine:
    """The parts of the assessor around a model of random weights."""

    def __init__(
        self,
        shape: str,
        device: torch.device,
        dtype: torch.dtype,
        suffixes: Sequence[int] = (SUFFIX_TOKENS,) * DIMENSIONS,
    ) -> None:
        self.shape = SHAPES[shape]
        self.model = self.shape.make_model(device, dtype)
        self.full_head = self.model.get_output_embeddings()
        prompts = make_prompts(self.shape.image_text, suffixes)
        self.encoder = self.shape.make_encoder(prompts, self.model)
        self.model.set_output_embeddings(LevelHead(self.full_head, LEVEL_IDS))

    def packed(self) -> PackedSequences:
        strategy = PackedSequences.of(self.model, [self.encoder])
        assert strategy is not None
        return strategy


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
    """What reading the level out of a generated sentence costs: prompts without their answers' beginning, then the
    sentence token by token."""
    for suffix in batch.prompts[0].suffixes:
        prompt = [*batch.prompts[0].prefix, *suffix[:-ANSWER_TOKENS]]
        write_by_generate(engine.model, [prompt], batch.pixels, ANSWER_TOKENS, do_sample=False)


def write_by_generate(
    model: Any, prompts: Sequence[Sequence[int]], pixels: Mapping[str, torch.Tensor], tokens: int, **how: Any
) -> None:
    """So many tokens behind each prompt by transformers' `generate`. prompts: ids, of one length. how: its settings."""
    ids = torch.tensor(prompts, device=model.device)
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        **pixels,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        **how,
    )


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a matrix product, the best of several sizes and tries."""
    best = 0.0
    for side in (1024, 2048) if device.type == "cpu" else (4096, 8192, 16384):
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        taken = min(seconds(partial(torch.matmul, left, right), device) for _ in range(6))
        best = max(best, 2 * side**3 / taken)
    return best


def operations(engine: Engine, side: int) -> tuple[float, float]:
    """Of the tower and of the packed decoder, for one image with all its prompts."""
    prompt = engine.encoder(pictures(1, side)).prompts[0]
    suffixes = [len(suffix) for suffix in prompt.suffixes]
    return engine.shape.tower_operations(side), engine.shape.decoder_operations(len(prompt.prefix), suffixes)


def measure_cpu(repeats: int) -> dict[str, Any]:
    device, dtype = torch.device("cpu"), torch.float32
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)
    side, count = SHAPES["tiny"].sides[0], 2
    images = pictures(count, side)
    four, one, plain = (Engine("tiny", device, dtype, (SUFFIX_TOKENS,) * k) for k in (DIMENSIONS, 1, DIMENSIONS))
    rounded, full = Engine("tiny", device, torch.bfloat16), Engine("tiny", device, dtype)
    full.model.set_output_embeddings(full.full_head)
    strategies = {
        "shared": (four.packed(), four.encoder),
        "one": (one.packed(), one.encoder),
        "separate": (SeparatePrompts(plain.model), plain.encoder),
        "bfloat16": (rounded.packed(), rounded.encoder),
    }
    runs: dict[str, Callable[[], object]] = {
        name: partial(lambda strategy, encoder: strategy.logits(encoder(images)), *pair)
        for name, pair in strategies.items()
    }
    runs["generated"] = lambda: [generate(full, full.encoder([image])) for image in images]
    taken = medians(runs, repeats, device)
    counted, rate = sum(operations(four, side)), matrix_rate(device, dtype)
    return {
        "shape": "tiny",
        "parameters": sum(p.numel() for p in full.model.parameters()),
        "images_per_s": count / taken["shared"],
        "k4_over_k1": taken["shared"] / taken["one"],
        "shared_over_separate": taken["separate"] / taken["shared"],
        "generated_over_shared": taken["generated"] / taken["shared"],
        "bfloat16_over_float32": taken["bfloat16"] / taken["shared"],
        "operations_per_image": counted,
        "matrix_rate": rate,
        "matrix_rate_fraction": counted * count / taken["shared"] / rate,
        "hybrid_shared_over_separate": measure_hybrid(repeats),
        "checklists": {number: measure_checklist(number, repeats) for number in (64, 256)},
        **measure_demo(),
    }


def measure_hybrid(repeats: int) -> float:
    """`shared_over_separate` of a tiny Qwen3.5, whose cache is repeated for the four dimensions."""
    device, images = torch.device("cpu"), pictures(2, 448)
    shared, plain = (Engine("tiny-qwen3.5", device, torch.float32) for _ in range(2))
    caching, separate = PrefixCaching(shared.model, [shared.encoder]).commit(), SeparatePrompts(plain.model)
    runs: dict[str, Callable[[], object]] = {
        "shared": lambda: caching.logits(shared.encoder(images)),
        "separate": lambda: separate.logits(plain.encoder(images)),
    }
    taken = medians(runs, repeats, device)
    return taken["separate"] / taken["shared"]


def measure_checklist(number: int, repeats: int) -> dict[str, float]:
    """So many yes-or-no questions of 12 to 20 tokens on one image, over one of them: time, tokens, operations.

    Tokens are those of the language model alone; operations are those of the tower too. The largest difference of a
    probability is that from one forward per question.
    """
    device, image = torch.device("cpu"), pictures(1, SHAPES["tiny"].sides[0])
    sizes = [12 + k % 9 for k in range(number)]
    many, one, plain = (Engine("tiny", device, torch.float32, given) for given in (sizes, [16], sizes))
    strategies = {"many": (many.packed(), many.encoder), "one": (one.packed(), one.encoder)}
    runs: dict[str, Callable[[], object]] = {
        name: partial(lambda strategy, encoder: strategy.logits(encoder(image)), *pair)
        for name, pair in strategies.items()
    }
    taken = medians(runs, repeats, device)
    measured = taken["many"] / taken["one"]
    counted = sum(operations(many, SHAPES["tiny"].sides[0])) / sum(operations(one, SHAPES["tiny"].sides[0]))
    expected = SeparatePrompts(plain.model).logits(plain.encoder(image)).softmax(-1)
    found = strategies["many"][0].logits(many.encoder(image)).softmax(-1)
    return {
        "measured": measured,
        "counted_tokens": tokens_of(many, image) / tokens_of(one, image),
        "counted_operations": counted,
        "measured_over_counted": measured / counted,
        "largest_difference": float((found - expected).abs().max()),
    }


def tokens_of(engine: Engine, image: list[NDArray[np.uint8]]) -> int:
    """Tokens of the language model for one image: prefix and all suffixes."""
    prompt = engine.encoder(image).prompts[0]
    return len(prompt.prefix) + sum(map(len, prompt.suffixes))


def measure_demo(count: int = 64) -> dict[str, Any]:
    """The demo assessor through its public face: the share of time inside the model, and what fewer pixels cost."""
    from scipy.stats import spearmanr

    from iqa_core.assessor.direct import load_assessor
    from iqa_core.demo.scenes import DIMENSIONS as NAMES
    from iqa_core.demo.scenes import make_scene
    from iqa_core.records import Assessment, ImageHeader, RgbImage

    scenes = [make_scene(424_242, index) for index in range(count)]
    header = ImageHeader(112, 112, "png", 1)
    srcc: dict[int, float] = {}
    share, waste = 1.0, 0.0
    for max_pixels in (112 * 112, 84 * 112):  # the least that the demo's processor allows
        assessor: Any = load_assessor("demo", max_pixels=max_pixels)
        prepared = [assessor.preparer.prepare(RgbImage(scene.pixels_HWC, header)) for scene in scenes]
        assessor.assess(prepared[:8])
        inside = TimeInside(assessor.model)
        began = time.perf_counter()
        results = assessor.assess(prepared)
        share = min(share, inside.seconds / (time.perf_counter() - began))
        waste = max(waste, assessor.tokens.waste)
        scores = np.stack([result.scores_K for result in results if isinstance(result, Assessment)])
        found = [
            spearmanr(scores[:, k], [scene.truths[name] for scene in scenes]).statistic for k, name in enumerate(NAMES)
        ]
        srcc[max_pixels] = float(np.mean(found))
    return {"model_share": share, "padding_waste": waste, "srcc_by_max_pixels": srcc}


class TimeInside:
    """Seconds that a module's forward takes, added up."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.seconds = 0.0
        self._began = 0.0
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end)

    def _begin(self, *_: object) -> None:
        self._began = time.perf_counter()

    def _end(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


def measure_device(shape: str, name: str, price_per_hour: float, repeats: int) -> dict[str, Any]:
    """Random weights of a real size: rate, cost, utilisation, memory, the tower's share, and the largest batch."""
    device = torch.device(name)
    engine = Engine(shape, device, SHAPES[shape].dtype)
    strategy = engine.packed()
    rate = matrix_rate(device, SHAPES[shape].dtype)
    record: dict[str, Any] = {"shape": shape, "matrix_rate": rate, "images": {}}
    if device.type == "cuda":
        record["device"] = torch.cuda.get_device_name(device)
    for side in SHAPES[shape].sides:
        record["images"][side] = measure_side(engine, strategy, side, rate, price_per_hour, repeats)
    return record


def measure_side(
    engine: Engine, strategy: PackedSequences, side: int, rate: float, price_per_hour: float, repeats: int
) -> dict[str, Any]:
    device = engine.model.device
    tower, decoder = operations(engine, side)
    best: dict[str, Any] = {}
    largest = 0
    for count in (1, 2, 4, 8, 16, 32, 64, 128, 256) if device.type == "cuda" else (1, 2, 4):
        images = pictures(count, side)
        try:
            taken = medians({"all": partial(_encode_and_score, engine, strategy, images)}, repeats, device)["all"]
        except torch.OutOfMemoryError:
            break
        largest = count
        if count / taken > best.get("images_per_s", 0.0):
            batch = engine.encoder(images)
            seeing = medians({"tower": partial(_see, engine, batch)}, repeats, device)["tower"]
            best = {
                "images_per_s": count / taken,
                "batch": count,
                "utilisation": count * (tower + decoder) / taken / rate,
                "tower_share": seeing / taken,
                "cost_per_million": price_per_hour / 3600 * taken / count * 1e6,
            }
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {**best, "operations_per_image": tower + decoder, "largest_batch": largest, "memory_gib": memory}


def _encode_and_score(engine: Engine, strategy: PackedSequences, images: list[NDArray[np.uint8]]) -> object:
    return strategy.logits(engine.encoder(images))


@torch.inference_mode()
def _see(engine: Engine, batch: EncodedBatch) -> object:
    return engine.shape.see(engine.model, batch.pixels)


def main() -> None:
    parser = StrictParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--device", help="cuda or cpu; without it the comparison on the CPU")
    parser.add_argument(
        "--shape", choices=sorted(set(SHAPES) - {"tiny-qwen3.5"}), default="qwen2.5-vl-7b", help="with --device"
    )
    parser.add_argument("--price-per-hour", type=float, default=3.0, help="of the device, in any currency")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.device:
        record = measure_device(given.shape, given.device, given.price_per_hour, given.repeats)
    else:
        record = measure_cpu(given.repeats)
    record = {"benchmark": "assessor", **record, "torch": torch.__version__}
    print(json.dumps(record) if given.json else json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
