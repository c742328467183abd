"""A selection over 20 million rows of scores, against the bare DuckDB query that writes the same decision table.

Synthetic scores in files of 1,024 rows, as the scoring job leaves them; `--where`, then `--best-of 1 --per prompt` with
four images per prompt. Both run in processes of their own, in turn; `ratio` is the median of the job's seconds over the
query's, process start included. Their decision tables are compared row by row. `growth` is the peak resident memory of
a selection by as many groups (`--per style`, 100,000 of them) over that of the same on a tenth of the rows.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import ROOT, main
from iqa_core.corpus.chunks import Span, chunk_name
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.plan.segments import Draft
from iqa_core.corpus.sources import Kind
from iqa_core.storage.storage import Storage
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.scores.columns import table_schema

ROWS = int(os.environ.get("SELECT_ROWS", "20000000"))
REPEATS = int(os.environ.get("SELECT_REPEATS", "3"))
CHUNK_ROWS = 1024
IMAGES_PER_PROMPT = 4
STYLES = 100_000
MEMORY_GIB = 4
DIMENSIONS = ("layout", "harmony", "lighting", "distortion")
CARRIED = pa.schema({"prompt": pa.string(), "style": pa.string()})
WHERE = "reward >= 2.5 AND distortion > 2"


def measure() -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        write_scores(small, ROWS // 10)
        write_scores(large, ROWS)
        _, few_bytes = run_job(small, Path(folder) / "few", per="style")
        _, many_bytes = run_job(large, Path(folder) / "many", per="style")
        pairs = []
        for repeat in range(REPEATS):
            bare = run_bare(large, Path(folder) / "bare.parquet")
            pairs.append((run_job(large, Path(folder) / f"job{repeat}"), bare))
        check_same(Path(folder) / "job0" / "decisions", Path(folder) / "bare.parquet")
    jobs, queries = [job for job, _ in pairs], [bare for _, bare in pairs]
    return {
        "rows": ROWS,
        "ratio": median(job[0] / bare[0] for job, bare in pairs),
        "job_s": [round(seconds, 1) for seconds, _ in jobs],
        "bare_s": [round(seconds, 1) for seconds, _ in queries],
        "job_peak_mib": max(peak for _, peak in jobs) / 2**20,
        "bare_peak_mib": max(peak for _, peak in queries) / 2**20,
        "by_style_peak_mib": many_bytes / 2**20,
        "by_style_peak_mib_of_a_tenth": few_bytes / 2**20,
        "growth": many_bytes / few_bytes,
    }


def write_scores(output: Path, rows: int) -> None:
    """A score table with its plan; keys, sources and digests as long as real ones."""
    storage = Storage()
    plan = Plan(storage, str(output))
    plan.create(Contract("0" * 16, {}, CHUNK_ROWS, False, DIMENSIONS, "equal", {}, CARRIED))
    starts = range(0, rows, CHUNK_ROWS)
    tars = [Span(tar_name(index), f"{index}.tar", 1, "", 0, 1, CHUNK_ROWS) for index in range(len(starts))]
    plan.add_segment(0, *Draft.of((Kind.WEBDATASET, (tar,)) for tar in tars).segments())
    ledger = Ledger(storage, str(output))
    rng = np.random.default_rng(0)
    for index, start in enumerate(starts):
        count = min(CHUNK_ROWS, rows - start)
        ledger.commit(chunk_name(0, index), synthetic_rows(rng, index, start, count, rows), {})


def tar_name(index: int) -> str:
    return f"s3://bucket/generated/part-{index // 1000:04d}/images-{index:06d}.tar"


def synthetic_rows(rng: np.random.Generator, index: int, start: int, count: int, rows: int) -> pa.Table:
    """One image in a hundred is rejected; prompts are spread over the whole table."""
    digests = rng.bytes(32 * count).hex()
    rejected = rng.random(count) < 0.01
    scores: dict[str, Any] = {name: rng.uniform(1, 5, count).astype(np.float32) for name in DIMENSIONS}
    scores["reward"] = np.mean(list(scores.values()), axis=0, dtype=np.float64).astype(np.float32)
    columns: dict[str, Any] = {
        "key": [f"{position:09d}.jpg" for position in range(start, start + count)],
        "source": [tar_name(index)] * count,
        "sha256": [digests[64 * i : 64 * i + 64] for i in range(count)],
        "offset": np.arange(count) * 400_000,
        "length": np.full(count, 400_000),
        "status": np.where(rejected, "rejected", "scored"),
        "reason": pa.array(["corrupt"] * count, mask=~rejected),
        **{name: pa.array(values, mask=rejected) for name, values in scores.items()},
        **{f"{name}_std": pa.array(scores[name] / 5, mask=rejected) for name in DIMENSIONS},
        "prompt": [f"a photograph of room {p}" for p in rng.integers(0, rows // IMAGES_PER_PROMPT, count)],
        "style": [f"in the style of painter {s}" for s in rng.integers(0, STYLES, count)],
    }
    schema = table_schema(DIMENSIONS, False, CARRIED)
    return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in schema], schema=schema)


def run_job(scores: Path, output: Path, per: str = "prompt") -> tuple[float, int]:
    """Seconds and peak bytes of the real job."""
    flags = ["--where", WHERE, "--best-of", "1", "--per", per, "--memory-gib", str(MEMORY_GIB), "--no-report"]
    job = str(ROOT / "jobs" / "select_corpus.py")
    return timed([sys.executable, job, "--scores", str(scores), "--output", str(output), *flags])


BARE = """
import duckdb, sys
scores, output, scratch = sys.argv[1:4]
connection = duckdb.connect(config={{"memory_limit": "{memory}GiB", "temp_directory": scratch}})
connection.execute(f\"\"\"COPY (
    WITH judged AS (
        SELECT *, CASE WHEN status <> 'scored' THEN '1:rejected:' || reason
                       WHEN ({where}) IS NOT TRUE THEN '2:where' END AS dropped
        FROM read_parquet('{{scores}}/scores/*.parquet')
    ), ranked AS (
        SELECT *, row_number() OVER (PARTITION BY prompt, dropped IS NULL ORDER BY reward DESC, key) AS place
        FROM judged
    )
    SELECT key, source, dropped IS NULL AND place = 1 AS kept,
           coalesce(dropped, CASE WHEN place > 1 THEN '5:best_of' END) AS reason,
           CASE WHEN dropped IS NULL AND place = 1 THEN 1.0::DOUBLE ELSE 0 END AS weight, {columns}
    FROM ranked
) TO '{{output}}' (FORMAT parquet, COMPRESSION zstd)\"\"\")
""".format(memory=MEMORY_GIB, where=WHERE, columns=", ".join([*DIMENSIONS, "reward"]))
"""The query that somebody would write by hand: rows in no particular order, which spares it a sort."""


def run_bare(scores: Path, output: Path) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as scratch:
        return timed([sys.executable, "-c", BARE, str(scores), str(output), scratch])


def timed(command: Sequence[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a process."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[1]} ended with exit code {process.returncode}")
    return time.monotonic() - began, peak_bytes(usage)


def peak_bytes(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * 1024


def check_same(decisions: Path, bare: Path) -> None:
    """Both tables say the same of every image."""
    import duckdb

    columns = "key, source, kept, reason, weight, reward"
    mine, theirs = (f"SELECT {columns} FROM read_parquet('{path}')" for path in (f"{decisions}/*.parquet", bare))
    [(count,)] = duckdb.execute(
        f"SELECT count(*) FROM ({mine}) a FULL JOIN ({theirs}) b ON a.key = b.key AND a.source = b.source "
        "WHERE a.kept IS DISTINCT FROM b.kept OR a.reason IS DISTINCT FROM b.reason "
        "OR a.weight IS DISTINCT FROM b.weight OR a.reward IS DISTINCT FROM b.reward"
    ).fetchall()
    if count:
        raise SystemExit(f"{count} of the decisions differ from those of the bare query")


if __name__ == "__main__":
    main("select_corpus", measure)
