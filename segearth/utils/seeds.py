"""Seeds: one integer decides every random draw."""

from __future__ import annotations

import random

import numpy as np


def seed_everything(seed: int) -> None:
    """Seeds the global random generators of Python, NumPy and torch."""
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that still use the global generator
    torch.manual_seed(seed)


def rng_for(*keys: int) -> np.random.Generator:
    """Returns a generator seeded by ``keys``, such as (seed, epoch, index): equal keys draw alike in every process."""
    return np.random.default_rng(list(keys))
