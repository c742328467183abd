"""`<output>/run.json` of a scoring run -> its content: what the table was scored by, and the warnings."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from iqa_core.errors import CallerError
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join

RUN_RECORD = "run.json"

LATER: Mapping[str, type] = {"meant_for": dict, "warnings": list, "written_answers": dict}
"""Fields that are read, and that old outputs do not have."""


def run_record(storage: Storage, output: str) -> Mapping[str, Any]:
    """Record of the run that finished last; empty where none has. Raises CallerError for a file that no run wrote."""
    uri = join(output, RUN_RECORD)
    if storage.stat(uri) is None:
        return {}
    way_out = "remove it: the scoring command writes it anew"
    found = storage.read_object(uri, {"this_run": dict, "rejected_by_reason": dict}, way_out)
    for name, kind in LATER.items():
        if not isinstance(found.get(name), kind | NoneType):
            raise CallerError(f"{uri}: its {name} is of another kind, so something else wrote it; {way_out}")
    return found
