"""From a configuration to the parts of a model. The only place in ``models`` that reads one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from segearth.config import ModelConfig, TokenCompressorConfig, VisionEncoderConfig
from segearth.errors import ConfigError, UnknownNameError
from segearth.layers.position import Coordinates
from segearth.models.class_head import ClassHead
from segearth.models.description_projector import DescriptionProjector
from segearth.models.language_model import LanguageModel, build_language_model
from segearth.models.mask_decoder import MaskDecoder
from segearth.models.pixel_decoder import PixelDecoder
from segearth.models.region_chooser import RegionChooser
from segearth.models.token_compressor import ConvCompressor, SparseConvCompressor
from segearth.models.vision_encoder import SwinEncoder, TimmEncoder, VisionEncoder
from segearth.models.word_heads import BagOfWords, BoxGate, PresenceMatch
from segearth.preprocessing.transform import ImageTransform
from segearth.text.encoding import PromptEncoder
from segearth.text.templates import get_template
from segearth.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth


def build_parts(config: ModelConfig, load_weights: bool = True) -> dict[str, Any]:
    """Builds all that :class:`segearth.models.segearth.SegEarth` is composed of, by the names of its arguments.

    Parts have random weights, or pretrained ones where the configuration names some.

    Args:
        config: The model's configuration.
        load_weights: ``False`` when weights follow from elsewhere, so that pretrained parts are not fetched.

    Raises:
        ConfigError: Values that do not fit together.
        UnknownNameError: A kind, backbone, template, image fit or language-model type that does not exist.
    """
    if config.region_chooser and config.image_transform.fit == "letterbox":
        # Nothing is learned of padding, so that what is drawn there by chance might be taken for the largest thing.
        raise ConfigError("region_chooser compares regions of the whole frame; set image_transform.fit to resize")
    vision_encoder = build_vision_encoder(config.vision_encoder, load_weights)
    tokenizer = load_tokenizer(config.text.tokenizer)
    language_model = build_language_model(config.language_model, len(tokenizer), load_weights)
    prompt_encoder = PromptEncoder(tokenizer, get_template(config.text.template), config.text.max_question_tokens)
    res5_channels = vision_encoder.channels[-1]
    pixel, mask, projector = config.pixel_decoder, config.mask_decoder, config.description_projector
    builders = _optional_parts(config, res5_channels, language_model)
    optional: dict[str, Any] = {name: build() for name, build in builders.items()}
    return dict(
        vision_encoder=vision_encoder,
        token_compressor=build_token_compressor(config.token_compressor, res5_channels, language_model.dim),
        language_model=language_model,
        description_projector=DescriptionProjector(
            language_model.dim, res5_channels, pixel.dim, projector.dim, projector.depth, projector.num_heads,
            projector.head_dim, projector.ff_mult,
        ),
        pixel_decoder=PixelDecoder(
            vision_encoder.channels, pixel.dim, pixel.num_layers, pixel.num_heads, pixel.num_points, pixel.ffn_dim
        ),
        mask_decoder=MaskDecoder(
            pixel.dim, mask.num_layers, mask.num_heads, mask.ffn_dim, box_gate=optional.get("mask_decoder.box_gate"),
            presence_match=optional.get("mask_decoder.presence_match"),
        ),
        prompt_encoder=prompt_encoder,
        image_transform=ImageTransform(config.image_transform),
        config=config,
        coordinates=optional.get("coordinates"),
        bag_of_words=optional.get("bag_of_words"),
        class_head=optional.get("class_head"),
        region_chooser=optional.get("region_chooser"),
    )  # fmt: skip


def build_vision_encoder(config: VisionEncoderConfig, load_weights: bool = True) -> VisionEncoder:
    """Builds the vision encoder and freezes it if its config says so.

    Raises:
        ConfigError: ``kind: timm`` without ``timm_name``.
        UnknownNameError: An unknown kind or timm name.
        CheckpointError: The weights of a timm backbone cannot be fetched.
    """
    encoder: VisionEncoder
    if config.kind == "swin":
        encoder = SwinEncoder(config)
    elif config.kind == "timm":
        if not config.timm_name:
            raise ConfigError("vision_encoder: kind timm needs timm_name, such as convnext_tiny")
        encoder = TimmEncoder(config.timm_name, pretrained=config.pretrained and load_weights)
    else:
        raise UnknownNameError("vision encoder kind", config.kind, ["swin", "timm"])
    if config.frozen:
        encoder.freeze()
    return encoder


def build_token_compressor(config: TokenCompressorConfig, in_channels: int, dim: int) -> nn.Module:
    """Builds the token compressor.

    Raises:
        UnknownNameError: An unknown kind.
    """
    if config.kind == "conv":
        return ConvCompressor(in_channels, dim, config.stride)
    if config.kind == "sparse_conv":
        return SparseConvCompressor(in_channels, dim, config.input_size)
    raise UnknownNameError("token compressor kind", config.kind, ["conv", "sparse_conv"])


def added_parts(before: ModelConfig, config: ModelConfig) -> list[str]:
    """Returns the parts, by name, that a model of ``config`` has and one of ``before`` has not."""
    there = _has(before)
    return [part for part, has in _has(config).items() if has and not there[part]]


def build_part(name: str, model: SegEarth) -> nn.Module:
    """Builds one of :func:`added_parts` anew, with random weights, to fit a model."""
    return _optional_parts(model.config, model.vision_encoder.channels[-1], model.language_model)[name]()


def _has(config: ModelConfig) -> dict[str, bool]:
    """Says of every optional part whether a model has it, by the part's name from the model down."""
    mask = config.mask_decoder
    return {
        "coordinates": config.coordinates,
        "class_head": config.class_head,
        "region_chooser": config.region_chooser,
        "bag_of_words": mask.box_gate or mask.presence_match or config.region_chooser,  # all three read its sums
        "mask_decoder.box_gate": mask.box_gate,
        "mask_decoder.presence_match": mask.presence_match,
    }


def _optional_parts(
    config: ModelConfig, res5_channels: int, language_model: LanguageModel
) -> dict[str, Callable[[], nn.Module]]:
    dim = config.pixel_decoder.dim
    builders: dict[str, Callable[[], nn.Module]] = {
        "coordinates": lambda: Coordinates(res5_channels, dim),
        "class_head": lambda: ClassHead(language_model.dim, dim),
        "region_chooser": RegionChooser,
        "bag_of_words": lambda: BagOfWords(language_model.vocab_size),
        "mask_decoder.box_gate": lambda: BoxGate(dim),
        "mask_decoder.presence_match": lambda: PresenceMatch(dim),
    }
    return {name: builders[name] for name, has in _has(config).items() if has}
