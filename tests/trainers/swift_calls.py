"""What ms-swift's GRPO trainer does with a reward named `iqa`; run in an environment that has ms-swift.

python swift_calls.py URL COMPLETION ...   ->   {"names": [...], "rewards": [[...], ...]}, NaN where it leaves one out
"""

from __future__ import annotations

import json
import sys

import torch
from drawing import draw
from swift.rewards import orms
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import compute_rewards_per_func
from swift.rlhf_trainers.utils import resolve_reward_funcs

from iqa_core.adapters import swift_orm
from iqa_core.client import RewardClient

url, *completions = sys.argv[1:]
client = RewardClient(url)
orms["iqa"] = swift_orm(client, draw)
orms["layout"] = swift_orm(client, draw, dimension="layout")
functions, names = resolve_reward_funcs(["iqa", "layout"])
asked = {"role": "user", "content": "a room"}
samples = [GRPOSample(messages=[asked, {"role": "assistant", "content": text}]) for text in completions]
rewards = compute_rewards_per_func(samples, functions, [None, None], torch.device("cpu"))
print(json.dumps({"names": names, "rewards": rewards.tolist()}))
