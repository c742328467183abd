"""A run -> its report beside it. A report that cannot be made does not fail the run."""

from __future__ import annotations

import sys
from collections.abc import Callable

from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join, scratch_of


def written(
    what: str,
    storage: Storage,
    output: str,
    make: Callable[[], bytes],
    *,
    name: str = "report.html",
    is_told: bool = True,
) -> None:
    """Put `<output>/<name>` and (`is_told`) print where it lies, or say on stderr why there is none."""
    uri = join(output, name)
    try:
        storage.put(uri, make(), scratch=scratch_of(output))
    except Exception as error:  # whatever the report fails on, the run is committed
        why = f"{type(error).__name__}: {error}"
        print(f"error: the report of this {what} could not be written ({why})", file=sys.stderr)
        return
    if is_told:
        print(f"report     {uri}", flush=True)
