"""`<output>/run.json` of a scoring run -> what it says: by whom the table was scored, and what was warned of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from iqa_core.corpus.storage import Storage, join

RUN_RECORD = "run.json"


def run_record(storage: Storage, output: str) -> Mapping[str, Any]:
    """What the run that finished last wrote; empty where none has, or its file is damaged: the next one writes anew."""
    uri = join(output, RUN_RECORD)
    if storage.stat(uri) is None:
        return {}
    try:
        found = json.loads(storage.read(uri))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
