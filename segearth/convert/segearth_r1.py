"""Translates the published SegEarth-R1 (arXiv 2504.09644), in both directions, and reads its shape off its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segearth.config import (
    DescriptionProjectorConfig,
    ImageTransformConfig,
    LanguageModelConfig,
    MaskDecoderConfig,
    ModelConfig,
    PixelDecoderConfig,
    TextConfig,
    TokenCompressorConfig,
    VisionEncoderConfig,
)
from segearth.convert.causal_lm import PREFIX, count_layers, fused_attention_rule
from segearth.convert.mask2former import (
    POSITION_INDEX_REASON,
    QUERY_REASON,
    mask_decoder_rules,
    pixel_decoder_rules,
    swin_rules,
)
from segearth.convert.rules import Rule, Translation, Unused, simple, to_ours, to_theirs
from segearth.errors import CheckpointError
from segearth.models.pixel_decoder import NUM_LEVELS
from segearth.models.vision_encoder import relative_position_index

SWIN = "model.vision_tower."
POSITION_INDEX = SWIN + "layers.{s}.blocks.{b}.attn.relative_position_index"
UNUSED = [
    Unused(POSITION_INDEX, POSITION_INDEX_REASON),
    Unused("seg_query", QUERY_REASON),
    Unused("predictor.query_feat.weight", QUERY_REASON),
    Unused("predictor.query_embed.weight", QUERY_REASON),
    Unused("predictor.SEG_query_embed.weight", QUERY_REASON),
    Unused("predictor.new_query_embed.weight", "never read: the query has no positional embedding"),
    Unused("predictor.SEG_proj.layers.{i}.{p}", "never read: made for a class head that is switched off"),
    Unused("predictor.CLASS_proj.layers.{i}.{p}", "never read: made for a class head that is switched off"),
]
UNUSED_QUERIES = {"query_feat": 100, "query_embed": 100, "SEG_query_embed": 101, "new_query_embed": 1}
OURS_ONLY = ["mask_decoder.presence_head.{i}.{p}"]
# Settings that cannot be read off the tensors' shapes; in the published model they are constants.
LANGUAGE_CONSTANTS = {
    "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "rope_theta": 10000.0,
    "rope_scaling": None, "qk_layernorm": False, "tie_word_embeddings": False,
}  # fmt: skip
NUM_POINTS, PROJECTOR_HEAD_DIM, DECODER_HEADS, PHI_HEAD_DIM = 4, 64, 8, 64


def published_rules(num_heads: int) -> list[Rule]:
    """Returns the rules for a published checkpoint.

    Args:
        num_heads: Number of attention heads of the language model, needed to split its query, key and value.
    """
    attention, layer = "model.layers.{i}.self_attn.", "model.layers.{i}."
    projector, perceiver = "description_projector.", "d_layers.layers.{i}."
    return [
        *swin_rules(SWIN),
        fused_attention_rule(attention, PREFIX + attention, num_heads),
        *(
            simple(name, PREFIX + name)
            for name in (
                "model.embed_tokens.weight", "lm_head.weight", "model.final_layernorm.{p}", attention + "dense.{p}",
                layer + "mlp.fc1.{p}", layer + "mlp.fc2.{p}", layer + "input_layernorm.{p}",
            )
        ),
        *(
            simple(f"model.mm_projector.{name}.{{p}}", f"token_compressor.{name}.{{p}}")
            for name in ("proj1", "norm1", "proj2", "norm2", "fc")
        ),
        simple("origin_SEG_token_projector.{p}", projector + "origin_proj.{p}"),
        simple("text_projector.{p}", projector + "latent_proj.{p}"),
        simple("local_project.{p}", projector + "image_proj.{p}"),
        simple("SEG_token_projector.{p}", projector + "query_proj.{p}"),
        *(
            simple(perceiver + theirs, projector + "layers.{i}." + ours)
            for theirs, ours in (
                ("0.norm_media.{p}", "norm_media.{p}"), ("0.norm_latents.{p}", "norm_latents.{p}"),
                ("0.to_q.weight", "to_q.weight"), ("0.to_kv.weight", "to_kv.weight"),
                ("0.to_out.weight", "to_out.weight"), ("1.0.{p}", "ff_norm.{p}"), ("1.1.weight", "fc1.weight"),
                ("1.3.weight", "fc2.weight"),
            )
        ),
        simple("d_layers.norm.{p}", projector + "norm.{p}"),
        *pixel_decoder_rules("pixel_decoder."),
        simple("pixel_decoder.adapter_1.{j}.{p}", "pixel_decoder.lateral.{j}.{p}"),
        simple("pixel_decoder.layer_1.{j}.{p}", "pixel_decoder.output.{j}.{p}"),
        *mask_decoder_rules("predictor."),
    ]  # fmt: skip


def from_segearth_r1(
    state: Mapping[str, Tensor], num_heads: int, origin: str = "SegEarth-R1 checkpoint"
) -> Translation:
    """Translates a published checkpoint.

    It has no presence head. One with weights of zero is added, which gives a presence of 0.5 for every question.

    Args:
        state: All tensors of the checkpoint.
        num_heads: Number of attention heads of its language model.
        origin: Named in errors.

    Raises:
        CheckpointError: A tensor's name is not known, or its shape is impossible.
    """
    result = to_ours(state, published_rules(num_heads), UNUSED, origin)
    ours = result.state
    norm = ours.get("mask_decoder.norm.weight")
    if norm is not None:
        dim, head = norm.shape[0], "mask_decoder.presence_head."
        shapes = {"0.weight": (dim, dim), "0.bias": (dim,), "2.weight": (1, dim), "2.bias": (1,)}
        ours |= {head + name: norm.new_zeros(shape) for name, shape in shapes.items()}
    return result


def to_segearth_r1(
    state: Mapping[str, Tensor], num_heads: int, window_size: int, buffers: bool = True
) -> dict[str, Tensor]:
    """Translates a model of the published shape back to the published names.

    Args:
        state: Our tensors (weights, or their gradients).
        num_heads: Number of attention heads of the language model.
        window_size: Side of Swin's window in cells.
        buffers: Whether to add the tensors that the published code has but never uses, as zeros.

    Raises:
        CheckpointError: The model has parts that the published one does not have.
    """
    theirs = to_theirs(state, published_rules(num_heads), OURS_ONLY)
    if buffers:
        index = relative_position_index(window_size)
        tables = [name for name in theirs if name.endswith("attn.relative_position_bias_table")]
        theirs |= {name.replace("bias_table", "index"): index.clone() for name in tables}
        embed, norm = theirs["model.embed_tokens.weight"], theirs["predictor.decoder_norm.weight"]
        dim = norm.shape[0]
        theirs["seg_query"] = embed.new_zeros(100, embed.shape[1])
        for name, count in UNUSED_QUERIES.items():
            theirs[f"predictor.{name}.weight"] = norm.new_zeros(count, dim)
        for name in ("SEG_proj", "CLASS_proj"):
            for i in range(2):
                theirs[f"predictor.{name}.layers.{i}.weight"] = norm.new_zeros(dim, dim)
                theirs[f"predictor.{name}.layers.{i}.bias"] = norm.new_zeros(dim)
    return theirs


def infer_config(
    state: Mapping[str, Tensor], facts: Mapping[str, Any], tokenizer: str, origin: str = "SegEarth-R1 checkpoint"
) -> ModelConfig:
    """Reads a published model's configuration off the shapes of its tensors.

    Args:
        state: The published tensors.
        facts: The content of the checkpoint's ``config.json``. Shapes do not tell ``num_attention_heads`` and
            ``max_position_embeddings``, so they are read here; without them, heads have 64 channels and there are 2048
            positions, as in Phi-1.5.
        tokenizer: Folder or hub id of the tokenizer.
        origin: Named in errors.

    Raises:
        CheckpointError: A tensor that is needed is missing or has an impossible shape, or ``facts`` describe a language
            model that differs from the published one.
    """

    def shape(name: str, ndim: int = 2) -> Sequence[int]:
        if name not in state:
            raise CheckpointError(f"{origin}: no {name}; it is not a whole SegEarth-R1 checkpoint")
        found = tuple(state[name].shape)
        if len(found) != ndim or 0 in found:
            raise CheckpointError(f"{origin}: {name} has shape {found}; a tensor of {ndim} axes is expected")
        return found

    def count(pattern: str) -> int:
        return count_layers(state, pattern, origin)

    stages = range(4)
    block = SWIN + "layers.{}.blocks.0."
    tables = [shape(block.format(s) + "attn.relative_position_bias_table") for s in stages]
    embed_dim = shape(SWIN + "patch_embed.proj.weight", 4)[0]
    hidden = shape("model.embed_tokens.weight")[1]
    pixel, decoder = "pixel_decoder.transformer.encoder.layers.", "predictor.transformer_ffn_layers."
    _check_constants(facts, origin)
    heads = _positive(facts, "num_attention_heads", max(1, hidden // PHI_HEAD_DIM), origin)
    projector_dim = shape("text_projector.weight")[0]
    input_size = 2 * shape("model.mm_projector.norm1.weight", 3)[1]
    if hidden % heads:
        raise CheckpointError(f"{origin}: num_attention_heads {heads} does not divide the width {hidden}")
    return ModelConfig(
        vision_encoder=VisionEncoderConfig(
            embed_dim=embed_dim,
            depths=[count(rf"model\.vision_tower\.layers\.{s}\.blocks\.(\d+)\.") for s in stages],
            num_heads=[table[1] for table in tables],
            window_size=(round(tables[0][0] ** 0.5) + 1) // 2,
            mlp_ratio=shape(block.format(0) + "mlp.fc1.weight")[0] / embed_dim,
        ),
        token_compressor=TokenCompressorConfig(kind="sparse_conv", input_size=input_size),
        language_model=LanguageModelConfig(
            model_type="phi",
            config=dict(
                hidden_size=hidden,
                intermediate_size=shape("model.layers.0.mlp.fc1.weight")[0],
                num_hidden_layers=count(r"model\.layers\.(\d+)\."),
                num_attention_heads=heads,
                max_position_embeddings=_positive(facts, "max_position_embeddings", 2048, origin),
            ),
            head_bias=False,
        ),
        description_projector=DescriptionProjectorConfig(
            dim=projector_dim,
            depth=count(r"d_layers\.layers\.(\d+)\."),
            num_heads=shape("d_layers.layers.0.0.to_q.weight")[0] // PROJECTOR_HEAD_DIM,
            head_dim=PROJECTOR_HEAD_DIM,
            ff_mult=shape("d_layers.layers.0.1.1.weight")[0] // projector_dim,
        ),
        pixel_decoder=PixelDecoderConfig(
            dim=shape("pixel_decoder.mask_features.weight", 4)[0],
            num_layers=count(r"pixel_decoder\.transformer\.encoder\.layers\.(\d+)\."),
            num_heads=shape(pixel + "0.self_attn.attention_weights.weight")[0] // (NUM_LEVELS * NUM_POINTS),
            num_points=NUM_POINTS,
            ffn_dim=shape(pixel + "0.linear1.weight")[0],
        ),
        mask_decoder=MaskDecoderConfig(
            num_layers=count(r"predictor\.transformer_ffn_layers\.(\d+)\."),
            num_heads=DECODER_HEADS,
            ffn_dim=shape(decoder + "0.linear1.weight")[0],
        ),
        image_transform=ImageTransformConfig(size=32 * input_size, fit="letterbox"),
        text=TextConfig(template="segearth_r1", tokenizer=tokenizer),
        presence_threshold=0.0,
        protocol="segearth_r1",
    )


def _check_constants(facts: Mapping[str, Any], origin: str) -> None:
    for key, constant in LANGUAGE_CONSTANTS.items():
        if facts.get(key, constant) != constant:
            raise CheckpointError(f"{origin}: config.json has {key} {facts[key]!r}, the published model {constant!r}")


def _positive(facts: Mapping[str, Any], key: str, default: int, origin: str) -> int:
    value = facts.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{origin}: config.json has {key} {value!r}, which is no positive whole number")
    return value
