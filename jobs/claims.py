"""An output -> nothing, or why it is not this job's: what cannot be written, and what another kind of job has begun."""

from __future__ import annotations

from iqa_core.errors import CallerError, RunError
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join

SCORES, SELECTION, TRAINING = "plan/000000.json", "selection.json", "training.json"
"""What each kind of output has, from its beginning on."""

_CALLED = {SCORES: "scores", SELECTION: "a selection", TRAINING: "a training run"}


def require_own(storage: Storage, output: str, own: str) -> None:
    """Raises CallerError; own: the mark of this job's outputs. Other files may lie there: they are not touched."""
    storage.require_writable(output, "--output", is_folder=True)
    for mark, called in _CALLED.items():
        if mark != own and _is_there(storage, join(output, mark)):
            raise CallerError(f"--output {output}: it holds {called} ({mark}); give a folder of its own")


def _is_there(storage: Storage, uri: str) -> bool:
    try:
        return storage.stat(uri) is not None
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(str(error)) from error
