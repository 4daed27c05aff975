"""Times deformable sampling, as it is defined and as it is implemented here, beside a plain copy of memory."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from segearth.benchmark.measure import alternate
from segearth.layers.deformable_attention import Sampler, multi_scale_sample, multi_scale_sample_definition
from segearth.models.segearth import SegEarth

COPIED = {"cpu": 2**26, "cuda": 2**30}  # bytes of the plain copy, far more than any cache holds


def measure_sampling(model: SegEarth, image: Tensor, repeats: int) -> dict[str, Any]:
    """Times the sampling of all layers of the pixel decoder, where the first layer really reads.

    Args:
        model: Its pixel decoder says how many layers there are.
        image: ``(1, 3, H, W)``.
        repeats: Counted rounds; medians are taken.

    Returns:
        ``"seconds"`` by way (``"definition"``, ``"here"``): ``"forward"``, and ``"both"`` with the backward pass;
        ``"least bytes"`` of the same two: what has to be read and written if nothing is read twice;
        ``"copied bytes per second"``: read and written by a plain copy on the same device.
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
    read, written = value.nbytes + locations.nbytes + weights.nbytes, value[0, 0].nbytes * weights[..., 0, 0, 0].numel()
    # Backward reads inputs and the sums' gradient, and writes the inputs' gradients.
    traffic = {"forward": read + written, "both": read + written + 2 * read + written}
    return {
        "seconds": {way: {part: layers * median(seconds[way, part]) for part in traffic} for way in ways},
        "least bytes": {part: layers * count for part, count in traffic.items()},
        "copied bytes per second": _copied_bytes_per_second(image.device, repeats),
    }


def _copied_bytes_per_second(device: torch.device, repeats: int) -> float:
    source = torch.zeros(COPIED["cuda" if device.type == "cuda" else "cpu"], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = alternate({"": lambda: target.copy_(source)}, 3 * repeats, device)[""]
    return 2 * source.nbytes / median(seconds)


@torch.no_grad()
def _first_layer(model: SegEarth, image: Tensor) -> tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]:
    calls: list[Any] = []

    def record(*given: Any) -> Tensor:
        calls.append(given)
        return multi_scale_sample(*given)

    with model.pixel_decoder.sampling_with(record):
        model.pixel_decoder(model.vision_encoder(image))
    return calls[0]
