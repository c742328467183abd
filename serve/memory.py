"""A process that holds bodies of many megabytes -> one that gives them back to the system when it lets go of them."""

from __future__ import annotations

import ctypes
import sys

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 2**20
"""Size from which a block gets pages of its own. Left alone, glibc raises it to what is freed, up to 32 MiB, and keeps
smaller blocks in heaps of threads, which rarely shrink: 0.5 GB after a few bodies of 64 MiB."""


def give_back_large_blocks() -> None:
    """Have this process return large blocks to the system once they are freed. Without glibc nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
