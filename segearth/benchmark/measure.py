"""Measures time and memory of several alternatives, in turn and in one process, so that they can be compared."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from segearth.utils.memory import release_memory

Name = TypeVar("Name")
PEAK = "VmHWM:"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def alternate(works: Mapping[Name, Callable[[], Any]], repeats: int, device: torch.device) -> dict[Name, list[float]]:
    """Runs each work in turn, ``repeats`` rounds after a round that does not count.

    Machines slow down and speed up; what is measured in turn slows down and speeds up together.

    Args:
        works: What to run, by name.
        repeats: Rounds.
        device: Where the work is done.

    Returns:
        Seconds of each counted round by name.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(work: Callable[[], Any], device: torch.device) -> int | None:
    """Returns the bytes that a work needs beyond what is held when it starts, at its peak.

    On a CPU it is the process's resident memory as Linux counts it; ``None`` on other systems.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - allocated
    before = _start_peak()
    if before is None:
        return None
    work()
    return _peak() - before


def peak_resident(work: Callable[[], Any], device: torch.device) -> int | None:
    """Returns the bytes of this process that are in memory at a work's peak, its libraries and weights included.

    ``None`` on a GPU, and where the system is not Linux.
    """
    if device.type != "cpu" or _start_peak() is None:
        return None
    work()
    return _peak()


def _start_peak() -> int | None:
    """Resets the recorded peak to the memory that is resident now, and returns that amount in bytes."""
    gc.collect()
    if not RESET.exists():
        return None
    release_memory()
    RESET.write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(PEAK))
    return int(line.split()[1]) * 1024
