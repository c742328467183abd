"""The adapters under the libraries' own calls. Opt-in, since each library wants an environment of its own:

python -m venv V && V/bin/pip install ms-swift==4.6.0 msgspec httpx2    # SWIFT_PYTHON=V/bin/python
python -m venv W && W/bin/pip install verl==0.9.1 httpx2                # VERL_PYTHON=W/bin/python
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iqa_core.client import RewardClient, Score
from tests.serve.local import listening
from tests.trainers.drawing import picture

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
COMPLETIONS = ("40", "?", "200", "none")
"""Two pictures, a broken file and no image."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening() as found:
        yield found


@pytest.fixture(scope="module")
def scores(url: str) -> list[Score]:
    """Of the two pictures."""
    with RewardClient(url) as client:
        return client.assess([picture(40), picture(200)])


def called(python: str, script: str, *arguments: str, **environment: str) -> Any:
    if python not in os.environ:
        pytest.skip(f"{python} names no Python that has the library")
    command = [os.environ[python], str(HERE / script), *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_ms_swift_leaves_out_what_has_no_score(url: str, scores: list[Score]) -> None:
    found = called("SWIFT_PYTHON", "swift_calls.py", url, *COMPLETIONS)
    assert found["names"] == ["ImageQuality"] * 2
    wanted = [[score.reward, score.scores["layout"]] for score in scores]
    assert found["rewards"][0::2] == [pytest.approx(row) for row in wanted]
    assert all(math.isnan(value) for row in found["rewards"][1::2] for value in row)


def test_verl_takes_rewards_and_logs_dimensions(url: str, scores: list[Score]) -> None:
    found = called("VERL_PYTHON", "verl_calls.py", *COMPLETIONS, IQA_URL=url)
    for answer, score in zip(found[0::2], scores, strict=True):
        assert answer["reward_score"] == score.reward
        assert answer["reward_extra_info"] == {"score": score.reward, **score.scores}
    assert [answer["reward_score"] for answer in found[1::2]] == [0.0, 0.0]
    assert {frozenset(answer["reward_extra_info"]) for answer in found} == {frozenset({"score", *scores[0].scores})}
