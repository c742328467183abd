"""A pool and a checkpoint -> warnings about its silent faults, or a refusal, before anything is scored or written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.fake import PREFIX
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.inspection.check import quick_check
from iqa_core.inspection.findings import Finding, Verdict, failed
from jobs.on_ray.cluster import Pool

if TYPE_CHECKING:
    Given = Callable[[], tuple[AssessorSpec, AssessorConfig]]


def precheck(spec: AssessorSpec, config: AssessorConfig, pool: Pool, is_strict: bool) -> list[str] | None:
    """Look at the checkpoint in a process of the cluster, where an actor would hold it.

    Returns the warnings, which are printed too; None where there is no model to look at.

    Raises CallerError when the checkpoint cannot be loaded, and with is_strict on any fault that `check` fails for.
    """
    if spec.checkpoint.startswith(PREFIX) or config.is_served:
        return None
    findings = _findings(spec, config.model_copy(update={"threads": pool.threads_per_actor}), pool)
    closer = f"`python -m iqa_core check --checkpoint {config.checkpoint}` looks closer"
    faults = [finding for finding in findings if finding.verdict is Verdict.FAIL]
    if any(finding.forbids_loading for finding in faults) or (is_strict and failed(findings)):
        said = "; ".join(f"{finding.name}: {finding.said}" for finding in faults)
        raise CallerError(f"the checkpoint fails its check: {said}. {closer}")
    warnings = [
        f"{finding.name}: {finding.said}" for finding in findings if finding.verdict in (Verdict.FAIL, Verdict.WARNING)
    ]
    if faults:
        warnings.append(f"scores may mean nothing; --strict-check refuses this. {closer}")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return warnings


def _findings(spec: AssessorSpec, config: AssessorConfig, pool: Pool) -> list[Finding]:
    import ray
    from ray.exceptions import RayTaskError

    resources = {"num_cpus": pool.actor_cpus, "num_gpus": pool.actor_gpus}
    try:
        found: list[Finding] = ray.get(
            ray.remote(_check).options(max_retries=2, **resources).remote(lambda: (spec, config))
        )
    except RayTaskError as error:
        if isinstance(error.cause, CallerError):
            raise CallerError(str(error.cause)) from None
        raise
    return found


def _check(given: Given) -> list[Finding]:
    """given: a callable, since Ray writes arguments that are dataclasses into its logs."""
    return quick_check(*given())
