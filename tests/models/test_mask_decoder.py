"""The mask decoder with weights that are known."""

from __future__ import annotations

import torch

from segearth.models.mask_decoder import MaskDecoder


@torch.no_grad()
def test_mask_and_presence_are_read_off_the_normalised_query() -> None:
    """The norm's weight is zero, so whatever the layers do, both heads see its bias."""
    torch.manual_seed(0)
    decoder = MaskDecoder(dim=8, num_layers=3, num_heads=2, ffn_dim=8)
    decoder.norm.weight.zero_()
    decoder.norm.bias.copy_(torch.arange(8.0) - 3)
    features = torch.randn(2, 8, 8, 8)
    image = decoder.prepare_image(features, [torch.randn(2, 8, 8 >> i, 8 >> i) for i in (2, 1, 0)])
    output = decoder(torch.randn(3, 8), torch.tensor([0, 0, 1]), image, auxiliary=True)
    presence = decoder.presence_head(decoder.norm.bias)
    assert presence.abs() > 0.1
    assert torch.allclose(output.presence_logits, presence.expand(3), atol=1e-6)
    embedding = decoder.mask_embed(decoder.norm.bias)
    masks = torch.einsum("c,bchw->bhw", embedding, features)[[0, 0, 1]]
    for logits in (output.mask_logits, *output.auxiliary):
        assert torch.allclose(logits, masks, atol=1e-5)


@torch.no_grad()
def test_presence_is_that_of_the_last_layer() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(dim=8, num_layers=3, num_heads=2, ffn_dim=8)
    levels = [torch.randn(1, 8, 8 >> i, 8 >> i) for i in (2, 1, 0)]
    image = decoder.prepare_image(torch.randn(1, 8, 8, 8), levels)
    query, index = torch.randn(1, 8), torch.tensor([0])
    before = decoder(query, index, image).presence_logits
    last = decoder.layers[-1].ffn2.bias
    last.add_(torch.randn(8))
    assert (decoder(query, index, image).presence_logits - before).abs() > 1e-3
