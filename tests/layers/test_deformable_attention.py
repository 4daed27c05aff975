from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segearth.errors import ConfigError
from segearth.layers import deformable_attention, deformable_cpu
from segearth.layers.deformable_attention import (
    SWITCH,
    DeformableAttention,
    multi_scale_sample,
    multi_scale_sample_definition,
)

Shapes = list[tuple[int, int]]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="needs triton, and a GPU or TRITON_INTERPRET=1",
)
both = pytest.mark.parametrize("kind", ["torch", pytest.param("triton", marks=needs_triton)])


def sampler(kind: str) -> Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]:
    if kind == "torch":
        return multi_scale_sample
    from segearth.layers.deformable_triton import multi_scale_sample_triton

    if INTERPRETED:
        return multi_scale_sample_triton
    return lambda value, shapes, *rest: multi_scale_sample_triton(value.cuda(), shapes, *(t.cuda() for t in rest)).cpu()


def inputs(seed: int, batch: int, length: int, heads: int, width: int, points: int, shapes: Shapes) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(batch, sum(h * w for h, w in shapes), heads, width, generator=generator)
    locations = torch.rand(batch, length, heads, len(shapes), points, 2, generator=generator) * 1.6 - 0.3
    weights = torch.rand(batch, length, heads, len(shapes), points, generator=generator)
    return [value, locations, weights]


def with_gradients(sample: Callable[..., Tensor], shapes: Shapes, tensors: list[Tensor]) -> list[Tensor]:
    value, locations, weights = (t.clone().requires_grad_() for t in tensors)
    out = sample(value, shapes, locations, weights)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, (value, locations, weights), grad)]


def assert_close(ours: list[Tensor], reference: list[Tensor], tolerance: float) -> None:
    for name, a, b in zip(("output", "value", "locations", "weights"), ours, reference, strict=True):
        assert a.dtype == b.dtype, name
        assert a.shape == b.shape, name
        # Just inside an edge next to nothing is read, and that by the rounding of the place.
        error = (a.double() - b.double()).norm() / b.double().norm().clamp(min=0.1)
        assert error <= tolerance, f"{name}: {error:.1e}"


@both
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((0.25, 0.25), 1.0),  # the centre of the first of 2 x 2 cells
        ((0.5, 0.25), 1.5),  # between the upper two
        ((0.5, 0.5), 2.5),  # between all four
        ((0.0, 0.25), 0.5),  # on the edge: half of it reads zeros
        ((0.0, 0.0), 0.25),
        ((7.0, -3.0), 0.0),
    ],
)
def test_by_hand(kind: str, place: tuple[float, float], expected: float) -> None:
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    locations = torch.tensor(place).view(1, 1, 1, 1, 1, 2)
    out = sampler(kind)(value, [(2, 2)], locations, torch.full((1, 1, 1, 1, 1), 0.5))
    assert out.item() == pytest.approx(0.5 * expected)


@both
def test_gradients_by_hand(kind: str) -> None:
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1).requires_grad_()
    locations = torch.tensor([0.375, 0.25]).view(1, 1, 1, 1, 1, 2).requires_grad_()  # a quarter of the way to the right
    weights = torch.full((1, 1, 1, 1, 1), 0.5, requires_grad=True)
    out = sampler(kind)(value, [(2, 2)], locations, weights)
    d_value, d_locations, d_weights = torch.autograd.grad(out.sum(), (value, locations, weights))
    assert d_value.flatten().tolist() == pytest.approx([0.375, 0.125, 0, 0])
    assert d_locations.flatten().tolist() == pytest.approx([0.5 * 2 * (2 - 1), 0.5 * 2 * (3.25 - 1.25)])
    assert d_weights.item() == pytest.approx(1.25)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Shapes, list[Tensor]]:
    side = st.integers(1, 5)
    shapes = draw(st.lists(st.tuples(side, side), min_size=1, max_size=3))
    sizes = [draw(st.integers(1, most)) for most in (2, 5, 3, 5, 3)]
    return shapes, inputs(draw(st.integers(0, 2**16)), *sizes, shapes)


@given(problems(), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_equals_the_definition(problem: tuple[Shapes, list[Tensor]], points_at_once: int) -> None:
    shapes, tensors = problem
    before, deformable_cpu.POINTS_PER_THREAD = deformable_cpu.POINTS_PER_THREAD, points_at_once
    try:
        ours = with_gradients(multi_scale_sample, shapes, tensors)
    finally:
        deformable_cpu.POINTS_PER_THREAD = before
    assert_close(ours, with_gradients(multi_scale_sample_definition, shapes, tensors), 1e-5)


@needs_triton
@given(problems())
@settings(max_examples=8, deadline=None)
def test_kernel_equals_the_definition(problem: tuple[Shapes, list[Tensor]]) -> None:
    shapes, tensors = problem
    reference = with_gradients(multi_scale_sample_definition, shapes, tensors)
    assert_close(with_gradients(sampler("triton"), shapes, tensors), reference, 1e-5)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_blocks_of_queries(kind: str, dtype: torch.dtype) -> None:
    """In bf16 too the sums are float32, and only what comes out is rounded, to 8 bits."""
    shapes = [(3, 4), (6, 8), (12, 16)]
    value, locations, weights = inputs(0, 1, 40, 2, 12, 2, shapes)
    tensors = [value.to(dtype), locations, weights]
    ours = with_gradients(sampler(kind), shapes, tensors)
    assert [t.dtype for t in ours] == [dtype, dtype, torch.float32, torch.float32]
    definition = with_gradients(multi_scale_sample_definition, shapes, tensors)
    assert_close(ours, definition, 1e-5 if dtype == torch.float32 else 2**-7)


def test_gradients_numerically() -> None:
    shapes = [(3, 4), (1, 1), (1, 3)]
    value, locations, weights = (t.double() for t in inputs(0, 2, 3, 2, 3, 2, shapes))
    size = torch.tensor([(w, h) for h, w in shapes]).view(3, 1, 2)
    inside_a_cell = (locations * size - 0.5).floor() + 0.1 + 0.8 * torch.rand(locations.shape).double()
    leaves = [t.requires_grad_() for t in (value, (inside_a_cell + 0.5) / size, weights)]
    assert torch.autograd.gradcheck(lambda v, at, w: multi_scale_sample(v, shapes, at, w), leaves)


@both
def test_at_the_kinks(kind: str) -> None:
    """Exactly on cells' centres and on the border the gradient is the one that grid_sample takes."""
    shapes = [(4, 8), (1, 1), (2, 1)]
    value, _, weights = inputs(0, 1, 6, 1, 4, 5, shapes)
    size = torch.tensor([(w, h) for h, w in shapes]).view(3, 1, 2)
    cells = torch.randint(-3, 10, (1, 6, 1, 3, 5, 2), generator=torch.Generator().manual_seed(0))
    tensors = [value, (cells + 0.5) / size, weights]
    assert_close(
        with_gradients(sampler(kind), shapes, tensors),
        with_gradients(multi_scale_sample_definition, shapes, tensors),
        1e-5,
    )


@both
@pytest.mark.parametrize("far", [1e4, -1e12, 1e30])
def test_far_outside_reads_zeros(kind: str, far: float) -> None:
    value, locations, weights = inputs(0, 1, 3, 2, 4, 2, [(2, 3)])
    assert not sampler(kind)(value, [(2, 3)], torch.full_like(locations, far), weights).any()


def test_not_a_number_is_passed_on() -> None:
    value, locations, weights = inputs(0, 1, 3, 2, 4, 2, [(2, 3)])
    locations[0, 1] = math.nan
    out, d_value, *_ = with_gradients(multi_scale_sample, [(2, 3)], [value, locations, weights])
    assert out.isnan().any(-1).tolist() == [[False, True, False]]
    assert d_value.isnan().any()


@both
def test_keeps_only_its_inputs_for_backward(kind: str) -> None:
    tensors = [t.requires_grad_() for t in inputs(0, 1, 20, 2, 8, 4, [(4, 4), (2, 2)])]
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        sampler(kind)(tensors[0], [(4, 4), (2, 2)], *tensors[1:])
    assert sum(t.nbytes for t in kept) == sum(t.nbytes for t in tensors)


@both
def test_gradient_of_some_inputs_only(kind: str) -> None:
    shapes = [(4, 4), (2, 2)]
    tensors = inputs(0, 1, 5, 2, 3, 2, shapes)
    _, *full = with_gradients(multi_scale_sample_definition, shapes, tensors)
    for wanted in range(3):
        leaves = [t.clone().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
        out = sampler(kind)(leaves[0], shapes, *leaves[1:])
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(torch.autograd.grad(out, leaves[wanted], grad)[0], full[wanted])


@both
def test_a_second_derivative_is_refused(kind: str) -> None:
    tensors = [t.requires_grad_() for t in inputs(0, 1, 3, 1, 4, 2, [(2, 3)])]
    out = sampler(kind)(tensors[0], [(2, 3)], *tensors[1:])
    (first,) = torch.autograd.grad(out.square().sum(), tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_exports_as_the_definition() -> None:
    class Sample(torch.nn.Module):
        def forward(self, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
            return multi_scale_sample(value, [(2, 3)], locations, weights)

    tensors = tuple(inputs(0, 1, 3, 2, 4, 2, [(2, 3)]))
    graph = torch.export.export(Sample(), tensors).graph
    called = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert any("grid_sampl" in name for name in called)
    assert not any("embedding_bag" in name for name in called)


@pytest.fixture
def fresh_choice() -> Iterator[None]:
    deformable_attention._sampler.cache_clear()
    yield
    deformable_attention._sampler.cache_clear()


@pytest.mark.usefixtures("fresh_choice")
class TestChoice:
    def test_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(SWITCH, "fastest")
        with pytest.raises(ConfigError, match="'fastest'; set it to torch or triton"):
            multi_scale_sample(*_tiny())

    def test_triton_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(SWITCH, "triton")
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ConfigError, match="pip install triton"):
            multi_scale_sample(*_tiny())

    @pytest.mark.parametrize(
        ("device", "installed", "switch", "name"),
        [
            ("cpu", True, "", "_sample_on_cpu"),
            ("cpu", False, "torch", "_sample_on_cpu"),
            ("cuda", False, "", "multi_scale_sample_definition"),
            ("cuda", True, "torch", "multi_scale_sample_definition"),
            ("mps", True, "", "multi_scale_sample_definition"),
        ],
    )
    def test_by_device(
        self, monkeypatch: pytest.MonkeyPatch, device: str, installed: bool, switch: str, name: str
    ) -> None:
        monkeypatch.setenv(SWITCH, switch)
        monkeypatch.setattr(importlib.util, "find_spec", lambda package: object() if installed else None)
        assert deformable_attention._sampler(device).__name__ == name

    @needs_triton
    @pytest.mark.parametrize(("device", "switch"), [("cuda", ""), ("cpu", "triton")])
    def test_the_kernel(self, monkeypatch: pytest.MonkeyPatch, device: str, switch: str) -> None:
        monkeypatch.setenv(SWITCH, switch)
        assert deformable_attention._sampler(device).__name__ == "multi_scale_sample_triton"


def _tiny() -> tuple[Tensor, Shapes, Tensor, Tensor]:
    value, locations, weights = inputs(0, 1, 2, 1, 2, 1, [(2, 2)])
    return value, [(2, 2)], locations, weights


def test_heads_start_looking_along_the_compass() -> None:
    """4 heads, 2 points: right, down, left, up; one cell and two cells away, in every level alike."""
    module = DeformableAttention(8, num_levels=2, num_heads=4, num_points=2)
    offsets = module.sampling_offsets(torch.randn(1, 8)).view(4, 2, 2, 2)
    steps = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]).view(4, 1, 1, 2) * torch.tensor([1.0, 2]).view(2, 1)
    torch.testing.assert_close(offsets, steps.expand(4, 2, 2, 2), atol=1e-6, rtol=0)


def test_module_starts_as_a_mean_of_neighbours() -> None:
    """One head of one point reads one cell to the right of its reference; the projections are made identities."""
    module = DeformableAttention(4, num_levels=1, num_heads=1, num_points=1)
    with torch.no_grad():
        for linear in (module.value_proj, module.output_proj):
            linear.weight.copy_(torch.eye(4))
    cells = torch.arange(12.0).view(1, 3, 4)  # one row of three cells
    out = module(torch.randn(1, 1, 4), torch.tensor([[0.5, 0.5]]), cells, [(1, 3)])
    torch.testing.assert_close(out[0, 0], cells[0, 2])
