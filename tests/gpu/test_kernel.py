"""The kernel of deformable sampling against its definition, on the device and at the published size."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from segearth.layers.deformable_attention import Sampler, _sampler, multi_scale_sample, multi_scale_sample_definition

pytestmark = pytest.mark.gpu

Shapes = list[tuple[int, int]]
PUBLISHED: Shapes = [(32, 32), (64, 64), (128, 128)]  # of 1024 px: as many queries as cells
CASES: dict[str, tuple[Shapes, int, int, int, int, int]] = {  # levels, images, queries, heads, width, points
    "published": (PUBLISHED, 1, 21504, 8, 32, 4),
    "several images": ([(3, 4), (6, 8), (12, 16)], 3, 40, 2, 16, 2),
    "odd widths": ([(5, 1), (1, 7)], 2, 33, 3, 12, 3),
}


def inputs(case: str, dtype: torch.dtype, device: torch.device) -> tuple[Shapes, list[Tensor]]:
    """Points inside cells, some of them outside the map: at a cell's edge the gradient jumps with rounding."""
    shapes, batch, length, heads, width, points = CASES[case]
    random = torch.Generator().manual_seed(0)
    size = torch.tensor([(w, h) for h, w in shapes]).view(len(shapes), 1, 2)
    far = torch.rand(batch, length, heads, len(shapes), points, 2, generator=random) * 1.2 - 0.1
    cells = (far * size - 0.5).floor() + 0.1 + 0.8 * torch.rand(far.shape, generator=random)
    value = torch.randn(batch, sum(h * w for h, w in shapes), heads, width, generator=random)
    weights = torch.rand(far.shape[:-1], generator=random)
    return shapes, [value.to(device, dtype), ((cells + 0.5) / size).to(device), weights.to(device)]


def with_gradients(sample: Sampler, shapes: Shapes, tensors: list[Tensor]) -> list[Tensor]:
    value, locations, weights = (tensor.clone().requires_grad_() for tensor in tensors)
    out = sample(value, shapes, locations, weights)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out.detach(), *torch.autograd.grad(out, (value, locations, weights), grad)]


def test_the_kernel_is_chosen(device: torch.device) -> None:
    if device.type != "cuda":
        assert _sampler("cpu").__name__ == "_sample_on_cpu"
        return
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: the definition is used")
    assert _sampler("cuda").__name__ == "multi_scale_sample_triton"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", list(CASES))
def test_the_kernel_equals_the_definition(device: torch.device, case: str, dtype: torch.dtype) -> None:
    """Forward and backward; in bf16 the sums are float32 all the same, and what comes out has 8 bits."""
    shapes, tensors = inputs(case, dtype, device)
    ours = with_gradients(multi_scale_sample, shapes, tensors)
    definition = with_gradients(multi_scale_sample_definition, shapes, tensors)
    for name, a, b in zip(("output", "value", "locations", "weights"), ours, definition, strict=True):
        assert a.dtype == b.dtype, name
        error = float((a.double() - b.double()).norm() / b.double().norm())
        print(f"{case}, {dtype}, {name}: {error:.1e}")
        assert error <= (1e-5 if dtype == torch.float32 else 2**-7), name
