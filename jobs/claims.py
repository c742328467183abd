"""An output -> nothing, or why this job may not have it: it cannot be written, or another kind of job has begun it."""

from __future__ import annotations

from iqa_core.errors import CallerError, RunError
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join

SCORES, SELECTION, TRAINING = "plan/000000.json", "selection.json", "training.json"
"""The file that each kind of output has from its beginning on: its mark."""

_CALLED = {SCORES: "scores", SELECTION: "a selection", TRAINING: "a training run"}


def require_own(storage: Storage, output: str, own: str) -> None:
    """Check that an output is new or of this kind; other files may lie there, and are not touched.

    own: the mark of this job's outputs. Raises CallerError.
    """
    storage.require_writable(output, "--output", is_folder=True)
    for mark, called in _CALLED.items():
        if mark != own and _is_there(storage, join(output, mark)):
            raise CallerError(f"--output {output}: it holds {called} ({mark}); give a folder of its own")


def _is_there(storage: Storage, uri: str) -> bool:
    try:
        return storage.stat(uri) is not None
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(str(error)) from error
