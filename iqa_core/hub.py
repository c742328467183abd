"""A repository of the Hugging Face Hub and file patterns -> a local folder with just those files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

_PART = r"(?!\.{1,2}(?:/|$))[\w.-]+"
HUB_NAME = re.compile(rf"(?P<repository>{_PART}/{_PART})(?:/(?P<folder>{_PART}(?:/{_PART})*))?")
"""`org/name`, or `org/name/folder`; no part is `.` or `..`."""


def fetch_from_hub(
    repository: str, kind: Literal["model", "dataset"], wanted: Sequence[str], unwanted: Sequence[str] = ()
) -> Path:
    """The hub's own local copy of `org/name`, fetched if it is not there; only files that match are asked for.

    wanted, unwanted: fnmatch patterns over the path in the repository; a `*` crosses folders.
    The environment of huggingface_hub counts: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
    Raises OSError that says why when it cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repository, repo_type=kind, allow_patterns=list(wanted), ignore_patterns=list(unwanted) or None
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise OSError(f"{kind} {repository!r} cannot be had from the hub: {error}") from None
