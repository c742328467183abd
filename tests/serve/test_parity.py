"""The same images through the scoring job and through the endpoint: same scores, same reasons."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.assessor.direct import load_assessor
from iqa_core.demo.corpus import write_scenes
from iqa_core.grounding.locating import assess_regions, locate
from tests.bad_images import bad_images
from tests.corpora import tiny_png, write_folder
from tests.jobs.running import read_run, read_table, run
from tests.serve.conftest import Deploy, remove
from tests.serve.local import UNEVEN
from tests.serve.protocol.test_chat import asking_for, place_of
from tests.serve.protocol.test_grounding import IMAGES, check

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
    for begin in range(0, len(rows), PER_REQUEST):
        part = rows[begin : begin + PER_REQUEST]
        files = [("images", (corpus / row["key"]).read_bytes()) for row in part]
        answer = httpx2.post(f"{demo_url}/v1/assess", files=files, data={"probs": "true"}, timeout=60)
        assert_agree(part, answer, fingerprint)


def test_parts_of_images_have_the_scores_of_a_notebook(demo_url: str) -> None:
    """Through Serve's own handles and processes."""
    demo = load_assessor("demo", threads=1)
    boxes = [[10.0, 20.0, 60.0, 40.0]]
    sent = [{"data": base64.b64encode(image).decode(), "boxes": boxes} for image in IMAGES]
    answer = httpx2.post(f"{demo_url}/v1/ground", json={"images": sent, "grid": 3}, timeout=60)
    assert answer.status_code == 200, answer.text
    for image, entry in zip(IMAGES, answer.json()["results"], strict=True):
        check(entry, locate(demo, image, cells=3), assess_regions(demo, image, boxes))


def test_the_job_and_the_endpoint_agree_on_every_image_and_its_prompt(deploy: Deploy, tmp_path: Path) -> None:
    """The endpoint has another rubric beside the job's."""
    rubric, output = UNEVEN.with_name("prompted.toml"), tmp_path / "scores"
    unusual = [None, " ", " two dogs\n", "x" * 2001, "y" * 2000, "Köln 🏛 <|im_end|> <image> {prompt}"]
    captions = [*unusual, *(f"picture number {i}" for i in range(10))]
    images = [b"no image" if i in (1, 15) else tiny_png(i % 4) for i in range(16)]
    rows = [{"image": {"bytes": image}, "caption": text} for image, text in zip(images, captions, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "made.parquet")
    flags = ("--assessor.checkpoint", "fake:", "--rubric", rubric, "--slot", "prompt=caption")
    code, text = run(
        *("--input", tmp_path / "made.parquet", "--output", output, "--probs", "--max-reject-rate", 1),
        *("--num-actors", 1, "--no-check", *flags),
    )
    assert code == 0, text
    url = deploy("prompted", {"assessor": {"checkpoint": "fake:"}, "rubrics": f"interior-v1,{rubric}"})
    try:
        body = {"images": [{"data": base64.b64encode(image).decode()} for image in images], "prompts": captions}
        answer = httpx2.post(f"{url}/v1/assess", json={**body, "rubric": "prompted", "probs": True}, timeout=60)
        assert httpx2.post(f"{url}/v1/assess", json=body, timeout=60).json()["rubric"] == "interior-v1"
        text = 'Does this picture show "two dogs"?'  # the third's caption
        chat = httpx2.post(f"{url}/v1/chat/completions", json=asking_for(images[2], text, "prompted"), timeout=60)
    finally:
        remove("prompted")
    table = read_table(output).sort_by("row").to_pylist()
    assert_agree(table, answer, read_run(output)["fingerprint"])
    found = {one["token"]: math.exp(one["logprob"]) for one in place_of(chat)["top_logprobs"]}
    assert found == pytest.approx(dict(zip(("No", "Yes"), table[2]["faithful_probs"], strict=True)), abs=1e-4)
    reasons = [row["reason"] for row in table]
    assert (reasons.count("missing_text"), reasons.count("too_large"), reasons.count(None)) == (1, 1, 12)


def assert_agree(rows: Sequence[Mapping[str, Any]], answer: httpx2.Response, fingerprint: str) -> None:
    """Rows of a score table, and the results of an answer in the same order."""
    assert answer.status_code == 200, answer.text
    assert answer.json()["fingerprint"] == fingerprint
    for row, result in zip(rows, answer.json()["results"], strict=True):
        assert result["status"] == row["status"], row["key"]
        assert [result.get(name) for name in ("width", "height", "frames", "format")] == [
            row[name] for name in ("width", "height", "frames", "format")
        ]
        if row["status"] == "rejected":
            assert (result["reason"], result["detail"]) == (row["reason"], row["detail"]), row["key"]
            assert not {"scores", "std", "probs", "yes", "reward"} & result.keys()
            continue
        assert result["scores"].keys() == {name.removesuffix("_std") for name in row if name.endswith("_std")}
        found = {"reward": result["reward"], **result["scores"]}
        found |= {f"{name}_std": value for name, value in result["std"].items()}
        found |= {f"{name}_probs": values for name, values in result["probs"].items()}
        found |= {f"{name}_yes": values for name, values in result.get("yes", {}).items()}
        for name, value in found.items():
            np.testing.assert_allclose(value, row[name], atol=1e-4, rtol=0)
