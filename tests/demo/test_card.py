"""Figures of the demo -> their section of its card; the rest of the card, and what else lies there, stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, read_manifest, save_manifest
from iqa_core.demo.card import CHECKPOINT, DOMAIN, figures_of, install, with_section, written_table
from iqa_core.demo.scenes import DIMENSIONS

CARD = "# Mine\n\n<!-- figures -->\nold\n<!-- /figures -->\n\nThe end.\n"


def evaluated(rubric: str, srcc: float) -> dict[str, Any]:
    agreement = {name: {"srcc": {"value": srcc}} for name in DIMENSIONS} | {"overall": {"srcc": {"value": 0.0}}}
    return {"about": {"rubric": rubric}, "agreement": agreement}


def test_a_section_is_replaced_and_nothing_else() -> None:
    found = with_section(CARD, "figures", ["new", "lines"])
    assert found == "# Mine\n\n<!-- figures -->\n\nnew\nlines\n\n<!-- /figures -->\n\nThe end.\n"
    assert with_section(found, "figures", ["new", "lines"]) == found
    with pytest.raises(ValueError, match="no section between <!-- others -->"):
        with_section(CARD, "others", [])


def test_an_export_takes_the_place_of_what_ships_but_for_the_card(tmp_path: Path) -> None:
    export, checkpoint = tmp_path / "export", tmp_path / "checkpoint"
    for folder in (export, checkpoint):
        folder.mkdir()
    for name in ("model.safetensors", "README.md", "training.json"):
        (export / name).write_text("new")
    save_manifest(export, CheckpointManifest(rubric="interior-v4", prompt_version=4, dtype="float32"))
    (export / ".tmp").mkdir()  # of a local storage
    (checkpoint / "README.md").write_text(CARD)
    figures = evaluated("interior-v4", 0.9751) | {"against": [evaluated("interior-v1", 0.93)]}
    install(export, figures_of([figures]), checkpoint)
    assert {file.name for file in checkpoint.iterdir()} == {"README.md", "model.safetensors", "assessor.toml"}
    assert (checkpoint / "model.safetensors").read_text() == "new"
    manifest = read_manifest(checkpoint)
    assert manifest == CheckpointManifest(rubric="interior-v4", prompt_version=4, dtype="float32", domain=DOMAIN)
    assert "| interior-v4 | .975 | .975 | .975 | .975 | .975 |" in (checkpoint / "README.md").read_text()
    assert "| interior-v1 | .930 |" in (checkpoint / "README.md").read_text()


def test_what_ships_says_what_it_knows() -> None:
    manifest = read_manifest(CHECKPOINT)
    assert manifest is not None
    assert manifest.domain == DOMAIN


def test_the_card_that_ships_has_figures_of_four_dimensions() -> None:
    section = (CHECKPOINT / "README.md").read_text().split("<!-- figures -->")[1].split("<!-- /figures -->")[0]
    assert "| | layout | harmony | lighting | distortion | mean |" in section
    assert "| interior-v4 | ." in section


def test_figures_of_what_is_written_have_the_share_that_is_parsed() -> None:
    both = evaluated("interior-written-v1", 0.9) | {"parsed": {"quality": 0.998}}
    both["agreement"]["quality"] = {"srcc": {"value": 0.95}}
    quality = {name: both["agreement"][name] for name in ("quality",)}
    alone = {"about": {"rubric": "interior-perception-v1"}, "agreement": quality, "parsed": {"quality": 1.0}}
    assert list(written_table([both, alone])) == [
        "| | layout | harmony | lighting | distortion | quality | parsed |",
        "|---|---|---|---|---|---|---|",
        "| interior-written-v1 | .900 | .900 | .900 | .900 | .950 | .998 |",
        "| interior-perception-v1 | – | – | – | – | .950 | 1.000 |",
    ]
