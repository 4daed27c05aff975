"""Typed configuration: dataclasses, filled from YAML files and from overrides such as ``train.max_steps=200``.

A YAML file holds only what differs from the file that it names as ``base``. An unknown key is an error that names the
nearest known one.
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

END_TO_END, DECOUPLED = FAMILIES = ("end_to_end", "decoupled")
PROMPTED_CARD = "prompted.json"  # in a model's folder: names the parts of a prompted or concept segmenter
UNKNOWN_SPLITS = "unknown"  # in place of the splits that weights were trained on, where nobody has told


@dataclass
class VisionEncoderConfig:
    """The vision encoder: ``kind: swin`` is this library's own, ``kind: timm`` any hierarchical backbone of timm."""

    kind: str = "swin"
    timm_name: str | None = None  # for kind timm, e.g. "convnext_tiny"
    pretrained: bool = True  # for kind timm: start from timm's weights; false: from random ones
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
    """Turns the encoder's last map (res5) into image tokens.

    ``kind: conv`` works at any image size. ``kind: sparse_conv`` is the published one, whose norms have a weight for
    each cell of a map of one size.
    """

    kind: str = "conv"
    stride: int = 4  # 1, 2 or 4: one token for each stride x stride cells of res5; sparse_conv always has 4
    input_size: int = 32  # for sparse_conv: the side of res5, in cells, that its norms are built for


@dataclass
class LanguageModelConfig:
    """A causal language model of transformers: either pretrained, or made new from ``model_type`` and ``config``."""

    pretrained: str | None = None  # hub id or folder
    model_type: str = "phi"
    config: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the transformers config class
    frozen: bool = False
    head_bias: bool = True  # False: the output head has no bias, as in the published checkpoints


@dataclass
class DescriptionProjectorConfig:
    """The small cross-attention module (a Perceiver) between language model and mask decoder."""

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
    """The mask decoder, whose attention is masked as in Mask2Former."""

    num_layers: int = 9
    num_heads: int = 8
    ffn_dim: int = 2048
    # The published model has neither of these two.
    box_gate: bool = False  # whether each query also predicts a box, and its mask is cut off outside of that box
    presence_match: bool = False  # whether the presence score also compares the words directly with the whole image


@dataclass
class ImageTransformConfig:
    """Preprocessing of images. It is stored with the weights, since they are only right for images prepared this way.

    ``fit: resize`` scales the longer side to ``size`` and rounds both sides to multiples of 32, so nothing is padded;
    ``fit: letterbox`` keeps the aspect ratio exactly and pads with zeros to a square (the published protocol).
    """

    size: int = 1024
    fit: str = "resize"
    mean: list[float] = field(default_factory=lambda: [123.675, 116.28, 103.53])
    std: list[float] = field(default_factory=lambda: [58.395, 57.12, 57.375])


@dataclass
class TextConfig:
    """Prompt template and tokenizer."""

    template: str = "plain"
    tokenizer: str = "aerial"  # "aerial": the small one in this package; else a hub id or folder
    max_question_tokens: int = 256


@dataclass
class ModelConfig:
    """Everything needed to build a model, apart from its weights; stored as ``config.json`` beside them."""

    vision_encoder: VisionEncoderConfig = field(default_factory=VisionEncoderConfig)
    token_compressor: TokenCompressorConfig = field(default_factory=TokenCompressorConfig)
    language_model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    description_projector: DescriptionProjectorConfig = field(default_factory=DescriptionProjectorConfig)
    pixel_decoder: PixelDecoderConfig = field(default_factory=PixelDecoderConfig)
    mask_decoder: MaskDecoderConfig = field(default_factory=MaskDecoderConfig)
    image_transform: ImageTransformConfig = field(default_factory=ImageTransformConfig)
    text: TextConfig = field(default_factory=TextConfig)
    coordinates: bool = False  # whether positions are added to the feature maps; not so in the published model
    region_chooser: bool = False  # whether regions of a mask are compared, and those kept that the words ask for
    class_head: bool = False  # whether the model has the head that `loss.classes` trains
    presence_threshold: float = 0.5  # below this presence probability the answer is "absent", with an empty mask
    # Slope and offset that map raw to calibrated confidence; `segearth calibrate` fits them.
    score_curve: list[float] = field(default_factory=lambda: [1.0, 0.0])
    # Whether an object that is judged present always gets a mask: the one with the highest IoU to expect, in place of
    # what lies above 0. Mask logits are calibrated for it by a slope and an offset; `segearth calibrate` fits them.
    presence_decides: bool = False
    mask_curve: list[float] = field(default_factory=lambda: [1.0, 0.0])
    # Finest and coarsest metres a pixel of the images it learned from; a scene of another resolution is brought to the
    # nearest of these. Empty: not known, scenes are taken as they are.
    resolutions: list[float] = field(default_factory=list)
    protocol: str = "native"  # the evaluation protocol that these weights' published figures were made with


@dataclass
class DatasetConfig:
    """One split of one data set."""

    name: str = "aerial_mini"
    root: str | None = None  # the data set's folder; None: its default place, which only built-in data sets have
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of the data set's class
    repeat: int = 1  # in training: how often each image is seen in an epoch


@dataclass
class AugmentConfig:
    """Augmentation of training images. Masks and annotations are changed with the image, so questions stay true."""

    enabled: bool = True
    min_scale: float = 0.5  # smallest side of a crop, as a share of the image's shorter side
    flips_and_turns: bool = True
    colour_jitter: float = 0.2
    mosaic: float = 0.0  # share of annotated views that are put together from parts of several images
    paste: float = 0.0  # share of the other annotated views into which objects of other images are pasted
    most_pasted: int = 5  # the most objects that are pasted into a view


@dataclass
class DataConfig:
    """The data sets of training, validation and test, and how questions are drawn from them."""

    train: list[DatasetConfig] = field(default_factory=lambda: [DatasetConfig()])
    val: list[DatasetConfig] | None = None  # None: the val splits of the training sets; []: no validation
    test: list[DatasetConfig] | None = None  # None: the test splits of the training sets
    questions_per_image: int = 6  # the most questions of an image in a training step
    # For annotated images: from a kind of question to its share. Empty or null: DEFAULT_MIX of the question builder.
    mix: dict[str, float] | None = field(default_factory=dict)
    first_question_only: bool = False  # use only the first of a data set's own questions, as the published recipe does
    twins: float = 0.0  # share of questions about place, side or size that are followed by their opposite
    train_size: int | None = None  # longer side of training frames; None: the model's size. Smaller frames are faster
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    num_workers: int = 2  # processes that load data


@dataclass
class LossConfig:
    """Weights of the losses, and where masks are compared. A weight of 0 switches a loss off."""

    bce: float = 5.0
    dice: float = 5.0
    presence: float = 1.0
    text: float = 1.0
    classes: float = 0.0  # every known class at every cell, predicted from its name; needs model.class_head
    choice: float = 0.0  # which regions are kept of those that a question chooses from; needs model.region_chooser
    boxes: float = 0.0  # distance between predicted and true box edges; needs model.mask_decoder.box_gate
    sampling: str = "points"  # where masks are compared. points: at random points, as published; dense: at every cell
    absent_masks: bool = True  # whether the empty masks of absent things are supervised, beside the presence score
    # With dense sampling: targets that cover less than this share of the frame get about this share of the weight.
    small_targets: float = 0.0
    # With sampling at points: how many points, how many candidates for each of them, and which share of the points are
    # the most uncertain candidates instead of uniform ones.
    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_ratio: float = 0.75


@dataclass
class LoraConfig:
    """Low-rank adapters (LoRA) on the language model. They are merged into its weights when a model is saved."""

    enabled: bool = False
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])


@dataclass
class TrainConfig:
    """Settings of the training run."""

    output_dir: str = "runs/experiment"
    seed: int = 0
    max_steps: int = 1000
    global_batch_size: int = 16  # images per optimiser step, over all ranks
    micro_batch_size: int = 8  # images per rank and forward pass, at most
    optimizer: str = "adamw"  # adamw | muon, which needs fewer steps from random weights; only with deepspeed: zero0
    learning_rate: float = 1e-4
    matrix_learning_rate: float = 0.02  # muon's, of weight matrices; all else learns with learning_rate
    min_learning_rate_ratio: float = 0.0
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    max_grad_norm: float = 1.0
    precision: str = "auto"  # auto | fp32 | bf16; auto: bf16 where the device is fast at it
    deepspeed: str = "zero2"  # zero0 | zero2 | zero3 | zero3_offload, or a path to a DeepSpeed JSON
    activation_checkpointing: bool = False
    freeze: list[str] = field(default_factory=list)  # dotted names of modules or parameters that do not learn
    lora: LoraConfig = field(default_factory=LoraConfig)
    ema_decay: float = 0.0  # decay of the moving average of the weights, which is then saved as the model; 0: off
    val_every: int = 500  # steps between validations on data.val; the best model is kept. 0: never
    val_images: int | None = 32  # how many images of data.val, the same ones each time; null: all
    early_stop_patience: int = 0  # end after so many validations without a better one; 0: never
    save_every: int = 500
    keep_checkpoints: int = 1
    log_every: int = 10
    tensorboard: bool = False


@dataclass
class EvalConfig:
    """Settings of the evaluation."""

    protocol: str = "auto"  # native | segearth_r1; auto: the model's own
    controls: bool = True  # whether trivial answers are scored beside the model's, for comparison
    sheet_rows: int = 8  # rows of the picture that shows masks
    limit: int | None = None  # score only so many images; None: all
    batch_size: int | None = None  # the most images at a time; None: 4, or fewer large ones on a CPU


@dataclass
class PolicyConfig:
    """The decoupled family's two halves: a vision-language model that points, and a segmenter that draws."""

    pretrained: str | None = None  # hub id or folder of the vision-language model; None: a tiny one, from `tiny`
    tiny: dict[str, Any] = field(default_factory=dict)  # fields of segearth.prompting.tiny.TinyShape
    segmenter: str = "boxes"  # hub id or folder of a SAM; boxes: each box is filled, which costs nothing
    template: str = "think2seg@1"  # in whose form answers are asked for
    side: int | None = None  # of the square that images are resized to; None: the template's
    max_new_tokens: int = 1024  # where an answer is cut off
    freeze_vision: bool = False  # whether the vision encoder stays as it is


@dataclass
class SftConfig:
    """The first stage: learning to write from synthesised reasoning traces. Of ``train`` it shares what is not here."""

    max_steps: int = 0  # 0: no such stage
    # What traces are made of; None: data.train. Rewards need masks alone, so they can teach scenes that no trace is of.
    data: list[DatasetConfig] | None = None
    batch_size: int = 16  # traces per optimiser step, over all ranks
    micro_batch_size: int = 8  # traces per rank and forward pass, at most
    learning_rate: float = 1e-5
    warmup_ratio: float = 0.03
    thought: str = "full"  # full: grid cells, candidates with boxes, what decides, choice; cells: grid cells alone


@dataclass
class GrpoConfig:
    """The second stage: group-relative policy optimisation (GRPO, arXiv 2402.03300). ``train`` holds the rest.

    There ``global_batch_size`` and ``micro_batch_size`` count answers; the former is a multiple of the group.
    """

    reward: str = "think2seg_rs"  # a preset of segearth.rl.rewards.presets
    weights: dict[str, float] = field(default_factory=dict)  # of the preset's terms, where others are wanted
    add: dict[str, float] = field(default_factory=dict)  # terms of other presets beside its own, with their weights
    constants: dict[str, Any] = field(default_factory=dict)  # fields of segearth.rl.rewards.settings.RewardSettings
    consistency: dict[str, Any] = field(default_factory=dict)  # fields of ConsistencySettings, where the preset has it
    embedder: str | None = None  # hub id or folder of a sentence-transformers model, for presets that compare texts
    group: int = 8  # answers to each question
    updates: int = 1  # steps whose answers are written at once, by the policy as it is before the first of them
    beta: float = 1e-3  # weight of the distance (KL) to the policy that the stage began with
    epsilon: float = 0.2  # how far a step may move an answer's probability, as a ratio
    temperature: float = 1.0
    scale: str = "group"  # by what deviation advantages are divided: the group's, as published; batch; none
    loss: str = "grpo"  # how trl averages over tokens: grpo (each answer alike), dapo, dr_grpo, bnpo


@dataclass
class ExperimentConfig:
    """One experiment.

    ``model`` holds either ``name``, a model of the zoo, or ``pretrained``, a saved folder or hub id to start from. Its
    other keys override fields of that model's :class:`ModelConfig`. ``policy``, ``sft`` and ``grpo`` are read where
    ``family`` is ``"decoupled"``, and then ``model`` and ``loss`` are not.
    """

    family: str = END_TO_END  # end_to_end: one network from image to mask; decoupled: a policy, trained by rewards
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    model: dict[str, Any] = field(default_factory=lambda: {"name": "segearth_tiny"})
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


T = TypeVar("T")


def load_experiment(path: str | Path | None, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Reads an experiment file, its bases and dotted overrides into typed configuration.

    Args:
        path: YAML file. Its optional key ``base`` is one path or a list of paths, relative to the file itself. With
            ``None`` the defaults of :class:`ExperimentConfig` are used.
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
