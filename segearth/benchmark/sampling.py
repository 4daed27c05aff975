"""How much of the time deformable sampling takes: by its definition, and as it is done here."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from segearth.benchmark.measure import alternate
from segearth.layers.deformable_attention import Sampler, multi_scale_sample, multi_scale_sample_definition
from segearth.models.segearth import SegEarth


def measure_sampling(model: SegEarth, image: Tensor, repeats: int) -> dict[str, dict[str, float]]:
    """Times the sampling of all layers of the pixel decoder, where the first layer really reads.

    Args:
        model: Its pixel decoder says how many layers there are.
        image: ``(1, 3, H, W)``.
        repeats: Counted rounds; medians are taken.

    Returns:
        Seconds by way (``"definition"``, ``"here"``): ``"forward"``, and ``"both"`` with the backward pass.
    """
    value, shapes, locations, weights = _first_layer(model, image)
    inputs = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
    ways: dict[str, Sampler] = {"definition": multi_scale_sample_definition, "here": multi_scale_sample}

    def forward(sample: Sampler) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: sample(value, shapes, locations, weights))

    def both(sample: Sampler) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(sample(inputs[0], shapes, inputs[1], inputs[2]).sum(), inputs)

    works = {(way, "forward"): forward(sample) for way, sample in ways.items()}
    works |= {(way, "both"): both(sample) for way, sample in ways.items()}
    seconds = alternate(works, repeats, image.device)
    layers = len(model.pixel_decoder.layers)
    return {way: {part: layers * median(seconds[way, part]) for part in ("forward", "both")} for way in ways}


@torch.no_grad()
def _first_layer(model: SegEarth, image: Tensor) -> tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]:
    calls: list[Any] = []

    def record(*given: Any) -> Tensor:
        calls.append(given)
        return multi_scale_sample(*given)

    with mock.patch("segearth.layers.deformable_attention.multi_scale_sample", record):
        model.pixel_decoder(model.vision_encoder(image))
    return calls[0]
