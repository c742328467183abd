"""Blocks of the size of a body, which are let go of -> a process as small as before."""

from __future__ import annotations

import platform
import subprocess
import sys

KEEPS = """
import re, sys
from pathlib import Path
from serve.memory import give_back_large_blocks

if sys.argv[1] == "told":
    give_back_large_blocks()
bytearray(24 * 2**20)  # freed: from now on glibc takes this for a usual size
held = [(bytearray(24 * 2**20), bytearray(4096)) for _ in range(8)]
small = [pair[1] for pair in held]
del held
print(int(re.findall(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[0]) // 1024)
"""


def test_large_blocks_go_back_to_the_system() -> None:
    kept = {}
    for case in ("told", "untold"):
        done = subprocess.run([sys.executable, "-c", KEEPS, case], capture_output=True, text=True, check=True)
        kept[case] = int(done.stdout)
    assert kept["told"] < 64
    assert kept["untold"] > kept["told"] + 64 or platform.libc_ver()[0] != "glibc"
