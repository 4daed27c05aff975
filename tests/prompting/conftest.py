"""Tiny models, built once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segearth.prompting.tiny import TinyShape, tiny_sam2, tiny_sam3, tiny_vision_language_model
from segearth.utils.torchvision_mend import mend_torchvision

mend_torchvision()  # before the tests import classes of transformers by themselves
SHAPE = TinyShape(side=64, hidden=64, layers=1, vision_hidden=32, vision_layers=1, numbers=65)


@pytest.fixture(scope="session")
def tiny_vlm() -> tuple[Any, Any]:
    """A model of 0.2 M parameters and its processor."""
    torch.manual_seed(0)
    model, processor = tiny_vision_language_model(SHAPE)
    with torch.no_grad():  # at their first size, the weights would repeat the last token whatever is asked and shown
        for name, weight in model.named_parameters():
            if "embed_tokens" not in name and weight.dim() > 1:
                weight.mul_(10)
    return model, processor


@pytest.fixture(scope="session")
def sam2() -> Any:
    torch.manual_seed(0)
    return tiny_sam2()


@pytest.fixture(scope="session")
def sam3() -> tuple[Any, Any]:
    """A model and its tokenizer."""
    torch.manual_seed(0)
    return tiny_sam3()
