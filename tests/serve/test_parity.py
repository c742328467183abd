"""The same images through the scoring job and through the endpoint: same scores, same reasons."""

from __future__ import annotations

from pathlib import Path

import httpx2
import numpy as np
import pytest

from iqa_core.demo.corpus import write_scenes
from tests.bad_images import bad_images
from tests.corpora import write_folder
from tests.jobs.running import read_run, read_table, run

pytestmark = pytest.mark.ray

PER_REQUEST = 16


def test_the_job_and_the_endpoint_agree_on_every_image(demo_url: str, tmp_path: Path) -> None:
    """The job on a Ray of its own: the endpoint's has no CPUs left. Its checkpoint is checked by other tests."""
    corpus, output = tmp_path / "corpus", tmp_path / "scores"
    write_scenes(corpus, 24, seed=5, format="folder", size=112, image_format="jpeg")
    write_folder(corpus, {image.name: image.data for image in bad_images()})
    code, text = run(
        "--input", corpus, "--output", output, "--probs", "--max-reject-rate", 1, "--num-actors", 1, "--no-check"
    )
    assert code == 0, text
    rows = read_table(output).to_pylist()
    assert len(rows) > 80

    fingerprint = read_run(output)["fingerprint"]
    dimensions = ("layout", "harmony", "lighting", "distortion")
    for begin in range(0, len(rows), PER_REQUEST):
        part = rows[begin : begin + PER_REQUEST]
        files = [("images", (corpus / row["key"]).read_bytes()) for row in part]
        answer = httpx2.post(f"{demo_url}/v1/assess", files=files, data={"probs": "true"}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["fingerprint"] == fingerprint
        for row, result in zip(part, answer.json()["results"], strict=True):
            assert result["status"] == row["status"], row["key"]
            assert [result.get(name) for name in ("width", "height", "frames", "format")] == [
                row[name] for name in ("width", "height", "frames", "format")
            ]
            if row["status"] == "rejected":
                assert (result["reason"], result["detail"]) == (row["reason"], row["detail"]), row["key"]
                assert not {"scores", "std", "probs", "reward"} & result.keys()
                continue
            for name in dimensions:
                np.testing.assert_allclose(result["scores"][name], row[name], atol=1e-4, rtol=0)
                np.testing.assert_allclose(result["std"][name], row[f"{name}_std"], atol=1e-4, rtol=0)
                np.testing.assert_allclose(result["probs"][name], row[f"{name}_probs"], atol=1e-4, rtol=0)
            np.testing.assert_allclose(result["reward"], row["reward"], atol=1e-4, rtol=0)
