"""Multi-scale deformable attention on a GPU, as a Triton kernel for the forward and one for the backward pass.

A program computes a few queries of one head. It goes over all levels and sampling points, reads the four cells around
each point, and keeps its sums in float32 registers. The backward kernel reads the same cells again and adds to the
gradient of ``value`` with atomic operations. Their order is not fixed, so the last bits of that gradient may differ
from run to run. Between the two passes only the three inputs are kept.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERIES = 32  # how many queries one program computes


def multi_scale_sample_triton(
    value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Computes ``multi_scale_sample`` with Triton; arguments and result are the same."""
    return _SampleOnGPU.apply(value, locations, weights, shapes)


class _SampleOnGPU(torch.autograd.Function):
    """Joins the two kernels for autograd; there is no second derivative."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, locations: Tensor, weights: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        ctx.save_for_backward(value, locations, weights)
        ctx.shapes = shapes
        out = value.new_empty(*locations.shape[:3], value.shape[3])
        inputs = [t.contiguous() for t in (value, locations, weights)]
        _launch(_forward, shapes, *inputs, out)
        return out.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of value, locations and weights."""
        value, locations, weights = (t.contiguous() for t in ctx.saved_tensors)
        needs_value = ctx.needs_input_grad[0]
        # Many queries add to the same cell. In bf16 a small term added to a large sum would be rounded away.
        d_value = torch.zeros(value.shape if needs_value else (0,), dtype=torch.float32, device=value.device)
        d_locations, d_weights = torch.empty_like(locations), torch.empty_like(weights)
        grads = (grad.contiguous(), d_value, d_locations, d_weights)
        _launch(_backward, ctx.shapes, value, locations, weights, *grads, NEEDS_VALUE=needs_value)
        return d_value.to(value.dtype) if needs_value else None, d_locations, d_weights, None


def _launch(
    kernel: Any, shapes: list[tuple[int, int]], value: Tensor, locations: Tensor, *rest: Any, **flags: bool
) -> None:
    batch, length, heads, levels, points, _ = locations.shape
    if 0 in (batch, length, heads):
        return
    sizes = _on_device(tuple(shapes), value.device)
    grid = (triton.cdiv(length, QUERIES), batch * heads)
    width = value.shape[3]
    extents = (length, value.shape[1], heads, width, levels, points)
    with torch.cuda.device_of(value):
        kernel[grid](
            sizes, value, locations, *rest, *extents, QUERIES=QUERIES, WIDTH=triton.next_power_of_2(width), **flags
        )


@functools.lru_cache(maxsize=64)
def _on_device(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    # Cached, because this copy makes the host wait until the device has finished all earlier work.
    return torch.tensor(shapes, dtype=torch.int32, device=device)


@triton.jit
def _queries(length, heads, width, QUERIES: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Returns what this program computes.

    Returns:
        The number of the image, the number of the head, each query's row in ``(B * L * M)``, the channels, and two
        masks, which tell the queries and channels that exist from those that only fill up the block.
    """
    batch = tl.program_id(1).to(tl.int64) // heads
    head = tl.program_id(1) % heads
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    channel = tl.arange(0, WIDTH)
    row_of_query = (batch * length + query) * heads + head
    return batch, head, row_of_query, channel, query < length, channel < width


@triton.jit
def _point(locations, weights, at, h, w, real_query):  # type: ignore[no-untyped-def]
    """Loads one sampling point of each query.

    Returns:
        x and y in cells, column and row of the cell at the upper left of the point, and the attention weight.
    """
    x = tl.load(locations + 2 * at, mask=real_query, other=0.0).to(tl.float32) * w - 0.5
    y = tl.load(locations + 2 * at + 1, mask=real_query, other=0.0).to(tl.float32) * h - 0.5
    attention = tl.load(weights + at, mask=real_query, other=0.0).to(tl.float32)
    return x, y, tl.floor(x), tl.floor(y), attention


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    sizes, value, locations, weights, out, length, cells, heads, width, levels, points,
    QUERIES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    batch, head, row_of_query, channel, real_query, real_channel = _queries(length, heads, width, QUERIES, WIDTH)
    real = real_query[:, None] & real_channel[None, :]
    total = tl.zeros((QUERIES, WIDTH), tl.float32)
    first = batch * cells  # index of the level's first cell among the cells of all images
    for level in range(levels):
        h, w = tl.load(sizes + 2 * level), tl.load(sizes + 2 * level + 1)
        for point in range(points):
            at = (row_of_query * levels + level) * points + point
            x, y, left, top, attention = _point(locations, weights, at, h, w, real_query)
            for corner in tl.static_range(4):
                row, column = top.to(tl.int32) + corner // 2, left.to(tl.int32) + corner % 2
                share = 1.0 - tl.abs(y - top - corner // 2)
                share *= 1.0 - tl.abs(x - left - corner % 2)
                inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
                cell = ((first + row * w + column) * heads + head) * width
                read = tl.load(value + cell[:, None] + channel[None, :], mask=real & inside[:, None], other=0.0)
                total += (attention * share)[:, None] * read.to(tl.float32)
        first += h * w
    tl.store(out + (row_of_query * width)[:, None] + channel[None, :], total, mask=real)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    sizes, value, locations, weights, grad, d_value, d_locations, d_weights,
    length, cells, heads, width, levels, points,
    QUERIES: tl.constexpr, WIDTH: tl.constexpr, NEEDS_VALUE: tl.constexpr,
):  # fmt: skip
    batch, head, row_of_query, channel, real_query, real_channel = _queries(length, heads, width, QUERIES, WIDTH)
    real = real_query[:, None] & real_channel[None, :]
    d_out = tl.load(grad + (row_of_query * width)[:, None] + channel[None, :], mask=real, other=0.0).to(tl.float32)
    first = batch * cells
    for level in range(levels):
        h, w = tl.load(sizes + 2 * level), tl.load(sizes + 2 * level + 1)
        for point in range(points):
            at = (row_of_query * levels + level) * points + point
            x, y, left, top, attention = _point(locations, weights, at, h, w, real_query)
            d_x = tl.zeros((QUERIES,), tl.float32)
            d_y = tl.zeros((QUERIES,), tl.float32)
            d_attention = tl.zeros((QUERIES,), tl.float32)
            for corner in tl.static_range(4):
                row, column = top.to(tl.int32) + corner // 2, left.to(tl.int32) + corner % 2
                y_share = 1.0 - tl.abs(y - top - corner // 2)
                x_share = 1.0 - tl.abs(x - left - corner % 2)
                inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
                cell = ((first + row * w + column) * heads + head) * width
                offset, mask = cell[:, None] + channel[None, :], real & inside[:, None]
                read = tl.load(value + offset, mask=mask, other=0.0).to(tl.float32)
                dot = tl.sum(read * d_out, axis=1)
                d_attention += dot * x_share * y_share
                d_x += dot * y_share * (2 * (corner % 2) - 1)
                d_y += dot * x_share * (2 * (corner // 2) - 1)
                if NEEDS_VALUE:
                    tl.atomic_add(d_value + offset, (attention * x_share * y_share)[:, None] * d_out, mask=mask)
            tl.store(d_locations + 2 * at, d_x * attention * w, mask=real_query)
            tl.store(d_locations + 2 * at + 1, d_y * attention * h, mask=real_query)
            tl.store(d_weights + at, d_attention, mask=real_query)
        first += h * w
