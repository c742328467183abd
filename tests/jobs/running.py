"""Jobs as a user starts them: a process of its own, killed from outside where a test says so."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.records import Assessment, Rejection

ROOT = Path(__file__).resolve().parent.parent.parent


QUICK_S = 2.0
"""Of the CPU, for what starts nothing and reads nothing: 0.5 where the machine is quiet."""


def command(*arguments: object, job: str = "score_corpus") -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, arguments)]


def help_of(job: str) -> tuple[str, float]:
    """What --help prints, and the CPU seconds that it takes, whatever else the machine is busy with."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command("--help", job=job), capture_output=True, text=True, cwd="/", check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def over(defaults: Sequence[object], *flags: object) -> list[str]:
    """Flags with one value each, of which those that are given take the place of the defaults."""
    pairs = [(str(name), str(value)) for name, value in zip(defaults[::2], defaults[1::2], strict=True)]
    return [part for pair in pairs if pair[0] not in flags for part in pair] + [str(flag) for flag in flags]


def environment(address: str | None) -> dict[str, str]:
    """The test's own, with the cluster to use; `local` and None start a Ray for the job."""
    found = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "PYTHONPATH"}}
    if address is not None:
        found["RAY_ADDRESS"] = address
    return found


def start(
    *arguments: object, address: str | None = None, job: str = "score_corpus", uploads: bool = False
) -> subprocess.Popen[str]:
    """Its output is one text, errors included; it leads a process group of its own.

    uploads: the code, though the cluster is on this machine.
    """
    where = [] if address is None or uploads else ["--code-on-nodes"]
    return subprocess.Popen(
        command(*arguments, *where, job=job),
        env=environment(address),
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(
    *arguments: object,
    address: str | None = None,
    timeout_s: float = 240,
    job: str = "score_corpus",
    uploads: bool = False,
) -> tuple[int, str]:
    """Exit code and output."""
    process = start(*arguments, address=address, job=job, uploads=uploads)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return process.returncode, output


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the driver alone: what it started must cope."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def read_table(output: Path) -> pa.Table:
    """The score table sorted by key, without the columns that tell in which place it was made."""
    files = sorted((output / "scores").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file).replace_schema_metadata(None) for file in files])
    return table.sort_by([("source", "ascending"), ("key", "ascending"), ("row", "ascending")])


def committed(output: Path) -> int:
    """Number of chunks."""
    return len(list((output / "scores").glob("*.parquet")))


def read_run(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "run.json").read_text())
    return content


def assert_same_tables(left: pa.Table, right: pa.Table, tolerance: float = 1e-6) -> None:
    """Rows, ids and values; floats within the tolerance."""
    assert left.schema == right.schema
    assert left.num_rows == right.num_rows
    for name in left.column_names:
        a, b = left.column(name), right.column(name)
        if pa.types.is_floating(a.type):
            np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), atol=tolerance, rtol=0, err_msg=name)
        else:
            assert a.equals(b), name


def assert_scores(table: pa.Table, expected: Mapping[str, Assessment | Rejection], dimensions: tuple[str, ...]) -> None:
    """Exactly one row per key, with the score or the reason that the image has by itself."""
    rows = table.to_pylist()
    assert sorted(row["key"] for row in rows) == sorted(expected)
    for row in rows:
        wanted = expected[row["key"]]
        if isinstance(wanted, Rejection):
            assert (row["status"], row["reason"]) == ("rejected", wanted.reason), row["key"]
            assert all(row[name] is None for name in (*dimensions, "reward"))
        else:
            assert (row["status"], row["reason"], row["detail"]) == ("scored", None, None), row["key"]
            np.testing.assert_allclose([row[name] for name in dimensions], wanted.scores_K, atol=1e-6)
            np.testing.assert_allclose([row[f"{name}_std"] for name in dimensions], wanted.stds_K, atol=1e-6)
            np.testing.assert_allclose(row["reward"], np.mean(wanted.scores_K), atol=1e-6)
