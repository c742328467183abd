"""Settings of the scoring job -> what it would put into the output, made by the worker's loop in this process."""

from __future__ import annotations

from iqa_core.assessor.boundary import assess_each
from iqa_core.assessor.load import load
from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.heartbeats import Pulse
from jobs.command import parse
from jobs.score_settings import ScoreSettings
from jobs.scoring import applied, proposed
from jobs.scoring_job import JOB, prepare
from jobs.scoring_run import ScoringRun
from jobs.work import ChunkFailure, read_chunk, scored_batch


def score_by_hand(*flags: object) -> int:
    """The exit code. No Ray is asked; whatever the run raises comes out of here."""
    job = prepare(parse(ScoreSettings, [*map(str, flags), "--assessor.checkpoint", "fake:", "--no-report"]))
    proposal = proposed(job)
    contract = applied(job, proposal)
    with Pulse(job.storage, job.output, JOB) as pulse:
        run = ScoringRun(job, contract, proposal, "this process", pulse)
        try:
            work = job.work(contract, 1)
            assessor = load(work.spec, work.config)
            for errand in run.errands():
                only = None if errand.only is None else frozenset(errand.only)
                for batch in read_chunk(Chunk.from_bytes(errand.encoded), work, only):
                    if isinstance(batch, ChunkFailure):
                        run.take(batch)
                    else:
                        run.take(scored_batch(batch, assess_each(assessor, batch.images), work, "{}"))
            return run.conclude()
        finally:
            run.close()
