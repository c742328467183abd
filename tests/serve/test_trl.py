"""GRPO by TRL with the endpoint as its reward: real steps of a real trainer, on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iqa_core.adapters import trl_reward
from iqa_core.client import RewardClient
from iqa_core.demo.scenes import make_scene

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STEPS = 2


def test_grpo_steps_are_rewarded_by_a_live_endpoint(demo_url: str, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    model, tokenizer = tiny_qwen2()
    asked: list[int] = []

    def render(prompts: list[Any], completions: list[Any], **columns: Any) -> list[Any]:
        """A stand-in for a generator of images: what is written decides which scene it is."""
        asked.append(len(completions))
        numbers = [sum(map(ord, text)) % 50 for text in completions]
        return [make_scene(seed, number).pixels_HWC for seed, number in zip(columns["seed"], numbers, strict=True)]

    with RewardClient(demo_url) as client:
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=[trl_reward(client, render), trl_reward(client, render, dimension="lighting")],
            args=GRPOConfig(
                output_dir=str(tmp_path),
                use_cpu=True,
                bf16=False,
                max_steps=STEPS,
                per_device_train_batch_size=4,
                num_generations=4,
                max_completion_length=6,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": "a room", "seed": i} for i in range(8)]),
        )
        trainer.train()
    logged = [entry for entry in trainer.state.log_history if "rewards/iqa_reward/mean" in entry]
    assert len(logged) == STEPS
    assert asked == [4, 4] * STEPS
    for entry in logged:
        assert 1 <= entry["rewards/iqa_reward/mean"] <= 5
        assert 1 <= entry["rewards/iqa_lighting/mean"] <= 5
    assert any(entry["rewards/iqa_reward/std"] > 0 for entry in logged)


def tiny_qwen2() -> tuple[Any, Any]:
    """Random weights, and a tokenizer of single characters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz "
    vocabulary = {letter: i for i, letter in enumerate(["<pad>", "<eos>", "<unk>", *letters])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config), tokenizer
