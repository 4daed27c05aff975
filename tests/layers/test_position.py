from __future__ import annotations

import torch

from segearth.layers.position import CoordinateEmbedding


def test_features_say_where_they_are_and_half_the_image_can_be_read_off_them():
    torch.manual_seed(0)
    embed = CoordinateEmbedding(16)
    told = embed(torch.zeros(1, 16, 12, 20))[0].flatten(1).T.detach()
    left = (torch.arange(20) < 10).float().expand(12, 20).flatten()
    top = (torch.arange(12) < 6).float()[:, None].expand(12, 20).flatten()
    for target in (left, top, left * top):
        inputs = torch.cat([told, torch.ones(len(told), 1)], 1).double()
        weights = torch.linalg.lstsq(inputs, target.double()[:, None]).solution
        read = (inputs @ weights)[:, 0] > 0.5
        assert (read == target.bool()).float().mean() > 0.97  # one linear read-out, as a query is


def test_a_place_is_the_same_at_every_size():
    torch.manual_seed(0)
    embed = CoordinateEmbedding(8)
    small, large = embed(torch.zeros(1, 8, 4, 4)), embed(torch.zeros(1, 8, 12, 12))
    assert torch.allclose(small, large[:, :, 1::3, 1::3], atol=1e-6)  # the centres of the small map's cells


def test_what_the_features_held_is_kept():
    torch.manual_seed(0)
    embed, features = CoordinateEmbedding(8), torch.randn(2, 8, 6, 5)
    difference = embed(features) - features
    assert torch.allclose(difference, embed(torch.zeros(1, 8, 6, 5)).expand(2, -1, -1, -1), atol=1e-5)
    assert difference.std(dim=(2, 3)).min() > 1e-3
