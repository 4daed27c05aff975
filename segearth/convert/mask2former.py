"""Translates Mask2Former checkpoints of detectron2 (arXiv 2112.01527): Swin, pixel decoder and mask decoder.

The rules of the three parts are also used for the published SegEarth-R1, which has the same names under other prefixes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from segearth.convert.rules import Rule, Translation, Unused, simple, to_ours

# Reasons for tensors that are left out; they are shown in the report of a conversion.
POSITION_INDEX_REASON = "follows from the window size and is computed here"
QUERY_REASON = "its bank of object queries: here the description is the query"


def _thirds(tensor: Tensor) -> Sequence[Tensor]:
    return tensor.unflatten(0, (3, -1)).unbind()


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(tensors))


def _value_third(tensor: Tensor) -> Sequence[Tensor]:
    return _thirds(tensor)[2:]


def _with_zero_query_and_key(tensors: Sequence[Tensor]) -> Tensor:
    zeros = torch.zeros_like(tensors[0])
    return torch.cat([zeros, zeros, tensors[0]])


def swin_rules(prefix: str) -> list[Rule]:
    """Returns the rules for Swin under ``prefix``, such as ``"backbone."``."""
    ours, block = "vision_encoder.", "layers.{s}.blocks.{b}."
    return [
        simple(prefix + "patch_embed.proj.{p}", ours + "patch_embed.{p}"),
        simple(prefix + "patch_embed.norm.{p}", ours + "patch_norm.{p}"),
        *(
            simple(prefix + block + name, ours + "stages.{s}.{b}." + name)
            for name in (
                "norm1.{p}", "norm2.{p}", "attn.qkv.{p}", "attn.proj.{p}", "attn.relative_position_bias_table",
                "mlp.fc1.{p}", "mlp.fc2.{p}",
            )
        ),
        simple(prefix + "layers.{s}.downsample.norm.{p}", ours + "downsamples.{s}.norm.{p}"),
        simple(prefix + "layers.{s}.downsample.reduction.{p}", ours + "downsamples.{s}.reduction.{p}"),
        simple(prefix + "norm{s}.{p}", ours + "norms.{s}.{p}"),
    ]  # fmt: skip


def pixel_decoder_rules(prefix: str) -> list[Rule]:
    """Returns the rules for the pixel decoder under ``prefix``, without its stride-4 level, whose names differ."""
    ours, layer = "pixel_decoder.", "transformer.encoder.layers.{i}."
    return [
        simple(prefix + "input_proj.{i}.{j}.{p}", ours + "input_proj.{i}.{j}.{p}"),
        simple(prefix + "transformer.level_embed", ours + "level_embed.weight"),
        *(
            simple(prefix + layer + name + ".{p}", ours + "layers.{i}." + name + ".{p}")
            for name in (
                "self_attn.sampling_offsets", "self_attn.attention_weights", "self_attn.value_proj",
                "self_attn.output_proj", "norm1", "norm2", "linear1", "linear2",
            )
        ),
        simple(prefix + "mask_features.{p}", ours + "mask_features.{p}"),
    ]  # fmt: skip


def mask_decoder_rules(prefix: str) -> list[Rule]:
    """Returns the rules for the mask decoder under ``prefix``.

    Our decoder has one query per mask, so its self-attention has a single key, over which softmax is always 1. Only the
    value projection matters. The query and key projections are left out, and are written as zeros on export.
    """
    ours = "mask_decoder."
    layer = ours + "layers.{i}."
    self_attention = prefix + "transformer_self_attention_layers.{i}."
    cross_attention = prefix + "transformer_cross_attention_layers.{i}."
    feed_forward = prefix + "transformer_ffn_layers.{i}."
    return [
        Rule(self_attention + "self_attn.in_proj_{p}", (layer + "self_v.{p}",), _value_third, _with_zero_query_and_key),
        simple(self_attention + "self_attn.out_proj.{p}", layer + "self_out.{p}"),
        simple(self_attention + "norm.{p}", layer + "self_norm.{p}"),
        Rule(
            cross_attention + "multihead_attn.in_proj_{p}",
            (layer + "cross_q.{p}", layer + "cross_k.{p}", layer + "cross_v.{p}"),
            _thirds,
            _stacked,
        ),
        simple(cross_attention + "multihead_attn.out_proj.{p}", layer + "cross_out.{p}"),
        simple(cross_attention + "norm.{p}", layer + "cross_norm.{p}"),
        simple(feed_forward + "linear1.{p}", layer + "ffn1.{p}"),
        simple(feed_forward + "linear2.{p}", layer + "ffn2.{p}"),
        simple(feed_forward + "norm.{p}", layer + "ffn_norm.{p}"),
        simple(prefix + "decoder_norm.{p}", ours + "norm.{p}"),
        simple(prefix + "level_embed.weight", ours + "level_embed.weight"),
        simple(prefix + "input_proj.{i}.{p}", ours + "input_proj.{i}.{p}"),
        *(simple(f"{prefix}mask_embed.layers.{n}.{{p}}", f"{ours}mask_embed.{2 * n}.{{p}}") for n in range(3)),
    ]


HEAD = "sem_seg_head."
RULES = [
    *swin_rules("backbone."),
    *pixel_decoder_rules(HEAD + "pixel_decoder."),
    simple(HEAD + "pixel_decoder.adapter_1.weight", "pixel_decoder.lateral.0.weight"),
    simple(HEAD + "pixel_decoder.adapter_1.norm.{p}", "pixel_decoder.lateral.1.{p}"),
    simple(HEAD + "pixel_decoder.layer_1.weight", "pixel_decoder.output.0.weight"),
    simple(HEAD + "pixel_decoder.layer_1.norm.{p}", "pixel_decoder.output.1.{p}"),
    *mask_decoder_rules(HEAD + "predictor."),
]
UNUSED = [
    Unused("backbone.layers.{s}.blocks.{b}.attn.relative_position_index", POSITION_INDEX_REASON),
    Unused(HEAD + "predictor.query_feat.weight", QUERY_REASON),
    Unused(HEAD + "predictor.static_query.weight", QUERY_REASON),
    Unused(HEAD + "predictor.query_embed.weight", QUERY_REASON),
    Unused(HEAD + "predictor.class_embed.{p}", "its class head: here nothing is classified"),
    Unused("criterion.empty_weight", "its class loss: here nothing is classified"),
]
CONVOLUTIONS_WITHOUT_BIAS = ("pixel_decoder.lateral.0", "pixel_decoder.output.0")


def from_mask2former(state: Mapping[str, Tensor], origin: str = "Mask2Former checkpoint") -> Translation:
    """Translates the tensors of a Mask2Former checkpoint with a Swin backbone.

    Its two convolutions at stride 4 have no bias. Ours have one, which is set to zero.

    Args:
        state: Tensors by name.
        origin: Named in errors.

    Raises:
        CheckpointError: A tensor's name is not known.
    """
    result = to_ours(state, RULES, UNUSED, origin)
    for name in CONVOLUTIONS_WITHOUT_BIAS:
        weight = result.state.get(name + ".weight")
        if weight is not None:
            result.state[name + ".bias"] = weight.new_zeros(weight.shape[0])
    return result
