"""A scoring run as its operator sees it: heartbeat, log, status, metrics; and its table compacted and gone on with.

Tests iqa_core/status.py and jobs/assessing/metrics.py.
"""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from iqa_core.__main__ import main
from iqa_core.client import RewardClient
from iqa_core.storage.storage import Storage
from iqa_core.tables.heartbeats import heartbeats
from tests.clock import wait_for
from tests.corpora import tiny_png, write_folder
from tests.jobs import running
from tests.serve.local import listening

pytestmark = pytest.mark.ray

IMAGES = 120
MONITORING = running.ROOT / "cluster" / "monitoring"
METRIC = re.compile(r"\b(?:ray_|iqa_)\w+")
"""In a PromQL expression; nothing else in them begins so."""


def status(capsys: pytest.CaptureFixture[str], output: Path, *flags: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["status", str(output), "--json", *flags]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def exported(address: str) -> str:
    """What every node of the cluster exports for Prometheus."""
    import ray

    with ray.init(address=address, log_to_driver=False, configure_logging=False, ignore_reinit_error=True):
        nodes = [(node["NodeManagerAddress"], node["MetricsExportPort"]) for node in ray.nodes() if node["Alive"]]
    pages = [urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=60) for host, port in nodes]
    return "\n".join(page.read().decode() for page in pages)


def expressions() -> dict[str, str]:
    """Panel or alert -> PromQL, of all that lies in cluster/monitoring."""
    board = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }
    found |= {variable["name"]: str(variable.get("query")) for variable in board["templating"]["list"]}
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    return found | {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}


def missing_metrics(page: str) -> dict[str, list[str]]:
    """Panel or alert -> metrics that it names and the page of metrics does not have."""
    # a counter by labels that has counted nothing yet is announced only
    there = set(re.findall(r"^(?:# TYPE )?(\w+)(?:\{| )", page, re.MULTILINE))
    named = {name: METRIC.findall(text) for name, text in expressions().items()}
    return {name: absent for name, metrics in named.items() if (absent := sorted(set(metrics) - there))}


def test_metrics_that_are_named_are_found_and_others_missed() -> None:
    assert len(expressions()) > 30
    absent = missing_metrics('ray_iqa_job_chunks_open{run="a"} 1\niqa_open_requests 0\n')
    assert "iqa_waiting_images" in absent["Queue A"]
    assert "Queue B" not in absent
    assert absent["ScoringStalled"] == ["ray_iqa_job_quiet_seconds"]


def test_a_run_from_its_start_to_its_compacted_table(
    tmp_path: Path, ray_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "in", {f"{index:03d}.png": tiny_png(index) for index in range(IMAGES - 2)})
    (tmp_path / "in" / "000-empty.png").write_bytes(b"")
    (tmp_path / "in" / "001-dangling.png").symlink_to(tmp_path / "later.png")
    output = tmp_path / "out"
    arguments = ("--input", tmp_path / "in", "--output", output, "--chunk-images", 5)
    model = ("--assessor.checkpoint", "fake:?sleep_s=0.6", "--num-actors", 2)
    process = running.start(*arguments, *model, address=ray_address)

    with listening() as url, RewardClient(url) as client:
        client.assess([tiny_png(1)])
        page = ""

        def all_are_there() -> bool:
            nonlocal page
            assert process.poll() is None, process.communicate()[0]
            page += exported(ray_address) + urllib.request.urlopen(f"{url}/metrics").read().decode()
            print(absent := missing_metrics(page))
            phases = [beat.progress.get("phase") for beat in heartbeats(Storage(), str(output))]
            return not absent and phases == ["scoring"]  # runs of other tests have left their metrics behind

        wait_for(all_are_there, timeout_s=90, every_s=0.5)
    at_work = status(capsys, output)
    assert at_work["is_active"]
    assert at_work["chunks"]["planned"] == IMAGES / 5
    [beat] = at_work["runs"]
    assert beat["progress"]["phase"] == "scoring"
    code, text = running.run("--scores", output, job="compact_scores")
    assert code == 2
    assert "score_corpus is at work there" in text
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text

    ended = status(capsys, output, "--verify")
    assert not ended["is_active"]
    assert ended["images"] == {"planned": IMAGES, "done": IMAGES, "left": 0}
    assert ended["verified"]["faults"] == []
    assert ended["rejected_by_reason"] == ended["verified"]["rejected_by_reason"] == {"empty": 1, "missing": 1}
    [ended_run] = ended["runs"]
    assert ended_run["state"] == "done"
    assert ended_run["progress"]["images_this_run"] == IMAGES
    parts = sorted((output / "runs").glob(f"{ended_run['run']}.*.jsonl"))
    events = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert {event["run"] for event in events} == {ended_run["run"]}
    assert [event["event"] for event in events[:1] + events[-1:]] == ["run_started", "run_ended"]
    complete = [event for event in events if event["event"] == "chunk_complete"]
    assert len({event["chunk"] for event in complete}) == len(complete) == IMAGES / 5
    assert sum(event["images"] for event in complete) == IMAGES
    assert [event["rejected"] for event in complete if event["rejected"]] == [{"empty": 1, "missing": 1}]

    before = running.read_table(output)
    code, text = running.run("--scores", output, "--file-images", 50, job="compact_scores")
    assert code == 0, text
    assert "now        24 chunks in 3 files" in text
    running.assert_same_tables(running.read_table(output), before, tolerance=0)
    code, text = running.run(*arguments, *model)
    assert code == 0, text
    assert "nothing is left to do" in text
    (tmp_path / "later.png").write_bytes(tiny_png(7))
    code, text = running.run(*arguments, *model, "--retry-rejected", "--on-changed", "ignore", address=ray_address)
    assert code == 0, text
    assert running.read_run(output)["rejected_by_reason"] == {"empty": 1}
    after = {row["key"]: row for row in running.read_table(output).to_pylist()}
    assert after.pop("001-dangling.png")["status"] == "scored"
    assert list(after.values()) == [row for row in before.to_pylist() if row["key"] != "001-dangling.png"]
    assert status(capsys, output, "--verify")["files"] == {"single": 1, "packs": 3}
