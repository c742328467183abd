"""What verl's reward manager does with a `custom_reward_function`; run in an environment that has verl.

    IQA_URL=URL python verl_calls.py COMPLETION ...   ->   [{"reward_score": ..., "reward_extra_info": {...}}, ...]

verl loads this file anew, and takes `compute_score` out of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from drawing import draw

from iqa_core.adapters import verl_compute_score
from iqa_core.client import RewardClient

compute_score = verl_compute_score(RewardClient(os.environ["IQA_URL"]), draw, rejected=0.0)


class Letters:
    """As much of a tokenizer as the manager asks for."""

    def decode(self, ids: Any, skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids.tolist()))


async def main(completions: list[str]) -> list[dict[str, Any]]:
    import numpy as np
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    custom = {"path": __file__, "name": "compute_score"}
    managed = {"custom_reward_function": custom, "reward_manager": {"source": "register", "name": "naive"}}
    manager = load_reward_manager(OmegaConf.create({"reward": managed}), Letters())
    found = []
    for text in completions:
        ids = torch.tensor([[ord(letter) for letter in text]])
        data = DataProto.from_dict(
            tensors={"responses": ids, "attention_mask": torch.ones_like(ids)},
            non_tensors={
                "data_source": np.array(["rooms"], object),
                "reward_model": np.array([{"ground_truth": None}], object),
                "extra_info": np.array([{}], object),
            },
        )
        found.append(await manager.run_single(data))
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1:]))))
