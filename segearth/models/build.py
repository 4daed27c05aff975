"""Builds a model from a configuration, with weights, or as shapes alone."""

from __future__ import annotations

import torch

from segearth.config import ModelConfig
from segearth.models.parts import build_parts
from segearth.models.segearth import SegEarth
from segearth.utils.torchvision_mend import mend_torchvision


def build_model(config: ModelConfig, load_weights: bool = True) -> SegEarth:
    """Builds a model with random weights, or with pretrained ones for the parts that name some.

    Args:
        config: The model's configuration.
        load_weights: ``False`` when weights follow from elsewhere, so that pretrained parts are not fetched.

    Raises:
        ConfigError: Values that do not fit together.
        UnknownNameError: A kind, backbone, template or language-model type that does not exist.
    """
    return SegEarth(**build_parts(config, load_weights))


def build_on_meta(config: ModelConfig) -> SegEarth:
    """Builds a model on PyTorch's meta device: its tensors have shapes, but no values and no memory for them."""
    mend_torchvision()
    # Imports torch's compiler, which torch 2.6 cannot import while the meta device is the default.
    import transformers.modeling_utils  # noqa: F401

    with torch.device("meta"):
        return build_model(config, load_weights=False)
