"""Pairwise preferences and a score table -> fusion weights, and how much better than equal ones they are.

python jobs/fit_fusion.py --scores scores/ --pairs pairs.csv --output weights.toml
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.command import run
from jobs.fusion.settings import FusionSettings


def main(settings: FusionSettings) -> int:
    """Fit fusion weights; the exit code."""
    # here, not above: --help and a mistyped flag are answered without Arrow and SciPy
    from jobs.fusion.flow import fit

    return fit(settings)


if __name__ == "__main__":
    sys.exit(run(FusionSettings, main))
