"""A training task -> trained weights: the loop of one worker in a process group.

Every worker runs the same loop on its share of each step. The step number is all that a restart needs to know. A `Host`
keeps what the loop reports.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors.torch import save_file

from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.model.processors import load_processor
from iqa_core.errors import RunError
from iqa_core.rubrics import WrittenRubric
from iqa_core.training.augmenting import augmented
from iqa_core.training.engine import Engine
from iqa_core.training.gathering import gathered
from iqa_core.training.parts import apply_part_modes, set_training
from iqa_core.training.sample_encoder import Batch, SampleEncoder
from iqa_core.training.schedule import Schedule
from iqa_core.training.task import PROGRESS, SCORES, WEIGHTS, TrainingTask
from iqa_core.training.validation import Prediction, figures, written_figures
from iqa_core.training.written_validation import Answered, Example, examples_of, greedy, written_answers

AHEAD = 2
"""Batches that are made ahead while the model computes."""

Figures = Mapping[str, float]


class Host(Protocol):
    """What runs the loop: it keeps what the loop reports, and hands back the last checkpoint after a restart."""

    def restored(self) -> AbstractContextManager[Path | None]:
        """A local folder with the last checkpoint of all workers, or None at the very beginning."""
        ...

    def report(self, figures: Figures, checkpoint: Path | None, examples: Sequence[Example] = ()) -> None:
        """Take figures and, at each validation, this worker's share of a checkpoint, and examples of what was written.

        All workers call equally often.
        """
        ...


@dataclass(frozen=True, slots=True)
class Worker:
    """This process in its process group."""

    rank: int
    num_workers: int
    device: torch.device

    @classmethod
    def here(cls) -> Worker:
        """The process that runs this; its device is the one that was chosen for it."""
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        return cls(dist.get_rank(), dist.get_world_size(), device)


Scores = Sequence[Mapping[str, float] | None]
"""Attribute -> number from 1 (worst) to 5 (best), of each of the rated images; None where nothing was parsed."""


@dataclass(frozen=True, slots=True)
class Validated:
    """What a validation found, the same on every worker."""

    figures: Figures
    examples: Sequence[Example] = ()
    """Where the model writes."""
    scores: Scores = ()
    """As the rubric decodes, where the export is to be calibrated by them."""


class Training:
    """One worker's model, data and schedule."""

    def __init__(self, task: TrainingTask, worker: Worker) -> None:
        folder = materialise(task.base)
        self.task, self.worker, self.recipe = task, worker, task.recipe
        self.processor = load_processor(folder)
        self.encoder = SampleEncoder(self.processor, task.rubric, task.preparer)
        model = load_model(folder, task.recipe.weights_dtype, str(worker.device.type), task.threads).to(worker.device)
        apply_part_modes(model, task.recipe)
        if task.recipe.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.engine = Engine(model, task.recipe, worker.num_workers)
        self.schedule = Schedule(task.recipe, [sample.tokens for sample in task.train])

    def run(self, host: Host) -> None:
        """Train from the last checkpoint to the last step; figures and checkpoints go to the host.

        Raises RunError when the loss is no number any more, or an image can no longer be read.
        """
        with host.restored() as folder:
            done = 0 if folder is None else self.engine.restore(folder)
        meter = Meter(self.worker)
        for step in self._steps(done, meter):
            if step == self.schedule.steps or step % self.recipe.every == 0:
                self._conclude(step, meter, host)
            elif step % self.recipe.log_every == 0:
                host.report(meter.read(step, self.schedule.steps), None)

    def _steps(self, done: int, meter: Meter) -> Iterator[int]:
        """Take the steps that are left; after each, the number of those that are done."""
        # one thread makes batches ahead: a second pool of torch's threads slows the first (25 samples/s instead of 40)
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            batches = self._batches(done, pool)
            for step in range(done, self.schedule.steps):
                self._learn(step, batches, meter)
                yield step + 1

    def _learn(self, step: int, batches: Iterator[Batch], meter: Meter) -> None:
        torch.manual_seed(self._seed(step))
        set_training(self.engine.module)
        rate = self.schedule.learning_rate(step)
        self.engine.set_learning_rate(rate)
        total_weight = sum(self.task.train[i].weight for i in self.schedule.batch(step))
        loss = 0.0
        for _ in range(self.recipe.accumulation(self.worker.num_workers)):
            batch = next(batches)
            found = self.engine.losses(batch)
            self.engine.learn(found.weighted_sum, total_weight)
            loss += float(found.weighted_sum.detach()) / total_weight
            meter.count(batch)
        meter.add(loss, rate, self.engine.gradient_norm())

    def _batches(self, first_step: int, pool: ThreadPoolExecutor) -> Iterator[Batch]:
        """This worker's batches of all steps that are left, made a few ahead of use."""
        pieces = (
            piece
            for step in range(first_step, self.schedule.steps)
            for piece in self.schedule.micro_turns(step, self.worker.rank, self.worker.num_workers)
        )
        made = (pool.submit(self._batch, piece) for piece in pieces)
        ahead = list(islice(made, AHEAD))
        while ahead:
            yield on_device(ahead.pop(0).result(), self.worker.device, self.engine.module.dtype)
            ahead += islice(made, 1)

    def _batch(self, turns: NDArray[np.int64]) -> Batch:
        drawn = [divmod(int(turn), len(self.task.train)) for turn in turns]
        return self.encoder.batch([augmented(self.task.train[i], i, epoch, self.recipe) for epoch, i in drawn])

    def _conclude(self, step: int, meter: Meter, host: Host) -> None:
        """Validate, and report the figures with a checkpoint."""
        values = meter.read(step, self.schedule.steps)
        validated = self._validated()
        values |= validated.figures
        with TemporaryDirectory() as name:
            folder = Path(name)
            began = time.monotonic()
            self.engine.save(folder, step)
            weights = self.engine.weights(wanted=self.worker.rank == 0)
            if self.worker.rank == 0:
                save_file(weights, folder / WEIGHTS)
                (folder / PROGRESS).write_text(json.dumps(values))
                if validated.scores:
                    (folder / SCORES).write_text(json.dumps(validated.scores))
            host.report(values | {"checkpoint_s": time.monotonic() - began}, folder, validated.examples)
        meter.restart()

    def _validated(self) -> Validated:
        """Figures of the validation part; those of what is written about its images rank, where there are any."""
        self.engine.module.eval()
        found = figures(self.task.validation, self._predictions()) if self.task.validation else {}
        rubric, rated = self.task.rubric, self.task.rated
        if not rated:
            return Validated(found)
        assert isinstance(rubric, WrittenRubric)
        likeliest = greedy(rubric)
        answered = self._written(likeliest)
        found |= written_figures(rated, [one.ratings for one in answered])
        examples = examples_of(rated, answered)
        if not self.task.is_calibrated:
            return Validated(found, examples)
        scored = answered if rubric.decoding == likeliest.decoding else self._written(rubric)
        return Validated(found, examples, [one.ratings for one in scored])

    def _written(self, rubric: WrittenRubric) -> list[Answered]:
        """What is written about each of the rated images, the same on every worker; each writes its share."""
        rated, workers = self.task.rated, self.worker.num_workers
        own = rated[self.worker.rank :: workers]
        found = gathered(
            lambda: written_answers(self.engine.module, self.processor, rubric, self.encoder, own) if own else []
        )
        return [found[i % workers][i // workers] for i in range(len(rated))]

    @torch.no_grad()
    def _predictions(self) -> list[Prediction]:
        """Predictions for the whole validation part, the same on every worker.

        All workers make equally many forward passes: with ZeRO 3 one that stops would block the others.
        """
        size = 2 * self.recipe.micro_batch
        order = sorted(range(len(self.task.validation)), key=lambda i: self.task.validation[i].tokens)
        pieces = [order[at : at + size] for at in range(0, len(order), size)]
        passes = -(-len(pieces) // self.worker.num_workers)
        own = [*pieces[self.worker.rank :: self.worker.num_workers], order[:size]][:passes]
        parts = gathered(lambda: [prediction for piece in own for prediction in self._predict(piece)])
        return [prediction for part in parts for prediction in part]

    def _predict(self, indices: Sequence[int]) -> Iterator[Prediction]:
        samples = [self.task.validation[i] for i in indices]
        batch = on_device(self.encoder.batch(samples), self.worker.device, self.engine.module.dtype)
        found = self.engine.losses(batch)
        scores = dict(zip(batch.level_rows.tolist(), found.scores.tolist(), strict=True))
        for row, (index, loss) in enumerate(zip(indices, found.samples_N.tolist(), strict=True)):
            yield Prediction(index, loss, scores.get(row))

    def _seed(self, step: int) -> int:
        """Seed of dropout: the same when a step is repeated, another for each worker."""
        entropy = np.random.SeedSequence([self.recipe.seed, step, self.worker.rank])
        return int(entropy.generate_state(1)[0])


class Meter:
    """Figures of the steps since the last reading; samples per second count all workers together."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.restart()

    def restart(self) -> None:
        """Begin anew from now: time spent on validation and checkpoints is not counted."""
        self._began = time.monotonic()
        self._losses: list[float] = []
        self._rate = 0.0
        self._norm: float | None = None
        self._samples = self._real = self._padded = 0
        self._means: dict[str, tuple[float, float]] = {}

    def count(self, batch: Batch) -> None:
        """Add the samples and tokens of a batch."""
        self._samples += len(batch.weights_N)
        self._real += batch.real_tokens
        self._padded += batch.labels_NT.numel()

    def add(self, loss: float, rate: float, norm: float | None) -> None:
        """Add a step. loss: this worker's share of the step's loss; norm: of its gradient."""
        self._losses.append(loss)
        self._rate, self._norm = rate, norm

    def note(self, means: Mapping[str, tuple[float, float]]) -> None:
        """Add to figures that are means: sum and number of each. All workers note the same names."""
        for name, more in means.items():
            known = self._means.get(name, (0.0, 0.0))
            self._means[name] = known[0] + more[0], known[1] + more[1]

    def read(self, step: int, steps: int) -> dict[str, float]:
        """Figures by name, summed over all workers; counting begins anew.

        Raises RunError when the loss is not finite.
        """
        sums = torch.tensor(
            [sum(self._losses), self._samples, self._real, self._padded, *chain(*self._means.values())],
            dtype=torch.float64,
            device=self._worker.device,
        )
        dist.all_reduce(sums)
        loss, samples, real, padded, *means = sums.tolist()
        loss /= len(self._losses)
        seconds = time.monotonic() - self._began
        if not np.isfinite(loss):
            raise RunError(f"the loss is {loss} at step {step}; lower --learning-rate, or train in fp32")
        values = {
            "step": step,
            "steps": steps,
            "loss": loss,
            "learning_rate": self._rate,
            "samples_per_s": samples / seconds,
            "tokens_per_s": real / seconds,
            "padding": 1 - real / padded,
            "memory_gib": _memory_gib(self._worker.device),
        }
        if self._norm is not None:
            values["gradient_norm"] = self._norm
        values |= {
            name: total / count
            for name, total, count in zip(self._means, means[::2], means[1::2], strict=True)
            if count
        }
        self.restart()
        return values


def train(task: TrainingTask, host: Host) -> None:
    """Run the loop in this process, whose process group exists already. Raises RunError as `Training.run` does."""
    Training(task, Worker.here()).run(host)


def on_device(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """The batch on the model's device, pixels in the model's dtype."""

    def moved(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, dtype) if value.is_floating_point() else value.to(device)

    kept = ("targets_NL", "worths", "weights_N")
    tensors = {name: moved(value) for name, value in vars(batch).items() if name not in {*kept, "inputs"}}
    return replace(
        batch,
        inputs={name: moved(value) for name, value in batch.inputs.items()},
        **tensors,
        **{name: getattr(batch, name).to(device) for name in kept},
    )


def _memory_gib(device: torch.device) -> float:
    """Peak memory so far: allocated on the GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
