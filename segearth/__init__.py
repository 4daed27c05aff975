"""segearth: an overhead image and a question become a mask."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segearth.inference.predictor import Predictor
    from segearth.models.segearth import SegEarth
    from segearth.structures import Segmentation
    from segearth.zoo.cards import list_models
    from segearth.zoo.opening import load

__version__ = "0.1.0"
__all__ = ["Predictor", "SegEarth", "Segmentation", "__version__", "list_models", "load"]

_HOMES = {
    "Predictor": "segearth.inference.predictor",
    "SegEarth": "segearth.models.segearth",
    "Segmentation": "segearth.structures",
    "list_models": "segearth.zoo.cards",
    "load": "segearth.zoo.opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segearth' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
