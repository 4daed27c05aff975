"""What helps a small model on few images, off in the published shape: convolutions in the Swin, and coordinates."""

from __future__ import annotations

import pytest
import torch

from segearth.config import VisionEncoderConfig
from segearth.errors import UnknownNameError
from segearth.models.build import build_model
from segearth.models.vision_encoder import SwinEncoder
from segearth.zoo.lookup import model_config

SMALL = dict(embed_dim=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=4, frozen=False, drop_path_rate=0.0)


def encoder(**options: object) -> SwinEncoder:
    torch.manual_seed(0)
    return SwinEncoder(VisionEncoderConfig(**SMALL, **options)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(64, 64), (60, 100), (33, 41)])
def test_strides_are_those_of_any_swin(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    shapes = [level.shape for level in encoder()(images)]
    assert [level.shape for level in encoder(stem="conv", local_conv=True)(images)] == shapes


def test_a_convolutional_stem_sees_over_the_edge_of_a_patch() -> None:
    images = torch.zeros(1, 3, 64, 64)
    changed = images.clone()
    changed[..., 31, 31] = 5.0  # the last pixel of the eighth patch of four
    for stem, reached in (("patch", {7}), ("conv", {7, 8})):
        embed = encoder(stem=stem).patch_embed
        rows = (embed(changed) - embed(images)).abs().sum((0, 1, 3)).nonzero().flatten().tolist()
        assert set(rows) == reached


def test_local_convolutions_tell_neighbours_apart_in_a_stage_without_shifted_windows() -> None:
    """Depth 1 has no shifted window: cells of two windows meet only through a convolution."""
    images = torch.zeros(1, 3, 64, 64)
    changed = images.clone()
    changed[..., 12:16, 12:16] = 3.0  # the last cell of the first window of 4 x 4 cells

    def reached(**options: object) -> int:
        model = encoder(**options)
        difference = (model(changed)[0] - model(images)[0]).abs().sum((0, 1))
        return int((difference[4:, 4:] > 1e-6).sum())

    assert reached() == 0
    assert reached(local_conv=True) > 0


def test_an_unknown_stem_is_named() -> None:
    with pytest.raises(UnknownNameError, match="vision encoder stem 'convs'; did you mean 'conv'"):
        encoder(stem="convs")


def test_coordinates_reach_masks_values_and_media() -> None:
    """Each of the three is switched off by itself, and changes what it should and nothing before it."""
    torch.manual_seed(0)
    model = build_model(model_config({"name": "segearth_debug", "coordinates": True})).eval()
    images = torch.randn(1, 3, 128, 128)

    @torch.no_grad()
    def features() -> dict[str, torch.Tensor]:
        found = model.encode_image(images)
        values = torch.cat([layer[1].flatten() for layer in found.decoder.keys_values])
        return {
            "mask_features": found.decoder.mask_features, "memory": values, "media": found.projector_keys_values[0][1],
            "image_tokens": found.image_tokens,
        }  # fmt: skip

    whole = features()
    for name in ("mask_features", "memory", "media"):
        last = model.coordinates[name].mlp[-1]
        kept = [parameter.detach().clone() for parameter in last.parameters()]
        for parameter in last.parameters():
            torch.nn.init.zeros_(parameter)
        changed = {key for key, value in features().items() if not torch.equal(value, whole[key])}
        assert changed == {name}
        for parameter, value in zip(last.parameters(), kept, strict=True):
            parameter.data.copy_(value)


def test_the_published_shape_has_none_of_it() -> None:
    config = model_config("segearth_swinb_phi1_5")
    assert not config.coordinates and not config.presence_decides and not config.mask_decoder.box_gate
    assert config.vision_encoder.stem == "patch" and not config.vision_encoder.local_conv
    names = build_model(model_config("segearth_debug")).state_dict()
    assert not [name for name in names if "coordinates" in name or "local_conv" in name or "box" in name]
