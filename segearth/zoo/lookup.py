"""Models by name."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segearth.config import ModelConfig, TextConfig, from_dict
from segearth.errors import CheckpointError, UnknownNameError
from segearth.utils.files import sha256_of
from segearth.zoo.cards import CARDS, PACKAGED, ModelCard

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth

logger = logging.getLogger(__name__)
PACKAGED_WEIGHTS = Path(__file__).with_name("weights")


def list_models() -> list[str]:
    """Returns the names :func:`load_model` takes."""
    return sorted(CARDS)


def is_named(source: str) -> bool:
    """Whether this means a model of that name; a folder of the same name goes first."""
    return source in CARDS and not Path(source).is_dir()


def get_card(name: str) -> ModelCard:
    """Returns a model's card.

    Raises:
        UnknownNameError: No such model; the nearest names are listed.
    """
    if name not in CARDS:
        raise UnknownNameError("model", name, CARDS)
    return CARDS[name]


def model_config(spec: Mapping[str, Any] | str) -> ModelConfig:
    """Returns the configuration that an experiment's ``model`` describes.

    Args:
        spec: A name, or ``{"name": …, field: {…}}`` whose further keys override the card's configuration. With
            ``"pretrained"``, a saved folder, a hub id, or a name whose card has weights, the configuration saved there
            takes the place of the card's.

    Raises:
        UnknownNameError: No such model.
        ConfigError: An override's key is unknown or of the wrong type.
        CheckpointError: There is no model at ``pretrained``.
    """
    values = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, pretrained = values.pop("name", "segearth_tiny"), values.pop("pretrained", None)
    if not pretrained:
        return from_dict(ModelConfig, values, base=copy.deepcopy(get_card(name).config), origin=f"model {name}")
    from segearth.models.pretrained import read_config

    config = read_config(pretrained_folder(str(pretrained)))
    return from_dict(ModelConfig, values, base=config, origin=f"model {pretrained}")


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


def build_described(spec: Mapping[str, Any]) -> SegEarth:
    """Builds the model that an experiment's ``model`` describes, with the weights it starts training from.

    Parts that a model may have or not, such as coordinates, start at random where those weights have none of them.

    Args:
        spec: As for :func:`model_config`.

    Raises:
        CheckpointError: The weights at ``pretrained`` are missing, damaged, or do not fit the overrides.
    """
    from segearth.models.build import build_model
    from segearth.models.parts import added_parts, build_part
    from segearth.models.pretrained import WithoutRandomStart, load_folder, read_config

    pretrained = spec.get("pretrained")
    if not pretrained:
        return build_model(model_config(spec))
    with WithoutRandomStart():
        model = build_model(model_config(spec), load_weights=False)
    folder = pretrained_folder(str(pretrained))
    added = added_parts(read_config(folder), model.config)
    model.random_parts = load_folder(model, folder, added)
    for part in added:
        logger.warning("%s has no %s, which starts at random", pretrained, part)
        model.get_submodule(part).load_state_dict(build_part(part, model).state_dict())  # it was filled with zeros
    return model


def pretrained_folder(source: str) -> Path:
    """Returns the folder with the weights of a saved model, a hub id, or a name whose card has weights.

    Raises:
        CheckpointError: There are none.
    """
    from segearth.models.pretrained import local_folder

    return weights_folder(source) if is_named(source) else local_folder(source)


def facts_of(source: str) -> dict[str, Any]:
    """Returns what is known of the training of a folder's model, of a name's, or of one fetched from the hub.

    See :func:`segearth.models.pretrained.training_facts`. Nothing where there is no such model.
    """
    from segearth.models.pretrained import training_facts

    if is_named(source):
        return {"trained_on": list(CARDS[source].trained_on)} if CARDS[source].trained_on else {}
    try:
        return training_facts(pretrained_folder(source))
    except CheckpointError:
        return {}


def load_model(name: str, weights: str | None = "auto") -> SegEarth:
    """Builds a model by name.

    Args:
        name: One of :func:`list_models`.
        weights: ``"auto"``: the card's weights, and random ones with a warning if it has none. ``None``: random
            weights. Else a folder or hub id that holds weights of this shape.

    Returns:
        The model in eval mode.

    Raises:
        UnknownNameError: No such model.
        CheckpointError: The weights are missing, damaged, or not those the card promises.
    """
    from segearth.models.build import build_model
    from segearth.models.pretrained import local_folder
    from segearth.models.segearth import SegEarth

    card = get_card(name)
    source = card.weights if weights == "auto" else weights
    if source is None:
        if weights == "auto" and card.convert_from:
            raise CheckpointError(
                f"{name}: its weights are published in another form; run `segearth zoo convert {card.convert_from} "
                f"FOLDER` and open FOLDER"
            )
        if weights == "auto":
            logger.warning("%s has no published weights: these are random; train it before trusting a mask", name)
        return build_model(copy.deepcopy(card.config)).eval()
    folder = weights_folder(name) if source == card.weights else local_folder(source)
    return SegEarth.from_pretrained(str(folder))


def weights_folder(name: str) -> Path:
    """Returns the folder with a model's trained weights, fetched if they are on a hub, and checked.

    Raises:
        UnknownNameError: No such model.
        CheckpointError: It has no weights, they are not those that the card promises, or the card does not say which
            splits they have seen.
    """
    from segearth.models.pretrained import WEIGHTS_FILE, local_folder

    card = get_card(name)
    if card.weights is None:
        raise CheckpointError(f"{name} has no trained weights; train it, and give the run's folder")
    if not card.trained_on:
        raise CheckpointError(f"the card of {name} does not say which splits its weights have seen; add trained_on")
    folder = PACKAGED_WEIGHTS / name if card.weights == PACKAGED else local_folder(card.weights)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}; install segearth again")
    if card.sha256 and (found := sha256_of(path)) != card.sha256:
        raise CheckpointError(f"{path}: sha256 {found} is not the card's {card.sha256}; fetch or install it again")
    return folder
