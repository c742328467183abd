"""Images per second of written answers over transformers' own `generate`, and what more samples and digits cost.

A Qwen2.5-VL of 7.4 million random parameters, with images of 448 x 448, and a checkpoint of the demo's kind with its
scenes of 112 x 112: 5 samples of 77 tokens, on one thread of the CPU.
What is compared takes turns, and medians are taken; seconds are the CPU's: on a shared machine no others mean anything.
`generate` runs the vision tower once per image and the text of its prompt once per sample.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.assessor import pictures, write_by_generate
from benchmarks.harness import add_written_flags, main
from benchmarks.model_shapes import SHAPES, Qwen2_5VLShape, Shape, make_prompts
from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.encoders.base import Encoder
from iqa_core.assessor.encoders.patches import PatchEncoder
from iqa_core.assessor.load import describe, own_limits
from iqa_core.assessor.model.generation.decoding import Decoder
from iqa_core.assessor.model.generation.prefill import Prefill, length
from iqa_core.assessor.model.generation.proving import Way
from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.model.prefix_sharing.strategy import FastTower
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import written_prompt
from iqa_core.demo.scenes import make_scene
from iqa_core.records import ImageHeader, RgbImage
from iqa_core.rubrics.written import Decoding, WrittenRubric
from iqa_core.written.keys import key_of

SAMPLES, TOKENS, QUESTION_TOKENS = 5, 77, 80
IMAGES, PREFILLED, REPEATS = 8, 4, 3
SEED, SIDE = 616, 112
BATCHES = (1, 2, 4, 8)
"""Images at once that `generate` is tried with; the best counts."""
TOP_K = 50
DIGITS = range(20)
"""Tokens that are watched where numbers are read as distributions: ten digits, each with and without a space."""


@dataclass
class Engine:
    """A Qwen2.5-VL that writes, and images of one size."""

    shape: Shape
    model: Any
    encoder: Encoder
    images: list[NDArray[np.uint8]]

    @classmethod
    def random(cls) -> Self:
        """Of random weights."""
        shape = SHAPES["tiny"]
        model = shape.make_model(torch.device("cpu"), torch.float32)
        encoder = shape.make_encoder(make_prompts(shape.image_text, (QUESTION_TOKENS,)), model)
        return cls(shape, model, encoder, pictures(IMAGES, shape.sides[0]))

    @classmethod
    def of_checkpoint(cls, checkpoint: str, rubric: str) -> Self:
        """Of a checkpoint that is asked along a written rubric about scenes of the demo."""
        config = AssessorConfig(checkpoint=checkpoint, dtype="float32")
        spec = describe(config, rubric, own_limits(config))
        assert isinstance(spec.rubric, WrittenRubric)
        folder = materialise(checkpoint)
        model, processor = load_model(folder, "float32", "cpu", threads=1), load_processor(folder)
        encoder = PatchEncoder(processor, [written_prompt(processor, spec.rubric, {})], model)
        header = ImageHeader(SIDE, SIDE, "png", 1)
        scenes = [RgbImage(make_scene(SEED, index, SIDE).pixels_HWC, header) for index in range(IMAGES)]
        vision, text = (getattr(model.config, half).to_dict() for half in ("vision_config", "text_config"))
        shape = Qwen2_5VLShape(vision, text, torch.float32, (SIDE,))
        return cls(shape, model, encoder, [spec.preparer.prepare(scene) for scene in scenes])


@dataclass
class Ours(Engine):
    """Prompts once per image, all samples of all images at once."""

    way: Way = field(init=False)

    def __post_init__(self) -> None:
        self.way = Way(self.model, self.encoder, FastTower.of(self.model, [self.encoder]), shares=True)

    @torch.inference_mode()
    def write(self, samples: int, watched: Sequence[int] = ()) -> None:
        decoding = Decoding(samples=samples, temperature=1, top_k=TOP_K, max_new_tokens=TOKENS)
        batches = [self.encoder(self.images[at : at + PREFILLED]) for at in range(0, IMAGES, PREFILLED)]
        width = max(length(prompt) for batch in batches for prompt in batch.prompts)
        prefilled = Prefill.join([self.way.prefilled(batch, width) for batch in batches])
        keys = [[key_of(i, sample) for sample in range(samples)] for i in range(IMAGES)]
        Decoder(self.model, decoding, lambda ids: "", watched=watched)(prefilled, keys)


class Theirs(Engine):
    """`generate` of transformers, with so many images at once."""

    @torch.inference_mode()
    def write(self, count: int) -> None:
        for at in range(0, IMAGES, count):
            batch = self.encoder(self.images[at : at + count])
            prompts = [prompt.whole().prefix for prompt in batch.prompts]
            how = {"do_sample": True, "top_k": TOP_K, "num_return_sequences": SAMPLES}
            write_by_generate(self.model, prompts, batch.pixels, TOKENS, **how)


def cpu_seconds(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median of each, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.process_time()
            run()
            found[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in found.items()}


def operations(engine: Engine, prefills: int) -> float:
    """Multiplications and additions for one image with its samples, whose prompt's text is computed so often."""
    text, [prompt] = engine.shape.text, engine.encoder(engine.images[:1]).prompts
    layers = engine.model.get_decoder().layers
    linear = 2 * sum(parameter.numel() for parameter in layers.parameters() if parameter.ndim == 2)
    attended = 4 * text["hidden_size"] * len(layers)
    size, head = length(prompt), 2 * text["hidden_size"] * text["vocab_size"]
    prefill = size * linear + attended * size**2 / 2 + head
    written = TOKENS * (linear + head + attended * (size + TOKENS / 2))
    return engine.shape.tower_operations(engine.shape.sides[0]) + prefills * prefill + SAMPLES * written


def compared(ours: Ours, theirs: Theirs) -> dict[str, float]:
    """Figures of one model, behind a warm-up: the first size of `generate` would bear what all first calls cost."""
    ours.write(1)
    theirs.write(1)
    sizes = {f"generate_{count}": partial(theirs.write, count) for count in BATCHES}
    best = min(taken := cpu_seconds(sizes, 1), key=lambda name: taken[name])
    runs = {
        "shared": partial(ours.write, SAMPLES),
        "expected": partial(ours.write, SAMPLES, DIGITS),
        "one": partial(ours.write, 1),
        "generate": sizes[best],
    }
    taken = cpu_seconds(runs, REPEATS)
    return {
        "images_per_s": IMAGES / taken["shared"],
        "shared_over_generate": taken["generate"] / taken["shared"],
        "counted": operations(ours, SAMPLES) / operations(ours, 1),
        "images_of_generate": int(best.removeprefix("generate_")),
        "n5_over_n1": taken["shared"] / taken["one"],
        "expected_over_parsed": taken["expected"] / taken["shared"],
    }


def measure(checkpoint: str, rubric: str) -> Mapping[str, Any]:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    written = compared(Ours.of_checkpoint(checkpoint, rubric), Theirs.of_checkpoint(checkpoint, rubric))
    return {**compared(Ours.random(), Theirs.random()), checkpoint: written}


if __name__ == "__main__":
    main("generation", measure, add_written_flags)
