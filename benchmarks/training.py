"""Samples per second of the training job over those of a bare PyTorch loop: no Ray, no DeepSpeed, the same cores.

The demo assessor in float32 with its vision frozen; the bare loop has its images prepared beforehand. The job reports
as often as it does by default; its workers run at the bare loop's niceness, not at Ray's 15. Also the share of padding,
and the time of a checkpoint. With a GPU: tokens per second and FLOP utilisation of a 2B-shaped random model.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.harness import ROOT, main
from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.model.processors import load_processor
from iqa_core.demo.corpus import write_scenes
from iqa_core.training.objective import losses
from iqa_core.training.parts import apply_part_modes, set_training, trainable
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.schedule import Schedule
from iqa_core.training.task import TrainingTask
from jobs.command import parse
from jobs.training.job import checked
from jobs.training.settings import TrainSettings

IMAGES, STEPS, WARM = 200, 60, 5
THREADS = len(os.sched_getaffinity(0))
FLAGS = (
    f"--max-steps {STEPS} --global-batch 32 --micro-batch 16 --every {STEPS} --learning-rate 1e-4 "
    f"--precision fp32 --zero-stage 0 --targets linear --no-gradient-checkpointing --worker-cpus {THREADS}"
).split()

WIDTH, LAYERS, VOCABULARY, LENGTH, ROWS = 2048, 28, 152_000, 2048, 2
H200_FLOPS = 989e12
"""Dense bfloat16 of an H100 or H200, per NVIDIA's data sheet; figures of other GPUs are tokens per second only."""


def measure() -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder) / "in", IMAGES, seed=5)
        flags = ["--train", f"{folder}/in/annotations.csv", *FLAGS]
        task = checked(parse(TrainSettings, [*flags, "--output", f"{folder}/plan"])).task
        before = bare(task)
        records = job([*flags, "--output", f"{folder}/out"])
        after = bare(task)
    rate = statistics.median(record["samples_per_s"] for record in records[1:])  # the first has the start in it
    found = {
        "ratio": rate / ((before + after) / 2),
        "job_samples_per_s": rate,
        "bare_samples_per_s": [before, after],
        "padding": Schedule(task.recipe, [sample.tokens for sample in task.train]).padding(),
        "checkpoint_s": records[-1]["checkpoint_s"],
    }
    return found | (on_gpu() if torch.cuda.is_available() else {})


def job(flags: list[str]) -> list[dict[str, float]]:
    """The figures that the real job reports."""
    command = [sys.executable, str(ROOT / "jobs" / "train_sft.py"), *flags]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "RAY_worker_niceness": "0"})
    lines = (Path(flags[-1]) / "figures.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def bare(task: TrainingTask) -> float:
    """Samples per second, median over steps."""
    folder = materialise(task.base)
    model = load_model(folder, "float32", "cpu", THREADS)
    apply_part_modes(model, task.recipe)
    encoder = SampleEncoder(load_processor(folder), task.rubric, task.preparer)
    optimiser = torch.optim.AdamW(trainable(model).values(), lr=1e-4)
    schedule = Schedule(task.recipe, [sample.tokens for sample in task.train])
    prepared = [
        [encoder.batch([task.train[i] for i in piece]) for piece in schedule.micro_batches(step, 0, 1)]
        for step in range(WARM + 10)
    ]
    set_training(model)
    rates = []
    for batches in prepared:
        began = time.perf_counter()
        for batch in batches:
            (losses(model, batch, 1.0).weighted_sum / task.recipe.global_batch).backward()
        torch.nn.utils.clip_grad_norm_(trainable(model).values(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        rates.append(task.recipe.global_batch / (time.perf_counter() - began))
    return statistics.median(rates[WARM:])


def on_gpu() -> dict[str, Any]:
    """Forward, backward and AdamW of a Qwen3 of 2B shape, bfloat16 with activations computed twice."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
    )
    with torch.device("cuda"):
        model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(VOCABULARY, (ROWS, LENGTH), device="cuda")
    seconds = []
    for _ in range(WARM + 10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    rate = ids.numel() / statistics.median(seconds[WARM:])
    parameters = (
        sum(p.numel() for p in model.parameters()) - VOCABULARY * WIDTH
    )  # looking an embedding up is no product
    flops = 6 * parameters + 12 * LAYERS * 16 * 128 * LENGTH
    name = torch.cuda.get_device_name()
    is_known = "H100" in name or "H200" in name
    return {
        "gpu": name,
        "gpu_tokens_per_s": rate,
        "gpu_flop_utilisation": rate * flops / H200_FLOPS if is_known else None,
    }


if __name__ == "__main__":
    main("training", measure)
