"""Settings of glibc's memory allocator (``mallopt``). On other systems than Linux nothing here has an effect."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # parameters of mallopt, from glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, to use it again.

    By default glibc returns large blocks to Linux when they are freed, and gets new pages for each new tensor. Linux
    fills every new page with zeros at its first use, which took a fifth of the time of a vision encoder on a CPU. The
    price is that the process never holds less than the most it needed at one time.

    Call this before the first tensor is made. PyTorch then also places large tensors on huge pages (where Linux allows
    them), and fewer gaps are left between blocks.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if mallopt := _of_glibc("mallopt"):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # -1: never return memory from the top of the heap


def give_back_freed_memory() -> None:
    """Returns large tensors to Linux as soon as they are freed, so that resident memory is what is really in use.

    Without this glibc raises its limit for what it returns, and keeps more the longer a process runs. This function
    ends the effect of :func:`keep_freed_memory`, and the other way round. Memory kept until then is returned by
    :func:`release_memory`; before that only small tensors are placed in it.
    """
    if mallopt := _of_glibc("mallopt"):
        mallopt(M_MMAP_MAX, 65536)  # glibc's default
        mallopt(M_MMAP_THRESHOLD, 2**20)


def release_memory() -> None:
    """Returns to Linux, once, all memory that is free now."""
    gc.collect()
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(function: str) -> Any:
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
