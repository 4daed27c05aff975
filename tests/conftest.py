from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a hub that cannot be reached is asked for a minute before it is given up
# DeepSpeed wraps an optimiser of its own in torch.compile, which imports PyTorch's compiler for five seconds in every
# process that trains. Tests that compile take this back.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import numpy as np
import pytest
import torch
from hub_fakes import hub, published_files  # noqa: F401  (fixtures)
from hypothesis import HealthCheck, Phase, settings

from segearth.models.build import build_model
from segearth.models.segearth import SegEarth
from segearth.zoo.lookup import model_config

# A busy machine makes examples slowly, which is no fault of a property.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", PATIENT)
# For tools/mutation.py: that a property fails is enough to know, its smallest counterexample would take minutes to
# find; and a mutant noticed today is noticed tomorrow.
settings.register_profile("mutation", PATIENT, phases=(Phase.explicit, Phase.generate), derandomize=True, database=None)


def pytest_collectstart() -> None:
    """Tests are imported without looking for garbage: there is none, and a third of the time would go into that."""
    gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Leaves all that is imported and collected out of garbage collections: a full one would take 0.3 s each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def debug_model() -> SegEarth:
    torch.manual_seed(0)
    return build_model(model_config("segearth_debug")).eval()


@pytest.fixture(scope="session")
def placed_model() -> SegEarth:
    """What the published shape has not: coordinates, boxes and choices that hide something, windows that all shift."""
    config = model_config("segearth_debug")
    config.vision_encoder.depths = [2, 2, 2, 2]
    config.coordinates = config.mask_decoder.box_gate = config.region_chooser = True
    torch.manual_seed(1)
    model = build_model(config, load_weights=False).eval()
    assert model.mask_decoder.box_gate is not None and model.region_chooser is not None
    for mlp in (model.mask_decoder.box_gate.mlp, model.region_chooser.mlp):
        torch.nn.init.normal_(mlp[-1].weight, std=0.5)
    return model


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def saved_bytes() -> Callable[[Callable[[], Any]], tuple[Any, int]]:
    """A function that runs another and also returns how many bytes, weights aside, that keeps for the backward pass."""

    def count(function: Callable[[], Any]) -> tuple[Any, int]:
        kept: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor)  # held until counted: a freed address could be given to the next tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = function()
        storages = {t.untyped_storage().data_ptr(): t for t in kept if not isinstance(t, torch.nn.Parameter)}
        return result, sum(tensor.untyped_storage().nbytes() for tensor in storages.values())

    return count
