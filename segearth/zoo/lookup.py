"""What an experiment's ``model`` section describes: a configuration, and the model that training starts from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segearth.config import ModelConfig, TextConfig, from_dict
from segearth.zoo.cards import config_of
from segearth.zoo.opening import find_folder

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth

logger = logging.getLogger(__name__)


def model_config(spec: Mapping[str, Any] | str) -> ModelConfig:
    """Returns the configuration that an experiment's ``model`` describes.

    Args:
        spec: A name, or ``{"name": …, field: {…}}`` whose further keys override the card's configuration. With
            ``"pretrained"``, which means what :func:`segearth.zoo.opening.load` takes, the configuration saved there
            takes the place of the card's.

    Raises:
        UnknownNameError: No such model.
        ConfigError: An override's key is unknown or of the wrong type.
        CheckpointError: There is no model at ``pretrained``.
    """
    return _described(spec)[0]


def _described(spec: Mapping[str, Any] | str) -> tuple[ModelConfig, Path | None]:
    """Returns the configuration, and the folder of the weights that training starts from if some are named.

    The folder is looked for once. A model of the hub may be replaced at any time, and the configuration of one commit
    does not fit the weights of another.
    """
    values = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, pretrained = values.pop("name", "segearth_tiny"), values.pop("pretrained", None)
    if not pretrained:
        return from_dict(ModelConfig, values, base=config_of(name), origin=f"model {name}"), None
    from segearth.models.pretrained import read_config

    folder = find_folder(str(pretrained))
    return from_dict(ModelConfig, values, base=read_config(folder), origin=f"model {pretrained}"), folder


def shape_config(spec: Mapping[str, Any] | str) -> ModelConfig:
    """Returns a configuration of the shapes that :func:`model_config` describes, for which a named model asks no hub.

    It gets the packaged tokenizer, while its vocabulary keeps the size that its language model has.

    Args:
        spec: As for :func:`model_config`, which reads it where it is ``"pretrained"``.

    Raises:
        UnknownNameError: No such model.
        ConfigError: An override's key is unknown or of the wrong type.
        CheckpointError: There is no model at ``pretrained``.
    """
    from transformers import AutoConfig

    values = {"name": spec} if isinstance(spec, str) else dict(spec)
    if values.get("pretrained"):
        return model_config(values)
    name = values.pop("name", "segearth_tiny")
    config = model_config(name)
    language = config.language_model
    if config.text.tokenizer != TextConfig.tokenizer:
        size = AutoConfig.for_model(language.model_type).vocab_size
        language.config = {"vocab_size": size, **language.config}
    language.pretrained, config.text.tokenizer = None, TextConfig.tokenizer
    return from_dict(ModelConfig, values, base=config, origin=f"model {name}")


def build_from_spec(spec: Mapping[str, Any]) -> SegEarth:
    """Builds the model that an experiment's ``model`` describes, with the weights it starts training from.

    Parts that a model may have or not, such as coordinates, start at random where those weights have none of them.

    Args:
        spec: As for :func:`model_config`.

    Raises:
        CheckpointError: The weights at ``pretrained`` are missing, damaged, or do not fit the overrides.
    """
    from segearth.models.build import build_model
    from segearth.models.parts import added_parts, build_part
    from segearth.models.pretrained import WithoutRandomStart, load_folder, read_config, saved_known_words

    config, folder = _described(spec)
    if folder is None:
        return build_model(config)
    with WithoutRandomStart():
        model = build_model(config, load_weights=False)
    added = added_parts(read_config(folder), model.config)
    model.random_parts = load_folder(model, folder, added)
    model.known_words = saved_known_words(folder)
    for part in added:
        logger.warning("%s has no %s, which starts at random", spec["pretrained"], part)
        model.get_submodule(part).load_state_dict(build_part(part, model).state_dict())  # it was filled with zeros
    return model
