"""Records of self-tests, those that `check` writes and those that are none."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from iqa_core.errors import CallerError
from iqa_core.grounding.verdict import RECORD, Verdict, read_verdicts
from iqa_core.inspection.grounding_results import GridResult, KindResult, SelfTest


def grid(dimension: str, side: int, hits: int) -> GridResult:
    kinds = tuple(KindResult(kind, side, 25, hits, None, 3, 0.1) for kind in ("jpeg", "blur", "noise", "colours"))
    return GridResult(dimension, side, kinds, 0.8, 0.0, 0.9, 0.5, 0.1)


def written(folder: Path, **changed: Any) -> Path:
    """What `check --grounding --output` leaves."""
    results = (grid("lighting", 2, 6), grid("lighting", 3, 6), grid("distortion", 2, 14), grid("distortion", 3, 2))
    record = SelfTest("views", 22, 100, MappingProxyType({}), results).record
    (folder / RECORD).write_text(json.dumps({"fingerprint": "f00d", **record, **changed}))
    return folder


def test_each_dimension_has_its_verdict_in_the_grid_that_is_asked(tmp_path: Path) -> None:
    found = read_verdicts(written(tmp_path), "f00d", ["lighting", "distortion"], 2)
    assert found == {"lighting": Verdict(False, 24, 100, 0.25), "distortion": Verdict(True, 56, 100, 0.25)}
    assert str(found["distortion"]) == "above chance: 0.56 (0.46 to 0.65) of 100 images, chance 0.25"
    assert str(found["lighting"]).startswith("at chance: 0.24")
    assert read_verdicts(tmp_path / RECORD, "f00d", ["distortion"], 3)["distortion"].is_above_chance is False
    for verdict in found.values():
        assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_what_is_no_record_of_this_assessor_is_refused(tmp_path: Path) -> None:
    def refused(said: str, fingerprint: str = "f00d", names: tuple[str, ...] = ("lighting",), cells: int = 2) -> None:
        with pytest.raises(CallerError, match=f"--self-test .*{said}"):
            read_verdicts(tmp_path, fingerprint, names, cells)

    refused("No such file|cannot be read|not found")
    written(tmp_path)
    refused("of fingerprint f00d, and this run asks views of beef", "beef")
    refused("says nothing of layout in 2x2 cells", names=("lighting", "layout"))
    refused("says nothing of lighting in 4x4", cells=4)
    written(tmp_path, method="tiles")
    refused("it tried tiles")
    for broken in (b"", b"[]", b"{}", b"\xff", b'{"fingerprint": "f00d", "method": "views", "results": [3]}'):
        (tmp_path / RECORD).write_bytes(broken)
        refused("is not what `check --grounding FOLDER --output` writes")
    (tmp_path / RECORD).write_bytes(b" " * 2**21)
    refused("is no record")
