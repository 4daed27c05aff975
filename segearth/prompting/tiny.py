"""Tiny models from configurations, with random weights and no hub: they drive tests and the embedded experiment.

Their parts are those of the published models, only narrower, so that whatever works with them works with those. Each is
saved by its own ``save_pretrained`` and opened like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segearth.errors import UnknownNameError
from segearth.text.tokenizer import load_tokenizer
from segearth.utils.torchvision_mend import mend_torchvision

# The turns of Qwen's chat; the image's placeholder is repeated by the processor, once for each of its tokens.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
# What an answer repeats all the time is one token each, so that short answers are short, quick to write and to learn.
PIECES = (
    "<think>", "</think>", "<answer>", "</answer>", "```json", "```", '{"bbox_2d": [', '], "positive_points": [[',
    "], [", "]]}", "]}", ", ",
)  # fmt: skip


@dataclass(frozen=True)
class TinyKind:
    """Names of a model's classes in transformers."""

    config: str
    model: str
    processor: str
    videos: str


KINDS = {
    "qwen2_5_vl": TinyKind(
        "Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"
    ),
    "qwen3_vl": TinyKind(
        "Qwen3VLConfig", "Qwen3VLForConditionalGeneration", "Qwen3VLProcessor", "Qwen3VLVideoProcessor"
    ),
}


@dataclass(frozen=True)
class TinyShape:
    """The sizes of a tiny vision-language model; the defaults make one of 1.0 M parameters.

    Attributes:
        kind: ``"qwen2_5_vl"`` or ``"qwen3_vl"``. The latter adds to each patch a learned vector that says where it
            lies. Without one a place is known only by how far tokens are from each other, and a model of a few layers
            that learns from nothing then reads no coordinate off an image.
        side: Side in pixels of the square image that it sees; a multiple of ``2 * patch``.
        patch: Side in pixels of the squares that an image is cut into; four of them become one token.
        hidden: Width of the language model; a multiple of 16 times ``heads``.
        layers: Of the language model.
        heads: Of attention, in both halves.
        vision_hidden: Width of the vision encoder; a multiple of 4 times ``heads``.
        vision_layers: Of the vision encoder.
        numbers: The whole numbers below this are one token each. A coordinate is then one choice of the model, not a
            row of digits of which a small one gets some right.
        pieces: Further texts that are one token each.
        spread: Standard deviation of the random weights. 0.02 is that of the published models, which are dozens of
            times wider; a narrow one passes on almost nothing of what it sees: ``1 / sqrt(hidden)`` suits it.
        place_spread: That of the vectors that say where a patch lies. As small as the weights they drown in the
            colours, and it takes hundreds of steps until a model notices them; 1 is noticed within fifty.
    """

    kind: str = "qwen2_5_vl"
    side: int = 128
    patch: int = 8
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    vision_hidden: int = 96
    vision_layers: int = 2
    numbers: int = 129
    pieces: Sequence[str] = PIECES
    spread: float = 0.02
    place_spread: float = 0.02


def tiny_vision_language_model(shape: TinyShape | None = None) -> tuple[Any, Any]:
    """Builds a Qwen2.5-VL (arXiv 2502.13923) or Qwen3-VL of a few layers, with the tokenizer of this package.

    Args:
        shape: Its sizes.

    Returns:
        ``Qwen2_5_VLForConditionalGeneration`` or ``Qwen3VLForConditionalGeneration`` with random weights (seed torch
        for the same ones), in eval mode, and its processor, which leaves a square image of the shape's side as it is.

    Raises:
        UnknownNameError: There is no such kind.
    """
    shape = shape or TinyShape()
    mend_torchvision()
    import transformers

    processor = tiny_processor(shape)
    tokenizer = processor.tokenizer
    mark = dict(zip(MARKS, tokenizer.convert_tokens_to_ids(list(MARKS)), strict=True))
    ends = dict(bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    classes = KINDS[shape.kind]
    config = getattr(transformers, classes.config)(
        text_config=_language_sizes(shape, len(tokenizer)) | ends, vision_config=_vision_sizes(shape),
        image_token_id=mark["<|image_pad|>"], video_token_id=mark["<|video_pad|>"],
        vision_start_token_id=mark["<|vision_start|>"], vision_end_token_id=mark["<|vision_end|>"],
        tie_word_embeddings=True,
    )  # fmt: skip
    model = getattr(transformers, classes.model)(config).eval()
    if shape.kind == "qwen3_vl":
        model.model.visual.pos_embed.weight.data *= shape.place_spread / shape.spread
    model.generation_config.update(**ends)
    return model, processor


def _language_sizes(shape: TinyShape, vocabulary: int) -> dict[str, Any]:
    head = shape.hidden // shape.heads
    # A head's pairs of numbers are turned by time, row and column; an image has no time.
    turned = dict(rope_type="default", rope_theta=1e4, mrope_section=[head // 8, 3 * head // 16, 3 * head // 16])
    sizes = dict(
        vocab_size=vocabulary, hidden_size=shape.hidden, intermediate_size=2 * shape.hidden,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.heads // 2 or 1,
        max_position_embeddings=4096, tie_word_embeddings=True, rope_parameters=turned, initializer_range=shape.spread,
    )  # fmt: skip
    return sizes | ({"head_dim": head} if shape.kind == "qwen3_vl" else {})


def _vision_sizes(shape: TinyShape) -> dict[str, Any]:
    sizes: dict[str, Any] = dict(
        depth=shape.vision_layers, hidden_size=shape.vision_hidden, intermediate_size=2 * shape.vision_hidden,
        num_heads=shape.heads, patch_size=shape.patch, temporal_patch_size=1, out_hidden_size=shape.hidden,
        initializer_range=shape.spread,
    )  # fmt: skip
    if shape.kind == "qwen3_vl":
        # One vector a patch. The features of the first layer also reach the language model's, as in the published one.
        return sizes | dict(num_position_embeddings=(shape.side // shape.patch) ** 2, deepstack_visual_indexes=[0])
    return sizes | dict(window_size=8 * shape.patch, fullatt_block_indexes=list(range(shape.vision_layers)))


def tiny_processor(shape: TinyShape) -> Any:
    """Builds the processor of :func:`tiny_vision_language_model`."""
    if shape.kind not in KINDS:
        raise UnknownNameError("kind of tiny vision-language model", shape.kind, KINDS)
    mend_torchvision()
    import transformers

    tokenizer = load_tokenizer("aerial")
    tokenizer.add_tokens(list(MARKS), special_tokens=True)
    tokenizer.add_tokens([*shape.pieces, *map(str, range(shape.numbers))])
    tokenizer.eos_token, tokenizer.padding_side = "<|im_end|>", "left"
    cut = dict(patch_size=shape.patch, temporal_patch_size=1, merge_size=2)
    # A tiny image would be enlarged to the published least size. No video is ever given; the processor wants the part.
    images = transformers.Qwen2VLImageProcessor(
        min_pixels=(2 * shape.patch) ** 2, max_pixels=shape.side**2, **cut
    )
    classes = KINDS[shape.kind]
    videos = getattr(transformers, classes.videos)(**cut)
    return getattr(transformers, classes.processor)(images, tokenizer, videos, chat_template=CHAT_TEMPLATE)


def tiny_sam2(side: int = 64) -> Any:
    """Builds a SAM 2 (arXiv 2408.00714) of 0.1 M parameters with random weights, in eval mode.

    Args:
        side: Side in pixels of the square frame it sees; a multiple of 32.
    """
    mend_torchvision()
    from transformers import Sam2Config, Sam2Model

    cells = side // 4
    config = Sam2Config(
        vision_config=dict(
            backbone_config=dict(
                model_type="sam2_hiera_det_model", hidden_size=8, image_size=[side, side],
                blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
                num_attention_heads_per_stage=[1, 1, 2, 4], window_size_per_stage=[4, 4, 4, 2],
                global_attention_blocks=[3],  # not the first of a stage, which shrinks the map
            ),
            backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
            backbone_feature_sizes=[[cells, cells], [cells // 2, cells // 2], [cells // 4, cells // 4]],
        ),
        prompt_encoder_config=dict(hidden_size=32, image_size=side),
        mask_decoder_config=dict(hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32),
    )  # fmt: skip
    return Sam2Model(config).eval()


def tiny_sam3(side: int = 64) -> tuple[Any, Any]:
    """Builds a SAM 3 (arXiv 2511.16719) of 0.3 M parameters with random weights, in eval mode, and its tokenizer.

    Args:
        side: Side in pixels of the square frame it sees; a multiple of 32.
    """
    mend_torchvision()
    from transformers import Sam3Config, Sam3Model

    tokenizer = load_tokenizer("aerial")
    part = dict(hidden_size=32, num_attention_heads=2)
    layer = dict(part, num_layers=1, intermediate_size=64)
    config = Sam3Config(
        vision_config=tiny_sam3_vision(side),
        text_config=dict(
            model_type="clip_text_model", vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64,
            projection_dim=32, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        ),
        geometry_encoder_config=layer, detr_encoder_config=layer, detr_decoder_config=dict(layer, num_queries=8),
        mask_decoder_config=part,
    )  # fmt: skip
    return Sam3Model(config).eval(), tokenizer


def tiny_sam3_vision(side: int) -> dict[str, Any]:
    """Returns the configuration of SAM 3's vision encoder, which its tracker shares."""
    cells = side // 8
    return dict(
        backbone_config=dict(
            model_type="sam3_vit_model", hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, image_size=side, patch_size=8, window_size=4, global_attn_indexes=[1],
            pretrain_image_size=side,
        ),
        fpn_hidden_size=32,
        backbone_feature_sizes=[[4 * cells, 4 * cells], [2 * cells, 2 * cells], [cells, cells]],
    )  # fmt: skip
