"""A training in steps -> its state on disk every few minutes, from which it goes on as if it had never stopped.

Random numbers are part of the state, so that a training which was killed ends with the weights of one that was not.
What is written is read with torch's `weights_only`: tensors and plain values, no code.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from iqa_core.errors import CallerError

EVERY_S = 300.0


class Keeper:
    """The state file of one training, whose stages follow each other in the order of `stages`."""

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, int],
        stages: tuple[str, ...],
        module: torch.nn.Module,
        *,
        resume: bool,
        every_s: float = EVERY_S,
    ) -> None:
        """Raises CallerError on a state that is there without `resume`, or that another setting has made."""
        self._path, self._settings, self._stages, self._module = path, dict(settings), stages, module
        self._every_s, self._saved_at = every_s, time.monotonic()
        self._state = self._read(resume) if path.exists() else None
        if self._state:
            module.load_state_dict(self._state["module"])
            torch.set_rng_state(self._state["rng"])

    def _read(self, resume: bool) -> dict[str, Any]:
        if not resume:
            raise CallerError(f"{self._path} is a training that was begun; add --resume to go on, or remove it")
        state: dict[str, Any] = torch.load(self._path, weights_only=True)
        for name, value in self._settings.items():
            if state["settings"].get(name) != value:
                raise CallerError(f"{self._path} was begun with {name} {state['settings'].get(name)}, not {value}")
        return state

    def steps_done(self, stage: str, steps: int, optimiser: torch.optim.Optimizer) -> int:
        """How many of a stage's steps are behind us; where it is some of them, the optimiser gets its state back."""
        if self._state is None or self._stages.index(stage) > self._stages.index(self._state["stage"]):
            return 0
        if stage != self._state["stage"]:
            return steps
        optimiser.load_state_dict(self._state["optimiser"])
        return int(self._state["step"])

    def step_done(self, stage: str, step: int, optimiser: torch.optim.Optimizer) -> None:
        """Write the state when the last is `every_s` old; whoever reads it finds this one or the one before."""
        if time.monotonic() - self._saved_at < self._every_s:
            return
        state = {
            "settings": self._settings,
            "stage": stage,
            "step": step,
            "module": self._module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "rng": torch.get_rng_state(),
        }
        part = self._path.with_name(f"{self._path.name}.part")
        torch.save(state, part)
        os.replace(part, self._path)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Take the state away: the training has ended."""
        self._path.unlink(missing_ok=True)
