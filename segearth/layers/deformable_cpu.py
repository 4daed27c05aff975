"""Multi-scale deformable attention on a CPU: one head's map at a time, small enough to stay in the cache.

What is computed is ``multi_scale_sample_definition``; this file says the same with fewer passes over memory.

Think of a head's map as a table with one row of numbers for each cell. A query has a few points, and each lies between
four cells, so what it reads is a weighted sum of four rows; a query with 4 points adds up 16 rows. That is what a model
of words does when it adds up the vectors of a bag of words, and PyTorch has a fast operator for it: ``embedding_bag``
takes the numbers of 16 rows and 16 weights and writes their sum, without first copying the 16 rows as ``grid_sample``
would.

Backward goes the other way: each query has a gradient, and each of its 16 rows shall receive a share of it. Added one
by one, neighbouring points would write to the same row in turn. Instead the points are sorted by the cell that they lie
in, so that the points of one cell stand side by side. Now a *cell* is the one that reads: its bag are the points around
it and its table the queries' gradients, and ``embedding_bag`` adds them up again. See :func:`_scatter`.

Nothing but the three inputs is kept for backward: cells and weights are computed again, which is faster than storing
and reading them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

POINTS_PER_THREAD = 2**17  # sampling points worked on at once: fewer take less memory, more need fewer operations


class _Axis(NamedTuple):
    """The two neighbouring cells along one axis that a point lies between.

    Both are cells of the map, also for a point near or beyond its edge: the point then lies outside of the two, and a
    cell that is one cell or more away from it gets the weight 0.
    """

    low: Tensor  # the first cell, int32
    step: int  # from the first cell to the second; 0 in a map one cell wide
    distances: tuple[Tensor, Tensor]  # from each cell's centre to the point, in cells

    @classmethod
    def of(cls, coordinate: Tensor, size: int) -> _Axis:
        distance = coordinate * size - 0.5
        # Cutting after the conversion keeps the cell in the map for NaN and infinity too.
        low = distance.to(torch.int32).clamp_(0, max(size - 2, 0))
        distance -= low
        return cls(low, int(size > 1), (distance, distance - (1 if size > 1 else math.inf)))

    def hats(self) -> list[Tensor]:
        """Bilinear weights: 1 on the cell's centre, 0 from one cell away."""
        return [(1 - distance.abs()).relu_() for distance in self.distances]

    def slopes(self) -> list[Tensor]:
        """Derivatives of the hats by the point, taken from the right at the kinks as ``grid_sample`` does."""
        floors = [distance.floor() for distance in self.distances]
        return [floor.clone().eq_(-1).sub_(floor.eq_(0)) for floor in floors]


class _Points(NamedTuple):
    """The points of some heads in one level, ``n = heads * queries * points`` of them."""

    x: _Axis
    y: _Axis
    base: Tensor  # (n,) row of the upper left cell in the heads' maps laid end to end, int32
    steps: tuple[int, int, int, int]  # rows from there to the four cells

    @classmethod
    def of(cls, coordinates: Tensor, h: int, w: int) -> _Points:
        """Args: coordinates: ``(heads, queries * points, 2)`` in [0, 1]."""
        x, y = _Axis.of(coordinates[..., 0], w), _Axis.of(coordinates[..., 1], h)
        heads = coordinates.shape[0]
        base = y.low * w + x.low
        base += torch.arange(0, heads * h * w, h * w, dtype=torch.int32).view(heads, 1)
        return cls(x, y, base, (0, x.step, w * y.step, w * y.step + x.step))

    def rows(self) -> Tensor:
        """``(heads, n / heads, 4)`` row of each of the four cells."""
        rows = self.base.new_empty(*self.base.shape, 4)
        for corner, step in enumerate(self.steps):
            torch.add(self.base, step, out=rows[..., corner])
        return rows

    def weights(self, attention: Tensor, out: Tensor) -> Tensor:
        """Writes attention times bilinear weight of the four cells to ``(4, heads, n / heads)``."""
        x_hats = self.x.hats()
        for row, y_hat in enumerate(self.y.hats()):
            y_hat *= attention
            for column, x_hat in enumerate(x_hats):
                torch.mul(y_hat, x_hat, out=out[2 * row + column])
        return out


class _Blocks:
    """The inputs with the head in front of the query, cut into (some heads, one level)."""

    def __init__(self, shapes: list[tuple[int, int]], value: Tensor, locations: Tensor, weights: Tensor) -> None:
        self.length, self.points = locations.shape[1], locations.shape[4]
        dtype = torch.promote_types(value.dtype, torch.float32)
        self.shapes = shapes
        self.value = heads_first(value).to(dtype)  # (B*M, S, D)
        # Locations stay in fp32: eight bits of mantissa cannot address a 128-cell row.
        self.locations = rearrange(locations.to(dtype), "b n m l p xy -> l (b m) (n p) xy").contiguous()
        self.weights = rearrange(weights.to(dtype), "b n m l p -> l (b m) (n p)").contiguous()

    def __iter__(self) -> Iterator[tuple[slice, int, slice]]:
        count = self.value.shape[0]
        together = max(1, POINTS_PER_THREAD * torch.get_num_threads() // max(1, self.length * self.points))
        for first in range(0, count, together):
            start = 0
            for level, (h, w) in enumerate(self.shapes):
                yield slice(first, min(first + together, count)), level, slice(start, start + h * w)
                start += h * w


def heads_first(rows: Tensor) -> Tensor:
    """``(B, N, M, D)`` to ``(B * M, N, D)``."""
    return rearrange(rows, "b n m d -> (b m) n d").contiguous()


class SampleOnCPU(torch.autograd.Function):
    """``multi_scale_sample`` with a gradient of its own; it can be differentiated once."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, locations: Tensor, weights: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """See ``multi_scale_sample``."""
        ctx.save_for_backward(value, locations, weights)
        ctx.shapes = shapes
        batch, length, heads, _, points, _ = locations.shape
        blocks = _Blocks(shapes, value, locations, weights)
        out = blocks.value.new_zeros(batch * heads, length, value.shape[3])
        for group, level, cells in blocks:
            at = _Points.of(blocks.locations[level, group], *shapes[level])
            rows, table = at.rows(), blocks.value[group, cells].flatten(0, 1)
            bilinear = torch.empty_like(rows, dtype=table.dtype)
            at.weights(blocks.weights[level, group], bilinear.movedim(-1, 0))
            rows, bilinear = rows.view(-1, points * 4), bilinear.view(-1, points * 4)
            out[group].flatten(0, 1).add_(F.embedding_bag(rows, table, mode="sum", per_sample_weights=bilinear))
        return rearrange(out, "(b m) n d -> b n (m d)", b=batch).to(value.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of value, locations and weights."""
        value, locations, weights = ctx.saved_tensors
        batch, _, heads, _, points, _ = locations.shape
        of_value, of_locations, of_weights, _ = ctx.needs_input_grad
        blocks = _Blocks(ctx.shapes, value, locations, weights)
        grads = heads_first(rearrange(grad, "b n (m d) -> b n m d", m=heads)).to(blocks.value.dtype)
        d_value = torch.empty_like(blocks.value) if of_value else None
        d_locations, d_weights = torch.empty_like(blocks.locations), torch.empty_like(blocks.weights)
        for group, level, cells in blocks:
            h, w = ctx.shapes[level]
            at = _Points.of(blocks.locations[level, group], h, w)
            attention, sums = blocks.weights[level, group], grads[group].flatten(0, 1)
            if of_locations or of_weights:
                table = blocks.value[group, cells].flatten(0, 1)
                dots = _dots(at.rows().view(-1, points * 4), sums, table).view(*attention.shape, 4)
                d_weights[level, group], d_x, d_y = _bilinear_gradients(at, dots)
                torch.mul(d_x.mul_(w), attention, out=d_locations[level, group][..., 0])
                torch.mul(d_y.mul_(h), attention, out=d_locations[level, group][..., 1])
            if d_value is not None:
                d_value[group, cells] = _scatter(at, attention, sums, h * w)
        if d_value is not None:
            d_value = rearrange(d_value, "(b m) s d -> b s m d", b=batch).to(value.dtype)
        d_locations = rearrange(d_locations, "l (b m) (n p) xy -> b n m l p xy", b=batch, p=points)
        d_weights = rearrange(d_weights, "l (b m) (n p) -> b n m l p", b=batch, p=points)
        return d_value, d_locations.to(locations.dtype), d_weights.to(weights.dtype), None


def _bilinear_gradients(at: _Points, dots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the interpolated value by the attention weight and by x and y in cells, from those of the cells."""
    (x0, x1), (y0, y1) = at.x.hats(), at.y.hats()
    upper_left, upper_right, lower_left, lower_right = dots.unbind(-1)
    upper = (upper_left * x0).addcmul_(upper_right, x1)
    lower = (lower_left * x0).addcmul_(lower_right, x1)
    left = (upper_left * y0).addcmul_(lower_left, y1)
    right = (upper_right * y0).addcmul_(lower_right, y1)
    d_weight = (upper * y0).addcmul_(lower, y1)
    (x0, x1), (y0, y1) = at.x.slopes(), at.y.slopes()
    return d_weight, left.mul_(x0).addcmul_(right, x1), upper.mul_(y0).addcmul_(lower, y1)


def _dots(rows: Tensor, sums: Tensor, table: Tensor) -> Tensor:
    """Dot product of each query's gradient with each table row that the query read, ``(queries, rows a query)``.

    In the matrix of all queries times all rows only a few entries are wanted. Those are named as a sparse matrix, whose
    values PyTorch then computes and no others.
    """
    bags, size = rows.shape
    # A bag may read a row twice, but torch makes no room for more places than the whole product has.
    if len(table) < size:
        table = F.pad(table, (0, 0, 0, size - len(table)))
    starts = torch.arange(0, rows.numel() + 1, size, dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        out = torch.sparse_csr_tensor(
            starts, rows.view(-1), sums.new_zeros(rows.numel()), (bags, len(table)), check_invariants=False
        )
    return torch.sparse.sampled_addmm(out, sums, table.t(), beta=0.0, out=out).values()


def _scatter(at: _Points, attention: Tensor, sums: Tensor, cells: int) -> Tensor:
    """Adds to each cell its share of the gradients of the queries that read it; ``(heads, cells, D)``.

    The points are sorted by the cell to their upper left, so that those of one cell form a bag. Four sums follow, one
    for each corner. For "upper left" the bag's sum belongs to the cell itself. The cell on its right is the upper right
    corner of the very same points: the same bags with other weights, and the sums moved on by one row of the table. The
    lower two corners are moved by a row of the map.
    """
    count, points = attention.shape[0] * cells, attention.numel() // sums.shape[0]
    base = at.base.view(-1)
    lengths = torch.bincount(base, minlength=count)
    starts = lengths.cumsum(0).sub_(lengths).int()
    order = (base.short() if count <= 2**15 else base).argsort()  # half the passes of a radix sort
    bags = torch.arange(sums.shape[0], dtype=torch.int32).repeat_interleave(points).index_select(0, order)
    bilinear = at.weights(attention, attention.new_empty(4, *attention.shape)).view(4, -1).index_select(1, order)
    table = sums.new_zeros(count, sums.shape[1])
    for step, weights in zip(at.steps, bilinear, strict=True):
        part = F.embedding_bag(bags, sums, starts, mode="sum", per_sample_weights=weights)
        table[step:] += part[: count - step]
    return table.view(-1, cells, sums.shape[1])
