"""A checked job -> a trained, exported assessor: started or resumed on Ray Train, watched, exported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iqa_core.assessor.checkpoint.manifest import FILE as MANIFEST
from iqa_core.errors import DONE, CallerError, IqaError, RunError
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import is_local, join, local_path, scratch_of
from iqa_core.training.task import TrainingTask
from iqa_core.training.validation import RANK
from jobs.on_ray.cluster import connected, room_for
from jobs.reporting import written
from jobs.training.records import FIGURES, RecordsFile
from jobs.training.report import RunReport, best
from jobs.training.run import TrainingRun, claim, shown_settings
from jobs.training.settings import RunSettings
from jobs.training.watch import line, watched
from jobs.training.worker import train_on_worker

EXPORT = "checkpoint"
"""In the output: the best checkpoint as a folder that scoring takes."""
RAY_RUN = "ray"
"""In the output: Ray's own record of the run, and the best and the last checkpoint."""

TRAIN_ENVIRONMENT = {
    # Ray Train's default moves workers into a folder of their own, where relative paths mean something else
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""Set where the caller has not set it."""


def train(job: TrainingRun) -> int:
    """Run a job that was checked; the exit code. Raises CallerError before anything is written, RunError later."""
    settings = job.settings
    for text in job.describe():
        print(text)
    if settings.dry_run:
        for text in job.foresee():
            print(text)
        print(json.dumps(shown_settings(settings), indent=2))
        return DONE
    export_uri = join(settings.output, EXPORT)
    report = RunReport(settings.output, job.storage, job.facts())
    if job.storage.stat(join(export_uri, MANIFEST)) is not None:
        claim(job)
        print(f"finished   {export_uri} is there already")
        written("training", job.storage, settings.output, report.page)
        return DONE
    for name, value in TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with connected(settings.ray_address, settings.code_on_nodes):
        _require_room(settings)
        claim(job)
        with watched(report):
            checkpoint = _fit(job)
        changes = _export(job, checkpoint, export_uri)
    _print_best(job)
    for change in changes:
        print(f"calibrate  {change}")
    print(f"exported   {export_uri}")
    written("training", job.storage, settings.output, report.page)
    return DONE


def _require_room(settings: RunSettings) -> None:
    room = room_for(settings.worker_cpus, settings.worker_gpus)
    if room < settings.num_workers:
        raise CallerError(
            f"{settings.num_workers} workers with {settings.worker_cpus:g} CPU and {settings.worker_gpus:g} GPU each, "
            f"but the cluster has room for {room}; lower --num-workers, --worker-cpus or --worker-gpus"
        )


def _fit(job: TrainingRun) -> Any:
    """Train to the end, from the last checkpoint if there is one; the best checkpoint."""
    from ray.exceptions import RayError
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    settings = job.settings
    path, file_system = ray_storage(settings.output, job.storage)
    # Ray Train takes this argument, but its published type does not have it
    quiet: dict[str, Any] = {"logging_config": LoggingConfig(log_level="ERROR")}
    trainer = TorchTrainer(
        train_on_worker,
        train_loop_config={"task": job.task, "output": settings.output, "storage": job.storage},
        torch_config=TorchConfig(backend="nccl" if settings.worker_gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.num_workers,
            use_gpu=settings.worker_gpus > 0,
            resources_per_worker=_resources(settings),
        ),
        run_config=RunConfig(
            name=RAY_RUN,
            storage_path=path,
            storage_filesystem=file_system,
            failure_config=FailureConfig(max_failures=settings.max_failures),
            # the best by this figure, and the last one besides, which Ray never deletes
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=RANK),
            **quiet,
        ),
    )
    try:
        result = trainer.fit()
    except SystemExit as error:  # Ray Train's own handler of Ctrl-C says that all went well
        raise KeyboardInterrupt from error
    except (TrainingFailedError, RayError) as error:
        raise RunError(
            f"training failed: {_cause(error)}; the same command goes on from the last checkpoint"
        ) from error
    if not result.best_checkpoints:
        raise RunError("training ended without a checkpoint; the same command goes on")
    checkpoint, _ = max(result.best_checkpoints, key=lambda kept: kept[1][RANK])
    return checkpoint


def _resources(settings: RunSettings) -> dict[str, float]:
    return {"CPU": settings.worker_cpus} | ({"GPU": settings.worker_gpus} if settings.worker_gpus else {})


def ray_storage(output: str, storage: Storage) -> tuple[str, Any]:
    """Path and file system as Ray Train wants them: without scheme where it is remote."""
    if is_local(output):
        return str(local_path(output)), None
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    # a cached listing would hide the checkpoint that another process has just put there
    file_system, path = fsspec.core.url_to_fs(output, use_listings_cache=False, **storage.options)
    return path, PyFileSystem(FSSpecHandler(file_system))


def _cause(error: BaseException) -> str:
    """The last line of a worker's traceback, else the error's name."""
    return next((text.strip() for text in reversed(str(error).splitlines()) if text.strip()), type(error).__name__)


def _export(job: TrainingRun, checkpoint: Any, uri: str) -> list[str]:
    """Export in a task of Ray with a worker's resources, since the driver may be a small machine.

    What calibration does to each attribute, in a sentence each.
    """
    import ray

    settings = job.settings
    task = ray.remote(num_cpus=settings.worker_cpus, max_retries=1)(export_on_worker)
    config = shown_settings(settings)
    try:
        scratch = scratch_of(settings.output)  # in the export's own folder a `.tmp` would be left
        work = task.remote(job.task, checkpoint, uri, scratch, job.storage, config, settings.export_dtype)
        changes: list[str] = ray.get(work)
    except ray.exceptions.RayError as error:
        raise RunError(f"the export failed: {_cause(error)}; the same command tries it again") from error
    return changes


def export_on_worker(
    task: TrainingTask,
    checkpoint: Any,
    uri: str,
    scratch: str,
    storage: Storage,
    config: dict[str, Any],
    weights: Any,
) -> list[str]:
    """Export into a local folder, then put it where it belongs; assessor.toml last. scratch: see `Storage.put`.

    What calibration does to each attribute, in a sentence each.
    """
    from iqa_core.training.export import export

    with checkpoint.as_directory() as folder, TemporaryDirectory() as made:
        changes = export(task, Path(folder), Path(made), config, weights).changes
        files = sorted(Path(made).iterdir(), key=lambda file: file.name == MANIFEST)
        for file in files:
            storage.put(join(uri, file.name), file.read_bytes(), scratch)
    return [str(change) for change in changes]


def _print_best(job: TrainingRun) -> None:
    try:
        records = RecordsFile.of(job.settings.output, job.storage, FIGURES).read()
    except IqaError:  # the table is for people; the export is there
        return
    validated = [record for record in records if RANK in record]
    if validated:
        print(f"best       {line(best(validated))}")
