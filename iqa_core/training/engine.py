"""A model and a recipe -> an engine that trains it: DeepSpeed with AdamW, at ZeRO stage 0, 2 or 3.

The process group must exist already; what starts the workers creates it.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from iqa_core.training.objective import Losses, losses
from iqa_core.training.parts import trainable
from iqa_core.training.recipe import Recipe
from iqa_core.training.sample_encoder import Batch

STATE = "state"
"""Folder of a training checkpoint: every worker's share of weights and optimizer."""

CPU_EXTENSIONS = ("deepspeed_shm_comm",)
"""Extensions that DeepSpeed would compile at first use, in 20 to 30 s; gloo does the same work."""


class Engine:
    """Forward, backward and step of one worker; all workers must make the same calls."""

    def __init__(self, model: Any, recipe: Recipe, num_workers: int) -> None:
        """Take the model over; `apply_part_modes` has chosen which of its weights are trained."""
        self.recipe = recipe
        self.device = next(model.parameters()).device
        deepspeed = _deepspeed(self.device)
        self.trained = trainable(model)
        self._engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=_optimizer(self.trained, recipe, self.device),
            config=_config(recipe, num_workers),
            dist_init_required=False,
        )
        self._engine.checkpoint_engine = _safe_reading(self._engine.checkpoint_engine)
        self._scale = recipe.accumulation(num_workers) * num_workers

    @property
    def module(self) -> Any:
        """The model itself."""
        return self._engine.module

    def losses(self, batch: Batch) -> Losses:
        """Losses of a batch that is on this device."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.recipe.autocasts else nullcontext():
            return losses(self._engine, batch, self.recipe.level_weight, self.recipe.number_weight)

    def learn(self, weighted_sum: torch.Tensor, total_weight: float) -> None:
        """Backward for one forward pass of a step; the last pass of a step updates the weights.

        weighted_sum: of this pass's losses. total_weight: of all samples of the step on all workers. DeepSpeed takes
        the mean over passes and workers, so the sum is scaled up to make it a mean over samples.
        """
        self._engine.backward(weighted_sum * (self._scale / total_weight))
        self._engine.step()

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the next step."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = value

    def gradient_norm(self) -> float | None:
        """Norm of the last step's gradient before clipping; None where DeepSpeed has none."""
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def save(self, folder: Path, step: int) -> None:
        """Write this worker's share of a checkpoint into a folder, which may be shared with the others."""
        self._engine.save_checkpoint(
            str(folder),
            tag=STATE,
            client_state={"trained_steps": step},
            save_latest=False,
            exclude_frozen_parameters=True,
        )
        for script in folder.glob("*.py"):  # DeepSpeed adds scripts that convert; a checkpoint holds no code
            script.unlink()

    def restore(self, folder: Path) -> int:
        """Load this worker's share from a folder with all shares; returns the number of steps done."""
        _, state = self._engine.load_checkpoint(str(folder), tag=STATE, load_module_strict=False)
        return int(state["trained_steps"])

    def weights(self, *, wanted: bool) -> dict[str, torch.Tensor]:
        """Name -> trained weight on the CPU; empty unless wanted. All workers must call it."""
        found = {}
        for name, parameter in self.trained.items():
            with _whole(parameter):
                if wanted:
                    found[name] = parameter.detach().to("cpu", copy=True).contiguous()
        return found


def _safe_reading(checkpoint_engine: Any) -> Any:
    """The checkpoint engine, loading tensors, plain values and three known classes alone: a pickle can run code."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    def load(path: str, map_location: Any = None) -> Any:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            return torch.load(path, map_location=map_location, weights_only=True)

    checkpoint_engine.load = load
    return checkpoint_engine


def _whole(parameter: torch.nn.Parameter) -> Any:
    """A context in which a parameter that ZeRO 3 spreads over the workers is whole on each."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter])


def _deepspeed(device: torch.device) -> Any:
    """The module deepspeed, imported so that it uses this device and compiles nothing on a CPU."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when it is imported
    import deepspeed

    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__.update(dict.fromkeys(CPU_EXTENSIONS, False))
    return deepspeed


def _optimizer(parameters: dict[str, torch.nn.Parameter], recipe: Recipe, device: torch.device) -> Any:
    """AdamW without weight decay for biases and norms, which have one axis."""
    groups = [
        {"params": [p for p in parameters.values() if (p.ndim > 1) == decays], "weight_decay": decay}
        for decays, decay in ((True, recipe.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        fused=device.type == "cuda",
    )


def _config(recipe: Recipe, num_workers: int) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": recipe.zero_stage}
    if recipe.zero_stage == 2:
        zero["overlap_comm"] = torch.cuda.is_available()
    return {
        "train_batch_size": recipe.global_batch,
        "train_micro_batch_size_per_gpu": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.accumulation(num_workers),
        "gradient_clipping": recipe.clip_norm,
        "bf16": {"enabled": recipe.weights_dtype == "bfloat16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,  # the loop reports
    }
