"""Figures of a run as they come -> a line each on the terminal, TensorBoard, and its report at each validation."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iqa_core.errors import IqaError
from iqa_core.storage.uris import is_local, join, local_path
from iqa_core.training.ranking.alarms import alarms
from iqa_core.training.ranking.worth import DRAWN_PARSED, FIDELITY
from iqa_core.training.validation import PARSED, RANK
from jobs.reporting import written
from jobs.training.records import FIGURES, NOT_CURVES, Record, RecordsFile
from jobs.training.report import RunReport

LOOK_EVERY_S = 2.0
TENSORBOARD = "tensorboard"


@contextmanager
def watched(report: RunReport) -> Iterator[None]:
    """Inside, a thread follows the run; at the end everything that was reported has been shown."""
    watch = Watch(report)
    stop = threading.Event()
    thread = threading.Thread(target=watch.follow, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        watch.close()


class Watch:
    """Shows each report once. What an earlier start of the run reported is not shown again."""

    def __init__(self, report: RunReport) -> None:
        self._report, self._output, self._storage = report, report.output, report.storage
        self._file = RecordsFile.of(self._output, self._storage, FIGURES)
        self._shown = {self._key(record) for record in self._file.read()}
        self._local = TemporaryDirectory() if not is_local(self._output) else None
        folder = self._local.name if self._local else str(local_path(self._output) / TENSORBOARD)
        self._folder = Path(folder)
        self._writer: Any = None
        self._complained = False
        self._alarmed: set[str] = set()

    def follow(self, stop: threading.Event) -> None:
        """Look every LOOK_EVERY_S until `stop` is set, and once more then."""
        while not stop.wait(LOOK_EVERY_S):
            self.look()
        self.look()

    def look(self) -> None:
        """Show what is new. An output that cannot be read for a while delays lines, and ends no training."""
        try:
            records = self._file.read()
        except IqaError as error:
            if not self._complained:
                print(f"figures cannot be read at the moment: {error}", flush=True)
            self._complained = True
            return
        new = [record for record in records if self._key(record) not in self._shown]
        for record in new:
            self._shown.add(self._key(record))
            print(line(record), flush=True)
            self._plot(record)
        for alarm in alarms(records):
            if alarm.is_on and alarm.name not in self._alarmed:
                self._alarmed.add(alarm.name)
                print(f"attention: {alarm.text}", flush=True)
        if any(RANK in record for record in new):
            written("training so far", self._storage, self._output, self._report.page, is_told=False)

    def close(self) -> None:
        """Put TensorBoard's files into an output that is not local."""
        if self._writer is not None:
            self._writer.close()
            if self._local is not None:
                for file in self._folder.iterdir():
                    self._storage.put(join(join(self._output, TENSORBOARD), file.name), file.read_bytes())
        if self._local is not None:
            self._local.cleanup()

    def _plot(self, record: Record) -> None:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # a resumed run does the steps behind its last checkpoint again
            self._writer = SummaryWriter(str(self._folder), purge_step=int(record["step"]))
        for name, value in record.items():
            if name not in NOT_CURVES and math.isfinite(value):
                self._writer.add_scalar(name, value, int(record["step"]), walltime=time.time())
        self._writer.flush()

    @staticmethod
    def _key(record: Record) -> tuple[float, float]:
        return record["step"], record["loss"]


def line(record: Record) -> str:
    """One report for people."""
    parts = [
        f"step {record['step']:,.0f}/{record['steps']:,.0f}",
        f"loss {record['loss']:.4f}",
        f"{record['samples_per_s']:.1f} samples/s",
        f"{record['memory_gib']:.1f} GiB",
    ]
    drawn = {
        "reward": "reward {:.3f}",
        FIDELITY: "fidelity {:.0%}",
        DRAWN_PARSED: "drawn parsed {:.0%}",
        "kl": "KL {:.4f}",
    }
    parts += [text.format(record[name]) for name, text in drawn.items() if name in record]
    if RANK in record:
        known = {"validation_loss": "validation loss {:.4f}", PARSED: "parsed {:.1%}"}
        known |= {name: f"{name.upper()} {{:.3f}}" for name in ("plcc", "srcc", "auc")}
        parts += [text.format(record[name]) for name, text in known.items() if name in record]
    if PARSED in record:
        parts += [_by_attribute(record, name) for name in ("plcc", "srcc")]
    return "  ".join(parts)


def _by_attribute(record: Record, figure: str) -> str:
    """Values of the numbers that were written."""
    named = {name.removeprefix(f"{figure}_"): value for name, value in record.items() if name.startswith(f"{figure}_")}
    return f"{figure.upper()} by attribute {', '.join(f'{name} {value:.3f}' for name, value in named.items())}"
