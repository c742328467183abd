"""A process that holds bodies of many megabytes -> one that gives them back to the system when it lets go of them."""

from __future__ import annotations

import ctypes
import sys

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 2**20
"""Of a block that gets pages of its own. By itself glibc takes what is freed for the usual size, up to 32 MiB, and
keeps blocks of that size in heaps of threads, which rarely shrink: 0.5 GB after a few bodies of 64 MiB."""


def give_back_large_blocks() -> None:
    """From now on, in this process. Nothing happens where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
