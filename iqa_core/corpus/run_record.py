"""`<output>/run.json` of a scoring run -> what it says: by whom the table was scored, and what was warned of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iqa_core.corpus.storage import Storage, join

RUN_RECORD = "run.json"


def run_record(storage: Storage, output: str) -> Mapping[str, Any]:
    """What the run that finished last wrote; empty where none has. Raises CallerError for what no run wrote."""
    uri = join(output, RUN_RECORD)
    return {} if storage.stat(uri) is None else storage.read_object(uri, "this_run", "rejected_by_reason")
