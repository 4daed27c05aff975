"""Multi-scale deformable attention (Zhu et al., Deformable DETR, arXiv 2010.04159).

``multi_scale_sample_definition`` defines in plain PyTorch what is computed. Each kind of device may have a faster
implementation, which is chosen once, logged, and tested to give the same numbers: on a CPU ``deformable_cpu``, on CUDA
a Triton kernel where Triton is installed. The environment variable ``SEGEARTH_DEFORMABLE`` forces a choice: with
``torch`` Triton is never used, with ``triton`` always.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from segearth.errors import ConfigError
from segearth.layers.deformable_cpu import SampleOnCPU
from segearth.utils.devices import to_device

SWITCH = "SEGEARTH_DEFORMABLE"
Sampler = Callable[[Tensor, list[tuple[int, int]], Tensor, Tensor], Tensor]
logger = logging.getLogger(__name__)


def multi_scale_sample(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Samples every level bilinearly at the given locations and adds up the samples with the given weights.

    Only the three tensor arguments are kept for the backward pass. There is no second derivative.

    Args:
        value: ``(B, S, M, D)``: the cells of all levels one after another (``S = sum(h * w)``), for ``M`` heads of
            ``D`` channels each.
        shapes: ``(h, w)`` of each level, in the order of ``value``.
        locations: ``(B, L, M, levels, points, 2)`` for ``L`` queries, as (x, y) in [0, 1] of each level. Outside of
            that range zeros are read.
        weights: ``(B, L, M, levels, points)``, summing to one over the last two axes.

    Returns:
        ``(B, L, M * D)`` of the dtype of ``value``; sums are taken in float32 at least.

    Raises:
        ConfigError: ``SEGEARTH_DEFORMABLE`` is unknown, or asks for Triton where it is not installed.
    """
    if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing():
        # Compilers and exporters know the operators of the definition, but not the faster implementations.
        return multi_scale_sample_definition(value, shapes, locations, weights)
    return _sampler(value.device.type)(value, shapes, locations, weights)


@functools.cache
def _sampler(device: str) -> Sampler:
    choice = os.environ.get(SWITCH, "")
    if choice not in ("", "torch", "triton"):
        raise ConfigError(f"{SWITCH} is {choice!r}; set it to torch or triton, or leave it unset.")
    installed = importlib.util.find_spec("triton") is not None
    if choice == "triton" and not installed:
        raise ConfigError(f"{SWITCH}=triton, but Triton is not installed: `pip install triton`, or leave it unset.")
    if choice == "triton" or (device == "cuda" and installed and not choice):
        from segearth.layers.deformable_triton import multi_scale_sample_triton as sampler
    else:
        sampler = _sample_on_cpu if device == "cpu" else multi_scale_sample_definition
    logger.info("deformable attention on %s: %s", device, sampler.__name__)
    return sampler


def _sample_on_cpu(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    return SampleOnCPU.apply(value, locations, weights, shapes)


def multi_scale_sample_definition(
    value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Computes ``multi_scale_sample`` with ``grid_sample``: easy to read, but slower and with more memory."""
    # Axes in the patterns: n queries, m heads, l levels, p points, d channels of a head.
    grids = rearrange(2 * locations - 1, "b n m l p xy -> l (b m) n p xy")
    weights = rearrange(weights, "b n m l p -> l (b m) 1 n p")
    out = value.new_zeros(())
    for level, part in enumerate(value.split([h * w for h, w in shapes], dim=1)):
        cells = rearrange(part, "b (h w) m d -> (b m) d h w", h=shapes[level][0])
        # Locations stay in float32. bf16 has 8 significant bits, too few to say where in a row of 128 cells to read.
        sampled = F.grid_sample(cells.float(), grids[level].float(), mode="bilinear", align_corners=False)
        out = out + (sampled * weights[level].float()).sum(-1)
    return rearrange(out, "(b m) d n -> b n (m d)", b=len(value)).to(value.dtype)


class DeformableAttention(nn.Module):
    """Attention in which each query reads a few points around its reference point in every level.

    Where the points lie and how much each counts is computed from the query by two learned projections.

    Attributes:
        sample: What reads the points: :func:`multi_scale_sample`, or another function of the same arguments and result,
            to be measured or watched in its place.
    """

    def __init__(self, dim: int, num_levels: int = 3, num_heads: int = 8, num_points: int = 4) -> None:
        """Builds the four projections.

        Args:
            dim: Channels of queries and values, divisible by ``num_heads``.
            num_levels: Number of feature levels.
            num_heads: Number of attention heads.
            num_points: Number of points that a head reads in each level.
        """
        super().__init__()
        self.num_levels, self.num_heads, self.num_points = num_levels, num_heads, num_points
        self.sample: Sampler = multi_scale_sample
        self.sampling_offsets = nn.Linear(dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises the weights; at the start each head looks in its own direction, one cell further per point."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1).view(1, 1, -1, 1)
        start = directions.view(-1, 1, 1, 2) * steps  # (M, 1, points, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(start.expand(-1, self.num_levels, -1, -1).reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, reference: Tensor, value: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """Lets each query read the levels around its reference point.

        Args:
            query: ``(B, L, C)``, one for each reference point.
            reference: ``(L, 2)`` reference points as (x, y) in [0, 1], the same in every level.
            value: ``(B, S, C)``: the cells of all levels one after another.
            shapes: ``(h, w)`` of each level.

        Returns:
            ``(B, L, C)``.
        """
        batch, length, _ = query.shape
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        # Offsets are in cells and locations in [0, 1], so an offset is multiplied by the size of a cell. Both operands
        # are written out for all heads, levels and points: broadcasting over a last axis of two is much slower. The
        # sizes are copied so that nothing waits, since new_tensor would make the host wait for the device.
        cells = torch.tensor([(1 / w, 1 / h) for h, w in shapes], dtype=reference.dtype)
        cell_size = to_device(cells, reference.device)
        cell_size = cell_size[None, :, None].expand(heads, -1, points, -1).reshape(-1)
        offsets = self.sampling_offsets(query).float()
        locations = torch.addcmul(reference.repeat(1, heads * levels * points), offsets, cell_size)
        locations = locations.view(batch, length, heads, levels, points, 2)
        weights = self.attention_weights(query).view(batch, length, heads, levels * points).softmax(-1)
        weights = weights.view(batch, length, heads, levels, points)
        value = self.value_proj(value).view(batch, -1, heads, value.shape[-1] // heads)
        return self.output_proj(self.sample(value, shapes, locations, weights))
