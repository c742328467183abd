"""Nothing -> the base of the demo assessor: a vision tower that sees what is true, and words that answer questions.

Stage 1 trains the vision tower with linear heads: one on the mean of the visual tokens regresses the four truths, one
on each token what is true there (how much of it is spoilt, its colour, the furniture). The language model's gradient
alone is too thin for the tower (13 minutes of it gave SRCC .17 for layout and .02 for distortion), and a tower that has
only seen whole pictures spoilt does not notice a spoilt quarter. Half of the scenes carry a flaw (demo/flaws.py). Stage
2 trains the whole model to complete answers with one word: the level words of all rubrics, where a distortion is, and
whether statements about furniture and colours are true. It cannot say an answer's sentence by itself: that is what
`jobs/train_sft.py` teaches it, with the vision tower frozen.

Steps decide when to stop, not minutes, so a seed gives the same checkpoint again on the same machine, also when it was
stopped on the way and went on with --resume.

    python -m iqa_core.demo.base --output base

Arrays: N images, H height, W width, C channels, K questions, A answers, T visual tokens, D model width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from iqa_core.assessor.manifest_writing import write_manifest
from iqa_core.demo.blueprint import (
    FRAMES,
    MERGE,
    PATCH,
    SIZE,
    VISUAL_TOKENS,
    make_config,
    make_image_processor,
    make_tokenizer,
)
from iqa_core.demo.cpu_speed import speed_up
from iqa_core.demo.keeper import Keeper
from iqa_core.demo.lessons import COLOUR, FACTS, SPOILT, THINGS, UNKNOWN, Lessons, joined, render
from iqa_core.demo.prompts import PLACES, STATEMENTS, Prompts, rubric_questions
from iqa_core.demo.scenes import DIMENSIONS
from iqa_core.flags import StrictParser
from iqa_core.records import FIVE_LEVELS
from iqa_core.rubrics import load_rubric

RUBRICS = ("interior-v1", "interior-v2", "interior-v3", "interior-v4")
ASKED_EARLY = {"interior-v1": 0.3, "interior-v2": 0.3, "places": 0.15, "statements": 0.25}
"""The short rubrics have a third of the tokens, so three times the steps a minute: 60 % of stage 2 use them alone."""
ASKED_LATE = {f"interior-v{version}": share for version, share in ((1, 0.1), (2, 0.1), (3, 0.1), (4, 0.45))}
ASKED_LATE |= {"places": 0.1, "statements": 0.15}
VISION_BATCH, TEXT_BATCH = 64, 32
STATEMENTS_A_STEP = 4
HELD_OUT_SEED, HELD_OUT = 1_000_003, 500
VISION, TEXT = "vision", "text"


class Learner(torch.nn.Module):
    """The model, and the linear heads that its tower is trained with and that are thrown away afterwards."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2VLImageProcessorPil) -> None:
        super().__init__()
        width = model.config.text_config.hidden_size
        self.model, self.processor = model, processor
        self.truths, self.facts = torch.nn.Linear(width, len(DIMENSIONS)), torch.nn.Linear(width, FACTS)

    def look(self, lessons: Lessons) -> tuple[torch.Tensor, torch.Tensor]:
        """Visual tokens (N, T, D), and the heads' loss: mean squares in points of 1..5 but for colours and things."""
        seen_NTD = see(self.model, self.processor, lessons.images_NHWC)
        points = FIVE_LEVELS.best - FIVE_LEVELS.worst
        truths = functional.mse_loss(self.truths(seen_NTD.mean(1)).float(), lessons.truths_NK - FIVE_LEVELS.middle)
        found, facts = self.facts(seen_NTD).float(), lessons.facts_NRSF.flatten(1, 2)
        errors = ((found - facts) ** 2).mean((0, 1))
        dense = points**2 * errors[SPOILT].mean() + 0.25 * errors[COLOUR].mean() + points * errors[THINGS].mean()
        return seen_NTD, truths + dense


def see(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2VLImageProcessorPil, images_NHWC: torch.Tensor
) -> torch.Tensor:
    """Visual tokens (N, T, D) of uint8 images of SIZE x SIZE; patches lie as the image processor lays them."""
    n, grid = len(images_NHWC), SIZE // PATCH // MERGE
    pixels = (images_NHWC.float() / 255 - torch.tensor(processor.image_mean)) / torch.tensor(processor.image_std)
    pixels = pixels.view(n, grid, MERGE, PATCH, grid, MERGE, PATCH, 3).permute(0, 1, 4, 2, 5, 7, 3, 6)
    patches = pixels.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, FRAMES, -1, -1).flatten(0, 4).flatten(1)
    grids = torch.tensor([[1, grid * MERGE, grid * MERGE]] * n)
    tokens: torch.Tensor = model.model.visual(patches, grid_thw=grids).pooler_output
    return tokens.unflatten(0, (n, VISUAL_TOKENS))


def optimise(
    groups: Sequence[dict[str, Any]], stage: str, steps: int, loss_of: Callable[[int], torch.Tensor], keeper: Keeper
) -> None:
    """AdamW; 50 steps of warm-up, then a cosine to zero.

    Under bfloat16 autocast where the CPU multiplies it: four times as fast there, three times slower elsewhere.
    """
    has_bfloat16 = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05, betas=(0.9, 0.98))
    peaks = [group["lr"] for group in groups]
    parameters = [parameter for group in groups for parameter in group["params"]]
    started, losses = time.monotonic(), []
    for step in range(keeper.steps_done(stage, steps, optimiser) + 1, steps + 1):
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * learning_rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16):
            loss = loss_of(step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(loss.item())
        keeper.step_done(stage, step, optimiser)
        if step % 50 == 0:
            mean = sum(losses) / len(losses)
            print(f"{stage} {step}/{steps}  loss {mean:.4f}  {time.monotonic() - started:.0f} s", flush=True)
            losses.clear()


def learning_rate(step: int, steps: int) -> float:
    """Share of the greatest, for steps from 1."""
    return min(step / 50, 0.5 + 0.5 * math.cos(math.pi * (step - 1) / steps))


def train_vision(learner: Learner, lessons: Lessons, steps: int, keeper: Keeper) -> None:
    """Stage 1: the vision tower and the heads."""
    heads = [*learner.truths.parameters(), *learner.facts.parameters()]
    parameters = [*learner.model.model.visual.parameters(), *heads]
    groups = [{"params": parameters, "lr": 1e-3}]
    optimise(groups, VISION, steps, lambda _: learner.look(lessons.sample(VISION_BATCH))[1], keeper)


def level_targets(truths: torch.Tensor) -> torch.Tensor:
    """(...) in 1..5 -> (..., 5), linear between the two nearest levels: the expected score is the truth."""
    levels = torch.tensor(FIVE_LEVELS.levels, dtype=torch.float32)
    return (1 - (truths[..., None] - levels).abs()).clamp(min=0)


def place_targets(places_N3: torch.Tensor) -> torch.Tensor:
    """(N, 3) -> (N, 3, 3), one at the answer; where it cannot be told, nothing."""
    return functional.one_hot(places_N3.clamp(min=0), 3).float() * (places_N3 != UNKNOWN)[..., None]


@dataclass(frozen=True)
class Teacher:
    """What stage 2 asks, and what the answers are."""

    tokenizer: PreTrainedTokenizerBase
    prompts: Mapping[str, Prompts]
    """By the names of ASKED_EARLY and ASKED_LATE, but for the statements, which are others at each step."""
    lessons: Lessons
    batch: int = TEXT_BATCH

    def loss(self, learner: Learner, name: str) -> torch.Tensor:
        """Cross-entropy of the answers of one batch, and a little of stage 1's, so that the tower forgets nothing."""
        lessons = (self.lessons.sample_places if name == "places" else self.lessons.sample)(self.batch)
        seen_NTD, look_loss = learner.look(lessons)
        asked, targets_NKA = self._ask(learner, name, lessons)
        log_probs_NKA = asked.log_probs(learner.model, seen_NTD)
        return -(targets_NKA * log_probs_NKA).sum() / targets_NKA.sum() + 0.1 * look_loss

    def _ask(self, learner: Learner, name: str, lessons: Lessons) -> tuple[Prompts, torch.Tensor]:
        if name == "places":
            return self.prompts[name], place_targets(lessons.places_N3)
        if name != "statements":
            return self.prompts[name], level_targets(lessons.truths_NK)
        picks = torch.randperm(len(STATEMENTS))[:STATEMENTS_A_STEP]
        asked = Prompts(learner.model, self.tokenizer, [STATEMENTS[int(pick)] for pick in picks])
        return asked, lessons.statements_NS2()[:, picks]


def train_text(learner: Learner, teacher: Teacher, steps: int, keeper: Keeper) -> None:
    """Stage 2: a batch of one kind of questions at each step."""

    def loss_of(step: int) -> torch.Tensor:
        shares = ASKED_EARLY if step <= 0.6 * steps else ASKED_LATE
        name = list(shares)[int(torch.multinomial(torch.tensor(list(shares.values())), 1))]
        return teacher.loss(learner, name)

    model = learner.model
    tower = [*model.model.visual.parameters(), *learner.truths.parameters(), *learner.facts.parameters()]
    text = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    optimise([{"params": tower, "lr": 2e-4}, {"params": text, "lr": 1e-3}], TEXT, steps, loss_of, keeper)


@torch.inference_mode()
def answers_of(learner: Learner, prompts: Prompts, lessons: Lessons) -> torch.Tensor:
    """Probabilities (N, K, A) of the answers, which sum to 1."""
    parts = lessons.images_NHWC.split(TEXT_BATCH)
    found = [prompts.log_probs(learner.model, see(learner.model, learner.processor, part)) for part in parts]
    return torch.cat(found).softmax(-1)


def srcc_by_dimension(probs_NK5: torch.Tensor, truths_NK: torch.Tensor) -> dict[str, float]:
    """Dimension -> rank correlation (SRCC) of expected score and truth."""
    scores_NK = probs_NK5 @ torch.tensor(FIVE_LEVELS.levels, dtype=torch.float32)
    ranks = [values.argsort(0).argsort(0).double() for values in (scores_NK, truths_NK)]
    pairs = [torch.corrcoef(torch.stack([ranks[0][:, k], ranks[1][:, k]]))[0, 1] for k in range(len(DIMENSIONS))]
    return {name: float(value) for name, value in zip(DIMENSIONS, pairs, strict=True)}


def print_held_out(learner: Learner, prompts: Mapping[str, Prompts]) -> None:
    """How well it does on scenes of a seed never trained on, as they are and flawed."""
    for title, flawed in (("scenes", False), ("flaws", True)):
        lessons = render(HELD_OUT_SEED, range(HELD_OUT), flawed=flawed)
        for name in RUBRICS:
            found = srcc_by_dimension(answers_of(learner, prompts[name], lessons), lessons.truths_NK)
            print(title, name, " ".join(f"{dimension} {value:.3f}" for dimension, value in found.items()), flush=True)
    right = answers_of(learner, prompts["places"], lessons).argmax(-1) == lessons.places_N3
    known = lessons.places_N3 != UNKNOWN
    shares = [float(right[known[:, k], k].float().mean()) for k in range(3)]
    print("places right: extent {:.3f} row {:.3f} column {:.3f}".format(*shares), flush=True)


def train_base(
    output: Path, scenes: int, vision_steps: int, text_steps: int, seed: int, *, resume: bool = False
) -> None:
    """Write a checkpoint folder with bfloat16 weights, and print how well it does when it is loaded again.

    Raises CallerError when the folder holds a training that has not ended, and `resume` does not say to go on.
    """
    torch.manual_seed(seed)
    output.mkdir(parents=True, exist_ok=True)
    questions = {name: rubric_questions(load_rubric(name)) for name in RUBRICS} | {"places": PLACES}
    known = [each.query + each.answer_start for asked in (*questions.values(), STATEMENTS) for each in asked]
    levels = [load_rubric(name).levels for name in RUBRICS]
    tokenizer, processor = make_tokenizer(known, sorted(set().union(*levels))), make_image_processor()
    model = Qwen2_5_VLForConditionalGeneration(make_config(tokenizer))
    speed_up(model)
    learner = Learner(model, processor)
    settings = {"scenes": scenes, "vision_steps": vision_steps, "text_steps": text_steps, "seed": seed}
    settings["threads"] = torch.get_num_threads()
    keeper = Keeper(output / "training.state", settings, (VISION, TEXT), learner, resume=resume)
    print(f"model {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens", flush=True)
    prompts = {name: Prompts(model, tokenizer, asked) for name, asked in questions.items()}
    plain = scenes // 2
    lessons = joined(render(seed, range(plain)), render(seed, range(plain, scenes), flawed=True))
    train_vision(learner, lessons, vision_steps, keeper)
    train_text(learner, Teacher(tokenizer, prompts, lessons), text_steps, keeper)
    for part in (model.to(torch.bfloat16), tokenizer, processor):
        part.save_pretrained(output)
    # float32, since the demo's scores are to be the same on every machine; the weights themselves are bfloat16
    write_manifest(output, RUBRICS[-1], "float32", trained_on="level", threads=torch.get_num_threads())
    keeper.remove()
    reloaded = AutoModelForImageTextToText.from_pretrained(output, dtype=torch.float32)
    print_held_out(Learner(reloaded, processor), prompts)


def main(argv: Iterable[str] | None = None) -> None:
    """Train the base as the flags say."""
    parser = StrictParser(prog="python -m iqa_core.demo.base", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--scenes", type=int, default=30_000, help="different scenes to train on, half of them flawed")
    parser.add_argument("--vision-steps", type=int, default=2200, help=f"steps of {VISION_BATCH} images in stage 1")
    parser.add_argument("--text-steps", type=int, default=700, help=f"steps of {TEXT_BATCH} images in stage 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; part of what the result depends on")
    parser.add_argument("--resume", action="store_true", help="go on where a training into this folder was stopped")
    options = vars(parser.parse_args(None if argv is None else list(argv)))
    torch.set_num_threads(options.pop("threads"))
    train_base(**options)


if __name__ == "__main__":
    main()
