"""The commands of docs/choose.md, run as they stand there, on the images that the page speaks of, in a real bucket."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from iqa_core.demo.corpus import write_scenes
from tests.clusters import one_node
from tests.s3_server import KEY, SECRET, S3Server
from tests.test_docs import ROOT, fenced

COUNTED = re.compile(r"^ *(?:images|kept|dropped|\d:[\w:]+) +[\d,]+$", re.MULTILINE)
"""Lines of a selection's counts."""


def commands() -> list[tuple[str, str]]:
    """Command -> what the page shows of its output."""
    page = (ROOT / "docs" / "choose.md").read_text(encoding="utf-8")
    blocks = [block for block in fenced(page, "") if block.startswith("$ ")]
    return [(block.split("\n", 1)[0][2:], block.split("\n", 1)[1]) for block in blocks]


@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.timeout(1200)
def test_the_page_does_what_it_says(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Ray whose workers have the credentials in their environment."""
    rooms = tmp_path / "rooms"
    write_scenes(rooms, 60, seed=7, format="webdataset")
    bucket = s3_server.named_bucket("pictures")
    bucket.put_all({f"rooms/{path.name}": path.read_bytes() for path in rooms.glob("*.tar")})
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = commands()
    assert len(found) >= 5
    with one_node(num_cpus=2) as address:
        for command, shown in found:
            words = shlex.split(command)
            assert words[0] == "python"
            if words[1].startswith("jobs/"):
                words[1] = str(ROOT / words[1])
            done = subprocess.run(
                [sys.executable, *words[1:]],
                cwd=tmp_path,
                env={**os.environ, "RAY_ADDRESS": address},
                capture_output=True,
                text=True,
                timeout=600,
            )
            output = done.stdout + done.stderr
            print(f"$ {command}\n{output}")
            assert done.returncode == (2 if shown.startswith("error: ") else 0), output
            if shown.startswith("error: "):
                assert done.stderr == shown
            for line in COUNTED.findall(shown):  # rules that rank: what they keep hangs on no last digit
                assert line in output, output
    assert (tmp_path / "report.html").exists()
    assert bucket.keys("chosen/webdataset/")
    assert bucket.keys("chosen/list/selected.parquet")
    assert bucket.keys("chosen/report.html")
