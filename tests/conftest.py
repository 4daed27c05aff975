from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a hub that cannot be reached is asked for a minute before it is given up

import numpy as np
import pytest
import torch

from segearth.models.segearth import SegEarth
from segearth.zoo.lookup import load_model


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def debug_model() -> SegEarth:
    torch.manual_seed(0)
    return load_model("segearth_debug", weights=None)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)
