"""Each module against recorded inputs and outputs of the public SegEarth-R1 (random weights, fp32)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from segearth.config import VisionEncoderConfig
from segearth.layers.deformable_attention import DeformableAttention
from segearth.layers.point_sampling import sample_points
from segearth.losses.criterion import point_bce, point_dice
from segearth.models.description_projector import DescriptionProjector
from segearth.models.mask_decoder import MaskDecoder
from segearth.models.pixel_decoder import PixelDecoder
from segearth.models.token_compressor import SparseConvCompressor
from segearth.models.vision_encoder import SwinEncoder

TOLERANCE = 1e-5


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def state_of(tensors: dict[str, Tensor], *renames: tuple[str, str]) -> dict[str, Tensor]:
    state = {}
    for key, value in tensors.items():
        if key.startswith("state.") and "relative_position_index" not in key:
            name = key.removeprefix("state.")
            for pattern, replacement in renames:
                name = re.sub(pattern, replacement, name)
            state[name] = value
    return state


def test_token_compressor(golden: Path) -> None:
    tensors = load_file(golden / "connector.safetensors")
    module = SparseConvCompressor(16, 24, 8)
    module.load_state_dict(state_of(tensors))
    assert relative_error(module(tensors["x"]), tensors["y"]) <= TOLERANCE


@pytest.mark.parametrize("depth", [1, 2])
def test_description_projector(golden: Path, depth: int) -> None:
    """Computing the pooled latent alone equals computing all latents, at any depth."""
    tensors = load_file(golden / f"d_projector_depth{depth}.safetensors")
    module = DescriptionProjector(48, 40, 64, 32, depth, 4, 8, 1)
    layer = r"d_layers\.layers\.(\d+)\."
    module.load_state_dict(
        state_of(
            tensors,
            ("origin_SEG_token_projector", "origin_proj"), ("SEG_token_projector", "query_proj"),
            ("text_projector", "latent_proj"), ("local_project", "image_proj"), (r"d_layers\.norm", "norm"),
            (layer + r"0\.", r"layers.\1."), (layer + r"1\.0", r"layers.\1.ff_norm"),
            (layer + r"1\.1", r"layers.\1.fc1"), (layer + r"1\.3", r"layers.\1.fc2"),
        )
    )
    pooled = torch.stack([tensors[f"refer_hidden_{i}"].mean(0) for i in range(3)])
    query = module(pooled, tensors["res5"], torch.arange(3))
    assert relative_error(query, tensors["SEG_embedding"][:, 0]) <= TOLERANCE


def test_deformable_attention(golden: Path) -> None:
    tensors = load_file(golden / "msdeformattn.safetensors")
    module = DeformableAttention(32, 3, 4, 4)
    module.load_state_dict(state_of(tensors))
    shapes = [(int(h), int(w)) for h, w in tensors["spatial_shapes"]]
    reference = tensors["reference_points"][0, :, 0]
    out = module(tensors["query"], reference, tensors["input_flatten"], shapes)
    assert relative_error(out, tensors["y"]) <= TOLERANCE


def test_pixel_decoder(golden: Path) -> None:
    tensors = load_file(golden / "pixel_decoder.safetensors")
    module = PixelDecoder([8, 16, 32, 64], 64, 6, 4, 4, 96, mask_dim=48)
    module.load_state_dict(
        state_of(
            tensors,
            (r"transformer\.level_embed", "level_embed.weight"), (r"transformer\.encoder\.layers", "layers"),
            ("adapter_1", "lateral"), ("layer_1", "output"),
        )
    )
    mask_features, memory = module([tensors[f"res{i}"] for i in (2, 3, 4, 5)])
    assert relative_error(mask_features, tensors["mask_features"]) <= TOLERANCE
    for i, level in enumerate(memory):
        assert relative_error(level, tensors[f"multi_scale_{i}"]) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "memory_dim"), [("predictor", 64), ("predictor_inproj", 48), ("predictor_allmasked", 64)]
)
def test_mask_decoder(golden: Path, name: str, memory_dim: int) -> None:
    tensors = load_file(golden / f"{name}.safetensors")
    module = MaskDecoder(64, 9, 4, 128, mask_dim=48, memory_dim=memory_dim)
    state: dict[str, Tensor] = {}
    for key, value in state_of(tensors).items():
        kind = key.rsplit(".", 1)[-1].removeprefix("in_proj_")
        layer = next((f"layers.{part}." for part in key.split(".") if part.isdigit()), "")
        if "in_proj_" in key:
            q, k, v = value.chunk(3)
            if "self_attention" in key:  # of a lone query only the value matters
                state[f"{layer}self_v.{kind}"] = v
            else:
                state |= {f"{layer}cross_{n}.{kind}": part for n, part in zip("qkv", (q, k, v), strict=True)}
        elif key.startswith("transformer_"):
            block = {"self": "self", "cross": "cross", "ffn": "ffn"}[key.split("_")[1]]
            piece = key.split(".")[-2]
            ours = {"out_proj": f"{block}_out", "norm": f"{block}_norm", "linear1": "ffn1", "linear2": "ffn2"}[piece]
            state[f"{layer}{ours}.{kind}"] = value
        elif key.startswith("mask_embed"):
            state[f"mask_embed.{2 * int(key.split('.')[2])}.{kind}"] = value
        else:
            state[key.replace("decoder_norm", "norm").replace("input_proj", "memory_proj")] = value
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all(key.startswith("presence_head") for key in missing)
    memory = [tensors[f"x{i}"] for i in range(3)]
    output = module(tensors["SEG_embedding"][:, 0], torch.arange(2), tensors["mask_features"], memory)
    ours_all = torch.stack([*output.auxiliary, output.mask_logits])
    theirs_all = tensors["pred_masks_all_layers"][:, :, 0]
    assert relative_error(ours_all, theirs_all) <= TOLERANCE
    assert torch.equal(ours_all > 0, theirs_all > 0)


@pytest.mark.parametrize("window", [7, 12])
def test_swin_at_every_size(golden: Path, window: int) -> None:
    tensors = load_file(golden / f"swin_w{window}.safetensors")
    config = VisionEncoderConfig(embed_dim=16, depths=[2] * 4, num_heads=[1, 2, 4, 8], window_size=window)
    module = SwinEncoder(config).eval()
    module.load_state_dict(
        state_of(
            tensors,
            (r"patch_embed\.proj", "patch_embed"), (r"patch_embed\.norm", "patch_norm"),
            (r"layers\.(\d)\.blocks", r"stages.\1"), (r"layers\.(\d)\.downsample", r"downsamples.\1"),
            (r"^norm(\d)", r"norms.\1"),
            (r"mlp\.fc", "mlp.fc"),
        )
    )
    inputs = [key for key in tensors if key.startswith("x_")]
    assert len(inputs) >= 2
    for key in inputs:
        with torch.no_grad():
            maps = module(tensors[key])
        for i, ours in enumerate(maps):
            assert relative_error(ours, tensors[f"res{i + 2}{key[1:]}"]) <= TOLERANCE


def test_losses_at_the_recorded_points(golden: Path) -> None:
    tensors = load_file(golden / "criterion.safetensors")
    for i in range(3):
        logits = tensors[f"logits_{i}"][:, 0].requires_grad_()
        points = tensors[f"point_coords_{i}"]
        sampled, target = sample_points(logits, points), sample_points(tensors["gt"][:, 0], points)
        bce, dice = point_bce(sampled, target).mean(), point_dice(sampled, target).mean()
        assert relative_error(bce, tensors["loss_mask"][i]) <= TOLERANCE
        assert relative_error(dice, tensors["loss_dice"][i]) <= TOLERANCE
        (gradient,) = torch.autograd.grad(5 * bce + 5 * dice, logits)
        assert relative_error(gradient, tensors[f"grad_logits_{i}"][:, 0]) <= 1e-4
