"""Nothing -> the base of the demo assessor: a vision tower that sees the four truths, and level words behind questions.

Stage 1 trains the vision tower with a mean-pooled linear head that regresses the truths: the language model's gradient
alone is too thin for it (13 minutes of it gave SRCC .17 for layout and .02 for distortion). Stage 2 drops the head and
trains the whole model to complete the rubric's answer with a level word. Steps decide when to stop, not minutes, so a
seed gives the same checkpoint again on the same machine. It cannot say the answer's sentence by itself: that is what
`jobs/train_sft.py` teaches it, with the vision tower frozen.

    python -m iqa_core.demo.base --output base

Arrays: N images, H height, W width, C channels, K dimensions, T visual tokens, L tokens of a prompt, D model width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
from iqa_core.demo.scenes import DIMENSIONS, make_scene
from iqa_core.flags import StrictParser
from iqa_core.records import FIVE_LEVELS
from iqa_core.rubrics import Rubric, load_rubric

RUBRICS = ("interior-v1", "interior-v2", "interior-v3", "interior-v4")
SHARES_EARLY = (0.5, 0.5, 0.0, 0.0)
"""The short rubrics have a third of the tokens, so three times the steps a minute: 60 % of stage 2 use them alone."""
SHARES_LATE = (0.1, 0.1, 0.1, 0.7)
VISION_BATCH, TEXT_BATCH = 64, 32
HELD_OUT_SEED, HELD_OUT = 1_000_003, 500


class Prompts:
    """The K prompts of a rubric, ready to be read behind any image of SIZE x SIZE."""

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, rubric: Rubric
    ) -> None:
        rows = [_prompt_ids(tokenizer, rubric, k) for k in range(len(DIMENSIONS))]
        self.last_K = torch.tensor([len(row) - 1 for row in rows])
        longest = max(len(row) for row in rows)
        self.ids_KL = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
        self.level_ids = torch.tensor([tokenizer(f" {word}")["input_ids"][0] for word in rubric.levels])
        is_image = self.ids_KL == model.config.image_token_id
        self.first_image = int(is_image[0].int().argmax())
        grid = torch.tensor([[1, SIZE // PATCH, SIZE // PATCH]] * len(rows))
        self.positions_3KL = model.model.get_rope_index(self.ids_KL, is_image.int(), image_grid_thw=grid)[0]

    def level_log_probs(self, model: Qwen2_5_VLForConditionalGeneration, seen_NTD: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (N, K, 5) of the level words among all words of the vocabulary.

        Padding stands at the right, where causal attention keeps it out of sight.
        """
        n, k = len(seen_NTD), len(self.ids_KL)
        words = model.model.language_model.embed_tokens(self.ids_KL).expand(n, -1, -1, -1)
        seen = seen_NTD.to(words.dtype)[:, None].expand(-1, k, -1, -1)
        start, end = self.first_image, self.first_image + VISUAL_TOKENS
        inputs = torch.cat([words[:, :, :start], seen, words[:, :, end:]], dim=2).flatten(0, 1)
        positions = self.positions_3KL.repeat(1, n, 1)
        hidden = model.model.language_model(inputs_embeds=inputs, position_ids=positions, use_cache=False)
        hidden_NKD = hidden.last_hidden_state.unflatten(0, (n, k))[:, torch.arange(k), self.last_K]
        log_probs: torch.Tensor = model.lm_head(hidden_NKD).float().log_softmax(-1)
        return log_probs[..., self.level_ids]


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, rubric: Rubric, k: int) -> list[int]:
    """Tokens up to the level word, the image token already once per visual token."""
    dimension = rubric.dimensions[k]
    content = [{"type": "image"}, {"type": "text", "text": f"\n{dimension.query}"}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    image: str = tokenizer.image_token
    return list(tokenizer(text.replace(image, image * VISUAL_TOKENS) + rubric.answer_start(dimension))["input_ids"])


def render(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scenes 0 to count - 1 of a seed: images (N, H, W, C) uint8 and truths (N, K)."""
    scenes = [make_scene(seed, index, SIZE) for index in range(count)]
    truths_NK = torch.tensor([[scene.truths[name] for name in DIMENSIONS] for scene in scenes])
    return torch.from_numpy(np.stack([scene.pixels_HWC for scene in scenes])), truths_NK


def sample(images_NHWC: torch.Tensor, truths_NK: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random scenes, half of them mirrored: none of the four truths depends on left and right."""
    picks = torch.randint(len(images_NHWC), (count,))
    images, mirrored = images_NHWC[picks], torch.rand(count) < 0.5
    images[mirrored] = images[mirrored].flip(2)
    return images, truths_NK[picks]


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


def optimise(groups: Sequence[dict[str, Any]], steps: int, loss_of: Callable[[int], torch.Tensor], title: str) -> None:
    """AdamW; 50 steps of warm-up, then a cosine to zero.

    Under bfloat16 autocast where the CPU multiplies it: four times as fast there, three times slower elsewhere.
    """
    has_bfloat16 = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    parameters = [parameter for group in groups for parameter in group["params"]]
    started, losses = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16):
            loss = loss_of(step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        losses += loss.item()
        if step % 50 == 0:
            print(f"{title} {step}/{steps}  loss {losses / 50:.4f}  {time.monotonic() - started:.0f} s", flush=True)
            losses = 0.0


def train_vision(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2VLImageProcessorPil,
    corpus: tuple[torch.Tensor, torch.Tensor],
    steps: int,
) -> None:
    """Stage 1: the vision tower with a linear head, which is thrown away afterwards."""
    head = torch.nn.Linear(model.config.text_config.hidden_size, len(DIMENSIONS))

    def loss_of(_: int) -> torch.Tensor:
        images, truths = sample(*corpus, VISION_BATCH)
        return functional.mse_loss(head(see(model, processor, images).mean(1)).float(), truths - FIVE_LEVELS.middle)

    parameters = [*model.model.visual.parameters(), *head.parameters()]
    optimise([{"params": parameters, "lr": 1e-3}], steps, loss_of, "vision")


def level_targets(truths: torch.Tensor) -> torch.Tensor:
    """(...) in 1..5 -> (..., 5), linear between the two nearest levels: the expected score is the truth."""
    levels = torch.tensor(FIVE_LEVELS.levels, dtype=torch.float32)
    return (1 - (truths[..., None] - levels).abs()).clamp(min=0)


def train_text(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2VLImageProcessorPil,
    prompts: Sequence[Prompts],
    corpus: tuple[torch.Tensor, torch.Tensor],
    steps: int,
) -> None:
    """Stage 2: all dimensions of a batch in one step, asked in the words of one rubric."""

    def loss_of(step: int) -> torch.Tensor:
        images, truths = sample(*corpus, TEXT_BATCH)
        shares = SHARES_EARLY if step <= 0.6 * steps else SHARES_LATE
        asked = prompts[int(torch.multinomial(torch.tensor(shares), 1))]
        log_probs = asked.level_log_probs(model, see(model, processor, images))
        return -(level_targets(truths) * log_probs).sum(-1).mean()

    vision = list(model.model.visual.parameters())
    text = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    optimise([{"params": vision, "lr": 2e-4}, {"params": text, "lr": 1e-3}], steps, loss_of, "text")


@torch.inference_mode()
def held_out_srcc(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2VLImageProcessorPil, prompts: Prompts
) -> dict[str, float]:
    """Dimension -> rank correlation (SRCC) of expected score and truth on scenes of a seed never trained on."""
    images, truths_NK = render(HELD_OUT_SEED, HELD_OUT)
    levels = torch.tensor(FIVE_LEVELS.levels, dtype=torch.float32)
    batches = [prompts.level_log_probs(model, see(model, processor, batch)) for batch in images.split(TEXT_BATCH)]
    scores_NK = torch.cat(batches).softmax(-1) @ levels
    ranks = [values.argsort(0).argsort(0).double() for values in (scores_NK, truths_NK)]
    pairs = [torch.corrcoef(torch.stack([ranks[0][:, k], ranks[1][:, k]]))[0, 1] for k in range(len(DIMENSIONS))]
    return {name: float(value) for name, value in zip(DIMENSIONS, pairs, strict=True)}


def train_base(output: Path, scenes: int, vision_steps: int, text_steps: int, seed: int) -> None:
    """Write a checkpoint folder with bfloat16 weights, and print how well it does when it is loaded again."""
    torch.manual_seed(seed)
    rubrics = [load_rubric(name) for name in RUBRICS]
    tokenizer, processor = make_tokenizer(rubrics), make_image_processor()
    model = Qwen2_5_VLForConditionalGeneration(make_config(tokenizer))
    speed_up(model)
    print(f"model {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens", flush=True)
    prompts = [Prompts(model, tokenizer, rubric) for rubric in rubrics]
    corpus = render(seed, scenes)
    train_vision(model, processor, corpus, vision_steps)
    train_text(model, processor, prompts, corpus, text_steps)
    for part in (model.to(torch.bfloat16), tokenizer, processor):
        part.save_pretrained(output)
    # float32, since the demo's scores are to be the same on every machine; the weights themselves are bfloat16
    write_manifest(output, RUBRICS[-1], "float32", trained_on="level", threads=torch.get_num_threads())
    reloaded = AutoModelForImageTextToText.from_pretrained(output, dtype=torch.float32)
    for name, asked in zip(RUBRICS, prompts, strict=True):
        found = held_out_srcc(reloaded, processor, asked)
        print(name, " ".join(f"{dimension} {value:.3f}" for dimension, value in found.items()), flush=True)


def main(argv: Iterable[str] | None = None) -> None:
    """Train the base as the flags say."""
    parser = StrictParser(prog="python -m iqa_core.demo.base", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--scenes", type=int, default=20_000, help="different scenes to train on")
    parser.add_argument("--vision-steps", type=int, default=1250, help=f"steps of {VISION_BATCH} images in stage 1")
    parser.add_argument("--text-steps", type=int, default=330, help=f"steps of {TEXT_BATCH} images in stage 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; part of what the result depends on")
    options = vars(parser.parse_args(None if argv is None else list(argv)))
    torch.set_num_threads(options.pop("threads"))
    train_base(**options)


if __name__ == "__main__":
    main()
