"""How the C library gives memory back to Linux. On other systems nothing here has an effect."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of mallopt, in glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets this process keep the memory it frees.

    Tensors of many megabytes are otherwise mapped anew each time they are made, and Linux clears every page at its
    first touch: a fifth of the time of a vision encoder on a CPU. In exchange the process holds what it once needed.

    Call it before the first tensor is made: PyTorch then starts large tensors on huge pages (where Linux allows them),
    and fewer holes are left between them.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if mallopt := _of_glibc("mallopt"):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # never


def give_back_freed_memory() -> None:
    """Lets large tensors leave this process when they are freed, so that its resident memory is what is in use.

    Left alone the C library keeps more of them the longer it runs. This and :func:`keep_freed_memory` end each other;
    what was kept until then stays until :func:`release_memory`, and its holes are filled by small tensors alone.
    """
    if mallopt := _of_glibc("mallopt"):
        mallopt(M_MMAP_MAX, 65536)  # glibc's own
        mallopt(M_MMAP_THRESHOLD, 2**20)


def release_memory() -> None:
    """Gives back what is free now."""
    gc.collect()
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(function: str) -> Any:
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
