"""A training task on one Ray worker: what the loop reports goes to the output and to Ray, what Ray kept comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join
from iqa_core.training.ranking.task import RankingTask

FIGURES_FILE = "figures.jsonl"
"""In the output: one object per report, by step."""


@dataclass(frozen=True)
class FiguresFile:
    """All figures of a run, whichever workers and drivers it had."""

    storage: Storage
    uri: str

    @classmethod
    def of(cls, output: str, storage: Storage) -> FiguresFile:
        """The file of a run with this output."""
        return cls(storage, join(output, FIGURES_FILE))

    def read(self) -> list[dict[str, float]]:
        """The figures in the order of their steps; empty before the first report."""
        try:
            return [json.loads(line) for line in self.storage.read(self.uri).splitlines()]
        except Missing:
            return []

    def write(self, records: list[dict[str, float]]) -> None:
        """Replace the file in one step: a reader never sees half of a line."""
        self.storage.put(self.uri, "".join(f"{json.dumps(record)}\n" for record in records).encode())


@dataclass
class RayHost:
    """Obeys `iqa_core.training.loop.Host`. Only checkpoints pass through Ray: it takes a report every two seconds."""

    figures_file: FiguresFile
    _records: list[dict[str, float]] = field(default_factory=list)

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

    def report(self, figures: Mapping[str, float], checkpoint: Path | None) -> None:
        """Write figures into the output, from the first worker, and hand a checkpoint to Ray."""
        import ray.train

        if ray.train.get_context().get_world_rank() == 0:
            self._note(dict(figures))
        if checkpoint is not None:
            ray.train.report(dict(figures), checkpoint=ray.train.Checkpoint.from_directory(checkpoint))

    def _note(self, record: dict[str, float]) -> None:
        """Steps that are done again after a restart replace what was noted of them."""
        earlier = self._records or self.figures_file.read()
        self._records = [known for known in earlier if known["step"] < record["step"]] + [record]
        self.figures_file.write(self._records)


def train_on_worker(config: dict[str, Any]) -> None:
    """Train on one worker; Ray calls it on each."""
    from iqa_core.training import loop
    from iqa_core.training.ranking import loop as ranking_loop

    task, host = config["task"], RayHost(config["figures_file"])
    if isinstance(task, RankingTask):
        ranking_loop.train(task, host)
    else:
        loop.train(task, host)
