"""Lets timm and transformers import beside a torchvision whose compiled library does not fit the installed torch.

A CPU build of torch beside a CUDA build of torchvision is common, because some package indexes offer no other pair.
torchvision's C++ library then cannot be loaded, and ``import torchvision`` fails when it registers shapes for operators
that this library should have defined. Defining the schemas of two operators is all that the import needs. This package
does not use the operators themselves.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

logger = logging.getLogger(__name__)
_kept: list[object] = []  # keeps the torch Library alive: when it is garbage collected, its definitions are undone


def mend_torchvision() -> None:
    """Defines torchvision's missing operator schemas; does nothing where torchvision works or is absent."""
    if _kept:
        return
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    for binary in Path(spec.submodule_search_locations[0]).glob("_C*.so"):
        try:
            torch.ops.load_library(str(binary))
        except OSError:
            break
    else:
        _kept.append(None)
        return
    logger.debug("torchvision's compiled library does not fit torch %s: defining its schemas", torch.__version__)
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
