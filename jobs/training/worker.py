"""A training task on one Ray worker: what the loop reports goes to the output and to Ray, what Ray kept comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iqa_core.storage.storage import Storage
from iqa_core.training.ranking.task import RankingTask
from iqa_core.training.written_validation import Example
from jobs.training.records import FIGURES, MAX_VALIDATIONS, TEXTS, Log, RecordsFile


@dataclass
class RayHost:
    """Obeys `iqa_core.training.loop.Host`. Only checkpoints pass through Ray: it takes a report every two seconds."""

    figures: Log
    texts: Log

    @classmethod
    def of(cls, output: str, storage: Storage) -> RayHost:
        """The host of a run with this output."""
        return cls(
            Log(RecordsFile.of(output, storage, FIGURES)),
            Log(RecordsFile.of(output, storage, TEXTS), MAX_VALIDATIONS),
        )

    @contextmanager
    def restored(self) -> Iterator[Path | None]:
        """Inside: a folder with the run's last checkpoint; None where there is none."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    def report(self, figures: Mapping[str, float], checkpoint: Path | None, examples: Sequence[Example] = ()) -> None:
        """Write figures and texts into the output, from the first worker, and hand a checkpoint to Ray."""
        import ray.train

        if ray.train.get_context().get_world_rank() == 0:
            if examples:  # before the figures, at whose sight the driver shows both
                self.texts.add(figures["step"], map(asdict, examples))
            self.figures.add(figures["step"], [figures])
        if checkpoint is not None:
            ray.train.report(dict(figures), checkpoint=ray.train.Checkpoint.from_directory(checkpoint))


def train_on_worker(config: dict[str, Any]) -> None:
    """Train on one worker; Ray calls it on each."""
    from iqa_core.training import loop
    from iqa_core.training.ranking import loop as ranking_loop

    task, host = config["task"], RayHost.of(config["output"], config["storage"])
    if isinstance(task, RankingTask):
        ranking_loop.train(task, host)
    else:
        loop.train(task, host)
