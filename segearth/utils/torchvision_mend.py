"""Lets timm and transformers import beside a torchvision whose compiled library does not fit the installed torch.

A CPU build of torch with the CUDA build of torchvision is common (package indexes offer no other pair). torchvision's
C++ library then cannot load, and ``import torchvision`` stops at an operator it wants to describe but that was never
defined. Defining
the two schemas is all that import needs; nothing here uses the operators.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

logger = logging.getLogger(__name__)
_kept: list[object] = []  # a torch Library is undone when it is collected


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
