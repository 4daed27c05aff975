from __future__ import annotations

import copy

import pytest
import torch

from segearth.layers.deformable_attention import DeformableAttention
from segearth.models.segearth import SegEarth


@pytest.mark.parametrize("part", ["vision_encoder", "pixel_decoder", "token_compressor"])
def test_a_part_of_the_image_side_compiles_whole(
    debug_model: SegEarth, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one graph, which must give what the part itself gives; code generation is PyTorch's matter, not tried here."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = debug_model.vision_encoder(images)
    given = {"vision_encoder": images, "pixel_decoder": maps, "token_compressor": maps[-1]}[part]
    module = copy.deepcopy(getattr(debug_model, part))
    for layer in module.modules():
        if isinstance(layer, DeformableAttention):
            with torch.no_grad():  # a fresh one reads at cells' centres, where the gradient jumps
                layer.sampling_offsets.bias += 0.3
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for way in (module, compiled):
        module.zero_grad()
        out = tensors(way(given))
        sum(t.pow(3).mean() for t in out).backward()  # a square would hardly depend on what a norm puts out
        results.append(out + [p.grad for p in module.parameters() if p.grad is not None])
    assert len(results[0]) == len(results[1]) > 1
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def tensors(result: torch.Tensor | list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in tensors(part)]
