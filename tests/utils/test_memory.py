from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys, torch
from pathlib import Path
from segearth.utils.memory import give_back_freed_memory, keep_freed_memory, release_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if sys.argv[1] in ("keep", "keep, then give"):
    keep_freed_memory()
if sys.argv[1] != "keep":
    for _ in range(3):  # glibc, left alone, learns from these to keep
        torch.ones(30 * 2**20 // 4)
    give_back_freed_memory()
before = resident()
torch.ones(30 * 2**20 // 4)
print(resident() - before > 16)
release_memory()
print(resident() - before > 16)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("way", "kept"), [("keep", "True"), ("give", "False"), ("keep, then give", "False")])
def test_freed_memory_is_kept_until_it_is_released(way: str, kept: str) -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT, way], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [kept, "False"]
