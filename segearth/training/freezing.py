"""Freezes parts of a model, and refuses what must have been frozen by mistake."""

from __future__ import annotations

import logging

from torch import nn

from segearth.config import TrainConfig
from segearth.errors import ConfigError, nearest_names
from segearth.layers.blocks import set_frozen
from segearth.models.segearth import SegEarth
from segearth.training.optimisation import add_lora

logger = logging.getLogger(__name__)


def choose_what_learns(model: SegEarth, train: TrainConfig) -> None:
    """Adds the adapters and freezes the parts that the settings name.

    Raises:
        MissingExtraError: Adapters are wanted and peft is not installed.
        ConfigError: A name is not one of the model's.
    """
    if train.lora.enabled:
        add_lora(model.language_model.causal_lm, train.lora)
    freeze_parts(model, train.freeze)


def freeze_parts(model: nn.Module, names: list[str]) -> None:
    """Freezes modules or single parameters by name.

    A module all of whose parameters are named stays in eval mode, too, exactly as if its config said ``frozen: true``:
    its dropout draws nothing and its running statistics stand still.

    Args:
        model: Keeps its frozen modules in eval mode when ``train()`` is called, see
            :class:`segearth.layers.blocks.Freezable`.
        names: Dotted names from the model down, such as ``language_model`` or ``vision_encoder.stages.0``.

    Raises:
        ConfigError: A name is neither a module's with parameters nor a parameter's.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if not any(_is_within(known, name) for known in parameters):
            tops = sorted({known.split(".")[0] for known in parameters})
            raise ConfigError(f"train.freeze: no module or parameter is called {name!r}{nearest_names(name, tops)}")
    frozen = {known for known in parameters if any(_is_within(known, name) for name in names)}
    for known in frozen:
        parameters[known].requires_grad_(False)
    for name, module in model.named_modules():
        own = [known for known in parameters if _is_within(known, name)]
        if name and own and frozen.issuperset(own):
            set_frozen(module)


def check_frozen(model: SegEarth, lora: bool) -> None:
    """Checks at the start of training that nothing was frozen by mistake.

    Args:
        model: About to be trained; parts that learn are no longer noted as random.
        lora: Whether low-rank adapters were added to its language model.

    Raises:
        ConfigError: A frozen part has random weights, or the adapters are frozen with the model they adapt.
    """
    if lora and model.language_model.frozen:
        raise ConfigError(
            "train.lora adapts a frozen language model; adapters alone keep its own weights fixed: leave out "
            "model.language_model.frozen and train.freeze"
        )
    for name in sorted(model.random_parts):
        learns = [p.requires_grad for p in model.get_submodule(name).parameters()]
        if not any(learns):
            raise ConfigError(
                f"{name} is frozen with random weights, so nothing can be learned through it: start from weights "
                f"(model.pretrained=FOLDER{SOURCES.get(name, '')}; docs/checkpoints.md), or let it learn "
                f"(model.{name}.frozen=false, and no train.freeze of it)"
            )
        if not all(learns):
            fixed, count = learns.count(False), len(learns)
            logger.warning("%s has random weights, and %d of its %d tensors stay as they are", name, fixed, count)
        model.random_parts.discard(name)


SOURCES = {
    "vision_encoder": ", or for kind timm model.vision_encoder.pretrained=true",
    "language_model": ", or model.language_model.pretrained=HUB_ID_OR_FOLDER",
}


def _is_within(name: str, module: str) -> bool:
    """Whether a parameter is the one called ``module`` or inside the module of that name; layers.1 is not layers.10."""
    return name == module or name.startswith(module.rstrip(".") + ".")
