"""Typed configuration: dataclasses, YAML files with ``base:``, dotted overrides.

An experiment file is a short diff from its base. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from segearth.errors import ConfigError, nearest_names


@dataclass
class VisionEncoderConfig:
    """``kind: swin`` is this library's Swin, exact at every size; ``kind: timm`` any hierarchical timm backbone."""

    kind: str = "swin"
    timm_name: str | None = None  # for kind timm, e.g. "convnext_tiny"
    pretrained: bool = True  # for kind timm: start from timm's weights, where it has some; false: at random
    embed_dim: int = 128
    depths: list[int] = field(default_factory=lambda: [2, 2, 18, 2])
    num_heads: list[int] = field(default_factory=lambda: [4, 8, 16, 32])
    window_size: int = 12
    mlp_ratio: float = 4.0
    drop_path_rate: float = 0.3
    stem: str = "patch"  # patch: one 4 x 4 convolution, as published; conv: two overlapping 3 x 3 ones, for small data
    local_conv: bool = False  # a 3 x 3 depthwise convolution before each attention, for small data
    frozen: bool = True


@dataclass
class TokenCompressorConfig:
    """``kind: conv`` takes any size; ``kind: sparse_conv`` is the published one with norms of a fixed shape."""

    kind: str = "conv"
    stride: int = 4  # 1, 2 or 4: how much coarser than res5 the tokens are; sparse_conv is always 4
    input_size: int = 32  # res5 cells a side that sparse_conv is built for


@dataclass
class LanguageModelConfig:
    """A causal language model of transformers: from a hub id or folder, or from ``model_type`` and ``config``."""

    pretrained: str | None = None
    model_type: str = "phi"
    config: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the transformers config class
    frozen: bool = False
    head_bias: bool = True  # False: the output head has no bias, as in the published checkpoints


@dataclass
class DescriptionProjectorConfig:
    """The small Perceiver between language model and mask decoder."""

    dim: int = 512
    depth: int = 1
    num_heads: int = 8
    head_dim: int = 64
    ff_mult: int = 1


@dataclass
class PixelDecoderConfig:
    """The deformable pixel decoder; ``dim`` is also the width of queries and mask features."""

    dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    num_points: int = 4
    ffn_dim: int = 1024


@dataclass
class MaskDecoderConfig:
    """The masked-attention mask decoder."""

    num_layers: int = 9
    num_heads: int = 8
    ffn_dim: int = 2048
    box_gate: bool = False  # whether each query draws a box outside of which its mask ends; not in the published model
    presence_match: bool = False  # whether presence also compares words and image directly; not in the published model


@dataclass
class ImageTransformConfig:
    """Preprocessing belongs to the weights.

    ``fit: resize`` scales the longer side to ``size`` and rounds both sides to multiples of 32, so nothing is padded;
    ``fit: letterbox`` keeps the aspect and pads with zeros, centred, to a square (the published protocol).
    """

    size: int = 1024
    fit: str = "resize"
    mean: list[float] = field(default_factory=lambda: [123.675, 116.28, 103.53])
    std: list[float] = field(default_factory=lambda: [58.395, 57.12, 57.375])


@dataclass
class TextConfig:
    """Prompt template and tokenizer."""

    template: str = "plain"
    tokenizer: str = "aerial"  # the small one in this package, or a hub id or folder
    max_question_tokens: int = 256


@dataclass
class ModelConfig:
    """Everything needed to build a model without weights; stored as ``config.json`` beside them."""

    vision_encoder: VisionEncoderConfig = field(default_factory=VisionEncoderConfig)
    token_compressor: TokenCompressorConfig = field(default_factory=TokenCompressorConfig)
    language_model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    description_projector: DescriptionProjectorConfig = field(default_factory=DescriptionProjectorConfig)
    pixel_decoder: PixelDecoderConfig = field(default_factory=PixelDecoderConfig)
    mask_decoder: MaskDecoderConfig = field(default_factory=MaskDecoderConfig)
    image_transform: ImageTransformConfig = field(default_factory=ImageTransformConfig)
    text: TextConfig = field(default_factory=TextConfig)
    coordinates: bool = False  # whether features say where in the image they are; the published model's do not
    class_head: bool = False  # whether training may tie the features of each cell to the names of classes
    presence_threshold: float = 0.5
    score_curve: list[float] = field(default_factory=lambda: [1.0, 0.0])  # slope, offset: `segearth calibrate`
    presence_decides: bool = False  # what is judged present never gets an empty mask; published models judge nothing
    protocol: str = "native"  # the evaluation protocol of these weights' published figures


@dataclass
class DatasetConfig:
    """One split of one data set; ``options`` are further arguments of its class."""

    name: str = "aerial_mini"
    root: str | None = None  # None: the data set's default place
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)
    repeat: int = 1  # of a training split: how often each image is seen where those of others are seen once


@dataclass
class AugmentConfig:
    """Geometry changes image and annotation together, so that questions stay true."""

    enabled: bool = True
    min_scale: float = 0.5  # smallest crop side, as a share of the image's
    flips_and_turns: bool = True
    colour_jitter: float = 0.2
    mosaic: float = 0.0  # share of fresh views that are put together of parts of several images
    paste: float = 0.0  # share of the other fresh views that get objects of images of the same source
    most_pasted: int = 5  # most objects that a view gets


@dataclass
class DataConfig:
    """What is trained and scored on."""

    train: list[DatasetConfig] = field(default_factory=lambda: [DatasetConfig()])
    val: list[DatasetConfig] | None = None  # left out: the val splits of what is trained on; []: no validation
    test: list[DatasetConfig] | None = None  # left out: the test splits of what is trained on
    questions_per_image: int = 6
    # Of annotated images: kind of question to share; empty, or null over a file that names some: the builder's own.
    mix: dict[str, float] | None = field(default_factory=dict)
    first_question_only: bool = False  # of a data set's own questions of an image: the published recipe uses no other
    twins: float = 0.0  # share of questions about places, sides and sizes that are followed by their opposite
    train_size: int | None = None  # longer side of training frames; None: the model's size. Smaller is faster
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    num_workers: int = 2


@dataclass
class LossConfig:
    """Weights of the losses and of the point sampling."""

    bce: float = 5.0
    dice: float = 5.0
    presence: float = 1.0
    text: float = 1.0
    classes: float = 0.0  # every known class at every cell, read off the mask features by its name (model.class_head)
    boxes: float = 0.0  # the edges of the boxes that masks end at (model.mask_decoder.box_gate)
    sampling: str = "points"  # points: drawn ones, as published; dense: every cell of the logits, for small maps
    absent_masks: bool = True  # also of what is absent, whose mask is empty; False leaves absence to presence alone
    small_targets: float = 0.0  # dense: the share of weight that targets covering less than this are given
    num_points: int = 12544  # of sampling points, as the two below
    oversample_ratio: float = 3.0
    importance_ratio: float = 0.75


@dataclass
class LoraConfig:
    """Low-rank adapters on the language model; merged into its weights when a model is saved."""

    enabled: bool = False
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])


@dataclass
class TrainConfig:
    """How to train."""

    output_dir: str = "runs/experiment"
    seed: int = 0
    max_steps: int = 1000
    global_batch_size: int = 16  # images per optimiser step, over all ranks
    micro_batch_size: int = 8  # images per rank and forward pass
    learning_rate: float = 1e-4
    min_learning_rate_ratio: float = 0.0
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    max_grad_norm: float = 1.0
    precision: str = "auto"  # auto | fp32 | bf16; auto: bf16 where the device is fast at it
    deepspeed: str = "zero2"  # zero0 | zero2 | zero3 | zero3_offload, or a path to a DeepSpeed JSON
    activation_checkpointing: bool = False
    freeze: list[str] = field(default_factory=list)  # modules or parameters by name, as if their config said frozen
    lora: LoraConfig = field(default_factory=LoraConfig)
    ema_decay: float = 0.0  # 0: off; the averaged weights are what is saved for use
    val_every: int = 500  # steps between scores on data.val, of which the best model is kept; 0: never
    val_images: int | None = 32  # how many images of data.val, the same ones each time; null: all
    early_stop_patience: int = 0  # end after so many validations without a better one; 0: never
    save_every: int = 500
    keep_checkpoints: int = 1
    log_every: int = 10
    tensorboard: bool = False


@dataclass
class EvalConfig:
    """How to score."""

    protocol: str = "auto"  # native | segearth_r1; auto: the model's own
    controls: bool = True
    sheet_rows: int = 8
    limit: int | None = None
    batch_size: int | None = None  # most images at a time; None: 4, on a CPU fewer if they are large


@dataclass
class ExperimentConfig:
    """One experiment.

    ``model`` holds ``name``, a row of the zoo's table, or ``pretrained``, a saved folder or hub id to start from; and
    overrides of their fields.
    """

    model: dict[str, Any] = field(default_factory=lambda: {"name": "segearth_tiny"})
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


T = TypeVar("T")


def load_experiment(path: str | Path | None, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Reads an experiment file, its bases and dotted overrides into typed configuration.

    Args:
        path: YAML file; its optional ``base`` is one path or a list of paths, relative to the file itself. ``None``:
            the defaults above.
        overrides: Items such as ``"train.max_steps=200"``, applied last.

    Raises:
        ConfigError: A file is missing or not YAML, a key is unknown, a value has the wrong type, or an override is an
            empty mapping.
    """
    origin = "overrides" if path is None else str(path)
    tree: Any = OmegaConf.create({}) if path is None else _read_with_bases(Path(path), ())
    if empty := [override for override in overrides if override.replace(" ", "").endswith("={}")]:
        key = empty[0].partition("=")[0]
        raise ConfigError(f"{empty[0]} would change nothing, since mappings are merged; to empty one: {key}=null")
    try:
        tree = OmegaConf.merge(tree, OmegaConf.from_dotlist(list(overrides)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"bad override: {error}") from error
    try:
        plain = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        unset = re.search(r"Environment variable '(\w+)' not found", str(error))
        if unset:
            message = f"environment variable {unset[1]} is not set; name the folder with `export {unset[1]}=…`"
        else:
            message = str(error).splitlines()[0]
        raise ConfigError(f"{origin}: {message}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{origin}: expected keys and values at the top level")
    return from_dict(ExperimentConfig, plain, origin=origin)


def from_dict(cls: type[T], values: Mapping[Any, Any], base: T | None = None, origin: str = "config") -> T:
    """Builds a config dataclass from plain values, checking every key and type.

    Args:
        cls: One of the dataclasses above.
        values: Nested plain values; keys left out keep their default, or ``base``'s value.
        base: An instance to start from instead of the defaults.
        origin: Named in errors.

    Raises:
        ConfigError: An unknown key (the nearest known one is named) or a value of the wrong type.
    """
    _check_keys(cls, values, origin, "")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(base if base is not None else cls), dict(values))
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except ConfigKeyError as error:
        raise ConfigError(f"{origin}: {error}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{origin}: {error.full_key or ''}: {str(error).splitlines()[0]}") from error


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a config dataclass as nested plain values, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def _check_keys(cls: Any, values: Any, origin: str, prefix: str) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{origin}: {prefix.rstrip('.') or 'top level'} must hold keys and values")
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{origin}: unknown key {prefix + str(key)!r}{nearest_names(str(key), sorted(known))}")
        factory = known[key].default_factory
        if dataclasses.is_dataclass(factory):
            _check_keys(factory, value, origin, f"{prefix}{key}.")


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> Any:
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: its bases lead back to itself")
    if not path.is_file():
        siblings = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"no config file {path}{nearest_names(path.name, siblings)}")
    try:
        tree = OmegaConf.load(path)
    except Exception as error:  # yaml raises several unrelated classes
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(tree, DictConfig):
        raise ConfigError(f"{path}: expected keys and values at the top level")
    bases = tree.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else list(bases)
    merged: Any = OmegaConf.create({})
    for base in bases:
        merged = OmegaConf.merge(merged, _read_with_bases(path.parent / base, (*seen, path)))
    return OmegaConf.merge(merged, tree)
