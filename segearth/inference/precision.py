"""Makes a loaded model smaller: in bfloat16, or with the language model's weights as 8- or 4-bit integers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from segearth.errors import ConfigError, MissingExtraError, UnknownNameError

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth

logger = logging.getLogger(__name__)
PRECISIONS = ("fp32", "bf16", "int8", "int4")
GROUPS = (128, 64, 32)  # input features of a row that share a 4-bit scale; the largest that divides a row is taken


def set_precision(model: SegEarth, precision: str) -> SegEarth:
    """Changes the precision of a model's weights, in place, for use without training.

    Call it when the model is on the device that it will run on: 4-bit weights are packed differently for each.

    ``int8`` and ``int4`` hold the weights of the language model's linear layers as integers, with a scale for each row
    or each group of a row. The rest is fp32 on a CPU and bf16 on a GPU: embeddings, the output head and everything that
    sees pixels are not quantised. Such a model can be used but not saved.

    Args:
        model: On its device, not quantised yet.
        precision: ``"fp32"``, ``"bf16"``, ``"int8"`` or ``"int4"``.

    Returns:
        ``model``, in eval mode.

    Raises:
        UnknownNameError: No such precision.
        ConfigError: The model is quantised already, its language model has no linear layers that can be, or it is to be
            ``int4`` on Apple's GPU.
        MissingExtraError: ``int8`` and ``int4`` need torchao.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if is_quantised(model):
        raise ConfigError("the model is quantised already, and what that rounded is lost; open it again")
    if precision == "int4" and model.device.type == "mps":
        raise ConfigError("int4 has no kernels for Apple's GPU; take int8 or bf16 there, or the device cpu")
    if precision in ("int8", "int4"):
        _require_torchao()
    halved = precision == "bf16" or (precision != "fp32" and model.device.type != "cpu")
    with model.language_model.exact_buffers():
        model.eval().to(torch.bfloat16 if halved else torch.float32)
    if precision in ("int8", "int4"):
        _quantise(model, precision)
    return model


def is_quantised(model: nn.Module) -> bool:
    """Whether some weights are held as integers."""
    return any(type(p.data).__module__.startswith("torchao.") for p in model.parameters())


def _quantise(model: SegEarth, precision: str) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    body = model.language_model.causal_lm.base_model  # without the head, which may be tied to the embeddings
    layers = [layer for layer in body.modules() if type(layer) is nn.Linear]
    fitting = [layer for layer in layers if precision == "int8" or _group(layer)]
    if not fitting:
        raise ConfigError(f"{precision}: this language model has no linear layer that can be quantised; use bf16")
    if len(fitting) < len(layers):
        logger.warning("%d of %d linear layers are too narrow for int4", len(layers) - len(fitting), len(layers))
    for layer in fitting:
        if precision == "int8":
            quantize_(layer, Int8WeightOnlyConfig(set_inductor_config=False))
        else:
            _run_in_bf16(layer)
            quantize_(layer, _int4_config(_group(layer), model.device.type))


def _run_in_bf16(layer: nn.Linear) -> None:
    """Makes a layer compute in bf16 between neighbours of fp32: in fp32 the 4-bit kernels are 100 times slower."""
    if layer.weight.dtype == torch.bfloat16:
        return
    layer.bfloat16()
    layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16(),))
    layer.register_forward_hook(lambda _, __, output: output.float())


def _group(layer: nn.Linear) -> int:
    return next((size for size in GROUPS if layer.in_features % size == 0), 0)


def _int4_config(group: int, device: str) -> Any:
    """Returns torchao's settings for 4 bits. PyTorch's kernels want the weights packed differently on each device."""
    if device == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)
    from torchao.quantization import Int4WeightOnlyConfig
    from torchao.quantization.quantize_.workflows import Int4PackingFormat

    packing = Int4PackingFormat.TILE_PACKED_TO_4D
    return Int4WeightOnlyConfig(group_size=group, int4_packing_format=packing, set_inductor_config=False)


def _require_torchao() -> None:
    try:
        import torchao  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("torchao", "quant", error) from error
