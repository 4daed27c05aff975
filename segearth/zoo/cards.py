"""The zoo's table: models by name, and what is known of each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segearth.config import (
    UNKNOWN_SPLITS,
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
from segearth.errors import CheckpointError, ConfigError, UnknownNameError

PACKAGED = "packaged"  # as a card's weights: they come with this package, in a folder of the model's name
# Kinds of models that are opened in different ways. The last two are made of other libraries' models.
FAMILIES = ("segearth", "prompted", "concept")


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model.

    Attributes:
        summary: One line.
        parameters: Millions of parameters, as counted by ``segearth info``.
        family: One of :data:`FAMILIES`.
        config: How to build a ``segearth`` model. It names the preprocessing, the prompt and the evaluation protocol.
        parts: What a ``prompted`` or ``concept`` segmenter is made of: the keys of ``prompted.json`` but for its
            family and ``trained_on``, see :mod:`segearth.prompting.saved`.
        weights: Hub id or folder of trained weights, or :data:`PACKAGED`; ``None`` where there are none and it must be
            trained.
        convert_from: Hub id of published weights in another form, which are converted when they are first opened.
        sha256: Digest of ``model.safetensors`` there.
        licence: Of the weights, as whoever published them says. Like ``trained_on`` it must be told where there are
            weights: see :func:`check_card`.
        trained_on: Data-set splits the weights have seen: scores on them say nothing about new images.
        command: The exact command that trained the weights.
    """

    summary: str
    parameters: float
    family: str
    config: ModelConfig | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    convert_from: str | None = None
    sha256: str | None = None
    licence: str | None = None
    trained_on: tuple[str, ...] = ()
    command: str = ""
    notes: str = ""
    tags: tuple[str, ...] = field(default=())

    @property
    def protocol(self) -> str:
        """The evaluation protocol of the weights' published figures."""
        return self.config.protocol if self.config else "native"


def list_models() -> list[str]:
    """Returns the names of all models."""
    return sorted(CARDS)


def is_named(source: str | Path) -> bool:
    """Whether this means a model of that name; a folder of the same name goes first."""
    return isinstance(source, str) and source in CARDS and not Path(source).is_dir()


def get_card(name: str) -> ModelCard:
    """Returns a model's card.

    Raises:
        UnknownNameError: No such model; the nearest names are listed.
    """
    if name not in CARDS:
        raise UnknownNameError("model", name, CARDS)
    return CARDS[name]


def config_of(name: str) -> ModelConfig:
    """Returns how to build a model of this library: a copy, which the caller may change.

    Raises:
        UnknownNameError: No such model; the nearest names are listed.
        ConfigError: It is made of other libraries' models, which are not built from such a configuration.
    """
    card = get_card(name)
    if card.config is None:
        raise ConfigError(
            f"{name} is a {card.family} segmenter, made of other libraries' models: it can be asked (segearth.load, "
            "predict, eval), but not be built or trained as a SegEarth model; docs/decoupled.md tells how it is trained"
        )
    return copy.deepcopy(card.config)


def check_card(name: str) -> ModelCard:
    """Returns the card of a model that is about to be opened.

    Raises:
        UnknownNameError: No such model, or no such family.
        CheckpointError: It has weights and does not say their licence or which splits they have seen.
    """
    card = get_card(name)
    if card.family not in FAMILIES:
        raise UnknownNameError("family", card.family, FAMILIES)
    if card.weights or card.convert_from or card.parts:
        if not card.trained_on:
            raise CheckpointError(f"the card of {name} does not say which splits its weights have seen; add trained_on")
        if not card.licence:
            raise CheckpointError(f"the card of {name} does not say the licence of its weights; add licence")
    return card


def _published(dataset: str, trained_on: str, scores: str, images: str) -> ModelCard:
    """A published SegEarth-R1 (arXiv 2504.09644), as it is converted."""
    return ModelCard(
        summary=f"The published SegEarth-R1 for {dataset}",
        parameters=1586.8,
        family="segearth",
        config=ModelConfig(
            token_compressor=TokenCompressorConfig(kind="sparse_conv", input_size=32),
            language_model=LanguageModelConfig(model_type="phi", config=dict(PHI_1_5), head_bias=False),
            image_transform=ImageTransformConfig(size=1024, fit="letterbox"),
            text=TextConfig(template="segearth_r1", tokenizer=f"earth-insights/SegEarth-R1-{dataset}"),
            presence_threshold=0.0,
            protocol="segearth_r1",
        ),
        convert_from=f"earth-insights/SegEarth-R1-{dataset}",
        licence="Apache-2.0",
        trained_on=(trained_on,),
        notes=(
            f"Published test scores, teacher's words: {scores}. It has no notion of absent things: presence is 0.5. "
            f"Licence of the images it learned from: {images}."
        ),
    )


def _think2seg(size: str, parameters: float, base: str, licence: str) -> ModelCard:
    """A published Think2Seg-RS (arXiv 2512.19302) with the SAM 2.1 that it was rewarded with."""
    return ModelCard(
        summary=f"The published Think2Seg-RS-{size}: it thinks and points, SAM 2.1 fills in",
        parameters=parameters,
        family="prompted",
        parts={
            "vision_language_model": f"RicardoString/Think2Seg-RS-{size}",
            "promptable_segmenter": "facebook/sam2.1-hiera-small",
            "template": "think2seg@1",
            "precision": "bf16",
        },
        licence=f"none stated with the weights; {base}, from which they come: {licence}; SAM 2.1: Apache-2.0",
        trained_on=("earthreason train",),
        notes=(
            "It is asked in this library's own words, in which it was not trained: its published scores (EarthReason "
            "test, gIoU 73.36, cIoU 75.60) are those of its own prompt, and have not been tried for here."
        ),
    )


PHI_1_5 = dict(
    hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32, max_position_embeddings=2048
)

CARDS: dict[str, ModelCard] = {
    "segearth_debug": ModelCard(
        summary="Runs the whole pipeline in seconds; learns little",
        parameters=0.54,
        family="segearth",
        config=ModelConfig(
            vision_encoder=VisionEncoderConfig(
                embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4, drop_path_rate=0.0,
                frozen=False,
            ),
            token_compressor=TokenCompressorConfig(stride=2),
            language_model=LanguageModelConfig(
                model_type="phi",
                config=dict(
                    hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                    max_position_embeddings=512,
                ),
            ),
            description_projector=DescriptionProjectorConfig(dim=32, num_heads=2, head_dim=16),
            pixel_decoder=PixelDecoderConfig(dim=32, num_layers=1, num_heads=4, num_points=2, ffn_dim=64),
            mask_decoder=MaskDecoderConfig(num_layers=3, num_heads=4, ffn_dim=64),
            image_transform=ImageTransformConfig(size=128),
            text=TextConfig(),
        ),
    ),
    "segearth_tiny": ModelCard(
        summary="Trains and predicts on a two-core CPU; the embedded default",
        parameters=10.2,
        family="segearth",
        config=ModelConfig(
            vision_encoder=VisionEncoderConfig(
                embed_dim=40, depths=[1, 1, 4, 2], num_heads=[2, 4, 8, 16], window_size=8, drop_path_rate=0.0,
                stem="conv", local_conv=True, frozen=False,
            ),
            token_compressor=TokenCompressorConfig(stride=1),
            language_model=LanguageModelConfig(
                model_type="phi",
                config=dict(
                    hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
                    max_position_embeddings=1024, hidden_act="gelu_pytorch_tanh",
                ),
            ),
            description_projector=DescriptionProjectorConfig(dim=256, num_heads=4, head_dim=64),
            pixel_decoder=PixelDecoderConfig(dim=96, num_layers=1, num_heads=4, num_points=4, ffn_dim=256),
            mask_decoder=MaskDecoderConfig(num_layers=3, num_heads=4, ffn_dim=384),
            image_transform=ImageTransformConfig(size=256),
            text=TextConfig(),
            coordinates=True,
            presence_decides=True,
        ),
        weights=PACKAGED,
        sha256="1ab9ec2801fdde3cb78faff7b2f3792281fdb4660c4e7b09efe772033d06c152",
        licence="Apache-2.0",
        trained_on=("aerial_mini train", "synthetic train"),
        command=(
            "segearth train segearth_tiny/1_mixed && segearth train segearth_tiny/2_fine && "
            "segearth train segearth_tiny/3_boxes && segearth train segearth_tiny/4_settle && "
            "segearth train segearth_tiny/5_together && segearth train segearth_tiny/6_regions && "
            "segearth train segearth_tiny/7_choice && segearth calibrate segearth_tiny/7_choice"
        ),
        notes=(
            "Stages 1, 2 and 5 in fifteen minutes on one H200 (NVIDIA_TF32_OVERRIDE=1, torch 2.11), 3, 4, 6 and 7 in "
            "forty-one on one CPU core (torch 2.13), seed 0; the fifth was ended after 1,600 of its 2,000 steps. "
            "Stages 3, 5 and 6 add boxes, the comparison of words with the image and the choice among regions "
            "(0.2 M), which the card's shape lacks. Asked size, presence threshold, mask curve and score curve were "
            "chosen on val. What it can and cannot do: docs/results.md. The images it learned from keep their "
            "licences: segearth/data/aerial_mini/LICENSES.md."
        ),
    ),
    "segearth_swint_qwen2_5_0_5b": ModelCard(
        summary="The middle size: Swin-T and Qwen2.5-0.5B at 512 px, for one GPU",
        parameters=550.4,
        family="segearth",
        config=ModelConfig(
            vision_encoder=VisionEncoderConfig(
                embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, drop_path_rate=0.2,
                frozen=False,
            ),
            token_compressor=TokenCompressorConfig(stride=2),
            language_model=LanguageModelConfig(
                pretrained="Qwen/Qwen2.5-0.5B",
                model_type="qwen2",
                config=dict(
                    hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
                    num_key_value_heads=2, max_position_embeddings=32768, tie_word_embeddings=True, vocab_size=151936,
                ),
            ),
            image_transform=ImageTransformConfig(size=512),
            text=TextConfig(tokenizer="Qwen/Qwen2.5-0.5B"),
        ),
        notes="Fetches language model and tokenizer from their hub.",
    ),
    "segearth_swinb_phi1_5": ModelCard(
        summary="The published SegEarth-R1 shape: Swin-B, 64 image tokens, Phi-1.5, 1024 px",
        parameters=1590.6,
        family="segearth",
        config=ModelConfig(
            token_compressor=TokenCompressorConfig(kind="sparse_conv", input_size=32),
            language_model=LanguageModelConfig(
                pretrained="microsoft/phi-1_5",
                model_type="phi",
                config=dict(PHI_1_5),
            ),
            image_transform=ImageTransformConfig(size=1024, fit="letterbox"),
            text=TextConfig(tokenizer="microsoft/phi-1_5"),
        ),
        notes="Fetches language model and tokenizer from their hub. Swin is frozen: give it weights before training.",
    ),
    "segearth_r1_earthreason": _published("EarthReason", "earthreason train", "gIoU 70.75, cIoU 68.25", "Apache-2.0"),
    "segearth_r1_rrsisd": _published("RRSIS-D", "rrsis_d train", "gIoU 66.40, cIoU 78.01, Pr@0.5 76.96", "CC BY-NC"),
    "think2seg_rs_3b": _think2seg("3B", 3800.7, "Qwen2.5-VL-3B-Instruct", "Qwen Research License"),
    "think2seg_rs_7b": _think2seg("7B", 8338.2, "Qwen2.5-VL-7B-Instruct", "Apache-2.0"),
    "sam3": ModelCard(
        summary="SAM 3, asked with the question as typed",
        parameters=840.4,
        family="concept",
        parts={"model": "facebook/sam3"},
        licence="SAM License; its hub asks to accept it before the weights can be fetched",
        trained_on=(UNKNOWN_SPLITS,),
    ),
    "sam3_phrases": ModelCard(
        summary="SAM 3, asked with a noun phrase that Qwen2.5-0.5B makes of the question",
        parameters=1334.4,
        family="concept",
        parts={"model": "facebook/sam3", "phrases_by": "Qwen/Qwen2.5-0.5B-Instruct"},
        licence="SAM License (accept it on the hub before the weights can be fetched); Qwen2.5-0.5B: Apache-2.0",
        trained_on=(UNKNOWN_SPLITS,),
    ),
}  # fmt: skip
