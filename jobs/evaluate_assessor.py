"""Scores, or a checkpoint, and people's opinions -> a table of agreement.

    python jobs/evaluate_assessor.py --annotations 'sa-bench:SA-BENCH?split=test' --assessor.checkpoint … --rubric …

It needs no Ray: images are scored in this process, or were scored before (--scores).
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.command import run
from jobs.evaluation.settings import EvaluateSettings


def main(settings: EvaluateSettings) -> int:
    """Evaluate assessors; the exit code."""
    # here, not above: --help and a mistyped flag are answered without Arrow and SciPy
    from jobs.evaluation.flow import evaluate

    return evaluate(settings)


if __name__ == "__main__":
    sys.exit(run(EvaluateSettings, main))
