"""Each module with its recorded weights, read through the adapters, on its recorded inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from published import PIECE, Golden, Parity, relative_error
from safetensors.torch import load_file
from torch import Tensor, nn

from segearth.config import ImageTransformConfig, VisionEncoderConfig
from segearth.convert.rules import to_ours
from segearth.convert.segearth_r1 import SWIN, UNUSED, published_rules
from segearth.evaluation.records import SampleRecord, compute_metrics
from segearth.layers.deformable_attention import DeformableAttention
from segearth.layers.point_sampling import sample_points, uncertain_points
from segearth.losses.criterion import point_bce, point_dice
from segearth.metrics.masks import count_pixels
from segearth.models.description_projector import DescriptionProjector
from segearth.models.mask_decoder import MaskDecoder
from segearth.models.pixel_decoder import PixelDecoder
from segearth.models.token_compressor import SparseConvCompressor
from segearth.models.vision_encoder import SwinEncoder
from segearth.preprocessing.transform import ImageTransform


def load(module: nn.Module, tensors: dict[str, Tensor], theirs: str, ours: str, left: str = "nothing") -> nn.Module:
    """Loads recorded ``state.*`` tensors, which the whole model has under ``theirs``, into our module at ``ours``."""
    state = {theirs + key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    translated = to_ours(state, published_rules(num_heads=4), UNUSED).state
    missing, unexpected = module.load_state_dict(
        {name.removeprefix(ours): value for name, value in translated.items()}, strict=False
    )
    assert unexpected == []
    assert [name for name in missing if not name.startswith(left)] == []
    return module.eval()


@torch.no_grad()
def test_token_compressor(golden: Golden, parity: Parity) -> None:
    tensors = load_file(golden("connector.safetensors"))
    module = load(SparseConvCompressor(16, 24, 8), tensors, "model.mm_projector.", "token_compressor.")
    parity("token compressor", "image tokens", relative_error(module(tensors["x"]), tensors["y"]), PIECE)


@torch.no_grad()
def test_the_token_compressor_at_other_sizes() -> None:
    """At the trained 32 x 32 cells of 1024 px it is the plain layers to the bit; elsewhere its norms' weights, stored a
    cell each, are interpolated."""
    torch.manual_seed(0)
    module = SparseConvCompressor(4, 6, 32)
    for norm in (module.norm1, module.norm2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    res5 = torch.randn(2, 4, 32, 32)
    plain = module.fc(module.norm2(module.proj2(module.norm1(module.proj1(res5)))))
    assert torch.equal(module(res5), plain.flatten(2).transpose(1, 2))
    for height, width, count in ((16, 16, 16), (33, 50, 117), (64, 64, 256), (1, 1, 1)):
        tokens = module(torch.randn(1, 4, height, width))
        assert tokens.shape == (1, count, 6)
        assert tokens.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2])
def test_description_projector(golden: Golden, parity: Parity, depth: int) -> None:
    """Computing the pooled latent alone equals computing all latents, at any depth."""
    tensors = load_file(golden(f"d_projector_depth{depth}.safetensors"))
    module = load(DescriptionProjector(48, 40, 64, 32, depth, 4, 8, 1), tensors, "", "description_projector.")
    pooled = torch.stack([tensors[f"refer_hidden_{i}"].mean(0) for i in range(3)])
    query = module(pooled, module.keys_values(tensors["res5"]), torch.arange(3))
    error = relative_error(query, tensors["SEG_embedding"][:, 0])
    parity("description projector", f"query, depth {depth}", error, PIECE)


@torch.no_grad()
def test_deformable_attention(golden: Golden, parity: Parity) -> None:
    tensors = load_file(golden("msdeformattn.safetensors"))
    attention = "layers.0.self_attn."
    prefix = "pixel_decoder.transformer.encoder." + attention
    module = load(DeformableAttention(32, 3, 4, 4), tensors, prefix, "pixel_decoder." + attention)
    shapes = [(int(h), int(w)) for h, w in tensors["spatial_shapes"]]
    reference = tensors["reference_points"][0, :, 0]
    out = module(tensors["query"], reference, tensors["input_flatten"], shapes)
    parity("deformable attention", "output", relative_error(out, tensors["y"]), PIECE)


@torch.no_grad()
def test_pixel_decoder(golden: Golden, parity: Parity) -> None:
    tensors = load_file(golden("pixel_decoder.safetensors"))
    module = PixelDecoder([8, 16, 32, 64], 64, 6, 4, 4, 96, mask_dim=48)
    load(module, tensors, "pixel_decoder.", "pixel_decoder.")
    mask_features, levels = module([tensors[f"res{i}"] for i in (2, 3, 4, 5)])
    parity("pixel decoder", "mask features", relative_error(mask_features, tensors["mask_features"]), PIECE)
    for i, level in enumerate(levels):
        parity("pixel decoder", "multi-scale features", relative_error(level, tensors[f"multi_scale_{i}"]), PIECE)


@pytest.mark.parametrize(
    ("name", "feature_dim"), [("predictor", 64), ("predictor_inproj", 48), ("predictor_allmasked", 64)]
)
def test_mask_decoder(golden: Golden, parity: Parity, name: str, feature_dim: int) -> None:
    tensors = load_file(golden(f"{name}.safetensors"))
    num_layers = len(tensors["pred_masks_all_layers"]) - 1
    module = MaskDecoder(64, num_layers, 4, 128, mask_dim=48, feature_dim=feature_dim)
    load(module, tensors, "predictor.", "mask_decoder.", left="presence_head.")
    levels = [tensors[f"x{i}"] for i in range(3)]
    prepared = module.prepare_image(tensors["mask_features"], levels)
    output = module(tensors["SEG_embedding"][:, 0], torch.arange(len(levels[0])), prepared, auxiliary=True)
    ours_all = torch.stack([*output.auxiliary, output.mask_logits])
    theirs_all = tensors["pred_masks_all_layers"][:, :, 0]
    parity("mask decoder", "mask logits of all predictions", relative_error(ours_all, theirs_all), PIECE)
    assert torch.equal(ours_all > 0, theirs_all > 0)


@torch.no_grad()
@pytest.mark.parametrize("window", [7, 12])
def test_swin_at_every_size(golden: Golden, parity: Parity, window: int) -> None:
    """Recorded with stochastic depth off. While training, the public code sees a frozen tower through two different
    draws of it; here a frozen encoder has none."""
    tensors = load_file(golden(f"swin_w{window}.safetensors"))
    config = VisionEncoderConfig(embed_dim=16, depths=[2] * 4, num_heads=[1, 2, 4, 8], window_size=window)
    module = load(SwinEncoder(config), tensors, SWIN, "vision_encoder.")
    inputs = [key for key in tensors if key.startswith("x_")]
    assert inputs
    for key in inputs:
        for i, ours in enumerate(module(tensors[key])):
            error = relative_error(ours, tensors[f"res{i + 2}{key[1:]}"])
            parity("vision encoder", f"res2-res5, window {window}, sides no multiple of it", error, PIECE)


def test_a_frozen_encoder_is_the_same_in_training() -> None:
    """Two draws of stochastic depth in one step, as in the public code, are impossible here."""
    config = VisionEncoderConfig(embed_dim=16, depths=[2] * 4, num_heads=[1, 2, 4, 8], drop_path_rate=0.5)
    module = SwinEncoder(config)
    module.freeze()
    module.train()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for once, again in zip(module(images), module(images), strict=True):
        assert torch.equal(once, again)


def test_losses_at_the_recorded_points(golden: Golden, parity: Parity) -> None:
    tensors = load_file(golden("criterion.safetensors"))
    for i in range(3):
        logits = tensors[f"logits_{i}"][:, 0].requires_grad_()
        points = tensors[f"point_coords_{i}"]
        sampled, target = sample_points(logits, points), sample_points(tensors["gt"][:, 0], points)
        bce, dice = point_bce(sampled, target).mean(), point_dice(sampled, target).mean()
        parity("losses", "cross-entropy", relative_error(bce, tensors["loss_mask"][i]), PIECE)
        parity("losses", "Dice", relative_error(dice, tensors["loss_dice"][i]), PIECE)
        (gradient,) = torch.autograd.grad(5 * bce + 5 * dice, logits)
        error = relative_error(gradient, tensors[f"grad_logits_{i}"][:, 0])
        parity("losses", "gradient to mask logits", error, PIECE)


def test_points_drawn_from_the_recorded_numbers(
    golden: Golden, parity: Parity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same random numbers choose the same uncertain points."""
    tensors = load_file(golden("criterion.safetensors"))
    for i in range(3):
        drawn = iter([tensors[f"oversample_rand_{i}"], tensors[f"random_rand_{i}"]])
        monkeypatch.setattr(torch, "rand", lambda *size, drawn=drawn, **options: next(drawn))
        points = uncertain_points(tensors[f"logits_{i}"][:, 0], 192, 3.0, 0.75)
        order = points.flatten(1).sort().values, tensors[f"point_coords_{i}"].flatten(1).sort().values
        parity("losses", "points chosen", relative_error(*order), 0)


@pytest.mark.parametrize("size", ["50x80", "80x50", "64x64", "33x97", "200x130"])
def test_preprocessing(golden: Golden, parity: Parity, size: str) -> None:
    """The mask comes out binary: the public code's interpolated values above 1 cannot appear in a boolean array."""
    tensors = load_file(golden("preprocess.safetensors"))
    transform = ImageTransform(ImageTransformConfig(size=64, fit="letterbox"))
    ours = transform.apply(tensors[f"img_{size}"].numpy())
    error = relative_error(ours, tensors[f"norm_{size}"])
    parity("preprocessing", "image, padded and normalised", error, 0)
    mask = transform.apply_to_mask(tensors[f"mask_{size}"].numpy() > 0)
    assert mask.dtype == bool
    error = float((mask != (tensors[f"maskout_{size}"][0].numpy() > 0)).mean())
    parity("preprocessing", "mask", error, 0)


def test_metrics(golden: Golden, parity: Parity) -> None:
    """Public values are float32 quotients with 1e-5 added to the union; ours are exact, so they agree to that."""
    tensors = load_file(golden("metrics.safetensors"))
    pairs = zip(tensors["pred"].numpy(), tensors["gt"][:, 0].numpy(), strict=True)
    records = [
        SampleRecord(str(i), str(i), "roofs", task="referring", kind="", source="", **count_pixels(*pair))
        for i, pair in enumerate(pairs)
    ]
    result = compute_metrics(records)
    ious = np.array([record.iou for record in records], np.float32)
    parity("metrics", "IoU of each image", float(np.abs(ious - tensors["per_image_iou"].numpy()).max()), 1e-7)
    parity("metrics", "gIoU", abs(result.giou - 0.5347764492034912), 1e-7)
    parity("metrics", "cIoU", abs(result.ciou - 0.7309598326683044), 1e-7)
    assert list(result.precision.values()) == [0.5, 0.5, 0.5, 0.5, 0.375]
