from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a hub that cannot be reached is asked for a minute before it is given up

import numpy as np
import pytest
import torch
from hypothesis import Phase, settings

from segearth.models.segearth import SegEarth
from segearth.zoo.lookup import load_model

# For tools/mutation.py: that a property fails is enough to know, its smallest counterexample would take minutes to
# find; and a mutant noticed today is noticed tomorrow.
settings.register_profile("mutation", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None)


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
