"""What only a GPU can show: skipped without one, run by ``tools/gpu_check.sh`` where there is one.

These tests use no fixture of the folder above and no package but PyTorch, pytest and what the library itself needs:
nothing can be installed on some machines with a GPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

DEVICE = os.environ.get("SEGEARTH_GPU_CHECK_DEVICE", "cuda")  # "cpu" tries the tests themselves
TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS / "convert"))  # for what the recordings of the public code are read with


@pytest.fixture(scope="session")
def device() -> Iterator[torch.device]:
    """The device, without the shorter floats that convolutions take by default: they would hide what differs."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA; on a machine that has it run tools/gpu_check.sh")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device(DEVICE)
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """Finds a recording of the public code; the test is skipped where it is not at hand."""
    named = os.environ.get("SEGEARTH_GOLDEN")
    places = [Path(named)] if named else []
    places += [TESTS.parents[0] / "shared" / "golden", TESTS.parents[1] / "shared" / "golden"]
    places.append(TESTS / "convert" / "golden")

    def find(name: str) -> Path:
        for folder in places:
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"{name} is too large to be committed; set SEGEARTH_GOLDEN to the folder of all recordings")

    return find
