"""A training step asks no device for a number and copies nothing to it that the host would wait for.

The meta device stands for a GPU here: it holds no values, so reading one is an error of PyTorch's own; copies that
block, and tensors made on it from numbers of the host, are caught on the way. ``tests/gpu`` asks CUDA itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segearth.config import LossConfig
from segearth.data.feed.loading import Collator, TrainingExample
from segearth.losses.criterion import Criterion
from segearth.models.build import build_model
from segearth.structures import Question
from segearth.utils.torchvision_mend import mend_torchvision
from segearth.zoo.lookup import model_config


class _NoBlockingCopy(TorchDispatchMode):
    """Refuses operators that take from the host and give to the device, other than copies that do not block."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        # A number alone (no axes) travels as an argument of the operator.
        devices = {tensor.device.type for tensor in tensors if tensor.ndim or "copy" in str(func)}
        free = (kwargs or {}).get("non_blocking") is True or any(arg is True for arg in args[2:3])  # of copy_
        assert len(devices) < 2 or ("copy" in str(func) and free), f"{func} waits for the device"
        return result


class _NoNumbersFromTheHost(TorchFunctionMode):
    """Refuses ``torch.tensor(numbers, device=…)`` and ``new_tensor``: they wait until the copy is done."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("tensor", "new_tensor", "as_tensor"):
            assert result.device.type == "cpu", f"{func.__name__} waits for the device"
        return result


@contextmanager
def no_waiting() -> Iterator[None]:
    with _NoNumbersFromTheHost(), _NoBlockingCopy():
        yield


@pytest.mark.parametrize(
    "wait",
    [
        lambda device: torch.ones(3).to(device),
        lambda device: torch.tensor([1, 2], device=device),
        lambda device: torch.ones(2, device=device).new_tensor([1]),
        lambda device: torch.ones(3, device=device)[torch.tensor([0, 1])],
        lambda device: torch.ones(3, device=device).sum().item(),
        lambda device: torch.ones(3, device=device)[torch.ones(3, device=device) > 0],
        lambda device: torch.ones(3, device=device).nonzero(),
        lambda device: bool(torch.ones(3, device=device).any()),
        lambda device: torch.arange(3, device=device).tolist(),
    ],
)
def test_what_waits_is_caught(wait: Any) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), no_waiting():
        wait("meta")


def runs_on_meta() -> bool:
    """Whether transformers asks torch only what it can answer for this device; 5.0 does not."""
    mend_torchvision()
    from transformers.utils.generic import maybe_autocast

    try:
        with maybe_autocast("meta", enabled=False):
            return True
    except RuntimeError:
        return False


@pytest.mark.skipif(not runs_on_meta(), reason="this transformers does not run on the meta device")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("template", "placed"), [("plain", False), ("segearth_r1", False), ("plain", True)])
def test_a_training_step_waits_for_nothing(template: str, placed: bool, checkpointing: bool) -> None:
    """From the batch on the host to the gradients: letterboxed, several images, both tasks, some with answers."""
    spec = {"coordinates": placed, "mask_decoder": {"box_gate": placed}, "text": {"template": template}}
    model = build_model(model_config({"name": "segearth_debug", **spec})).train()
    mask, valid = np.zeros((64, 64), bool), torch.ones(64, 64, dtype=torch.bool)
    asked = [
        [Question("ships", mask), Question("where is it dry?", mask, "On the hill.", "reasoning")],
        [Question("the roads", mask)],
    ]
    batch = Collator(model.prompt_encoder, True)(
        [TrainingExample(torch.zeros(3, 64, 64), valid, some) for some in asked]
    )
    model.to("meta").set_checkpointing(checkpointing)
    with no_waiting():
        there = batch.to("meta")
        output = model(there)
        criterion = Criterion(LossConfig(num_points=32, boxes=float(placed)))
        criterion(output, there).total.backward()
    silent = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == set()
