"""Models by name."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segearth.config import ModelConfig, from_dict
from segearth.errors import CheckpointError, UnknownNameError
from segearth.utils.files import sha256_of
from segearth.zoo.cards import CARDS, ModelCard

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth

logger = logging.getLogger(__name__)


def list_models() -> list[str]:
    """Returns the names :func:`load_model` takes."""
    return sorted(CARDS)


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
            ``"pretrained"``, a saved folder or hub id, the configuration saved there takes the place of the card's.

    Raises:
        UnknownNameError: No such model.
        ConfigError: An override's key is unknown or of the wrong type.
        CheckpointError: There is no model at ``pretrained``.
    """
    values = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, pretrained = values.pop("name", "segearth_tiny"), values.pop("pretrained", None)
    if not pretrained:
        return from_dict(ModelConfig, values, base=copy.deepcopy(get_card(name).config), origin=f"model {name}")
    from segearth.models.segearth import local_folder, read_config

    config = read_config(local_folder(str(pretrained)))
    return from_dict(ModelConfig, values, base=config, origin=f"model {pretrained}")


def build_described(spec: Mapping[str, Any]) -> SegEarth:
    """Builds the model that an experiment's ``model`` describes, with the weights it starts training from.

    Args:
        spec: As for :func:`model_config`.

    Raises:
        CheckpointError: The weights at ``pretrained`` are missing, damaged, or do not fit the overrides.
    """
    from segearth.models.build import build_model
    from segearth.models.segearth import WEIGHTS_FILE, WithoutRandomStart, load_weights, local_folder

    pretrained = spec.get("pretrained")
    if not pretrained:
        return build_model(model_config(spec))
    with WithoutRandomStart():
        model = build_model(model_config(spec), load_weights=False)
    load_weights(model, local_folder(str(pretrained)) / WEIGHTS_FILE)
    return model


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
    from segearth.models.segearth import WEIGHTS_FILE, SegEarth, local_folder

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
    folder = local_folder(source)
    if source == card.weights and card.sha256:
        found = sha256_of(folder / WEIGHTS_FILE)
        if found != card.sha256:
            promised = card.sha256
            raise CheckpointError(f"{folder / WEIGHTS_FILE}: sha256 {found} is not the card's {promised}; fetch again")
    return SegEarth.from_pretrained(str(folder))
