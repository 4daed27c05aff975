"""Takes an image in whatever form a user has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segearth.errors import ImageError
from segearth.utils.files import read_image, rgb_of

MIN_SIDE = 8


def as_rgb(image: Any) -> np.ndarray:
    """Returns a file, array or PIL image as ``uint8`` RGB ``(H, W, 3)``.

    Raises:
        ImageError: It is missing, damaged, of more than 8 bits a sample, of another type or shape, or smaller than 8 px
            a side.
    """
    if isinstance(image, (str, Path)):
        array = read_image(image)
    elif isinstance(image, np.ndarray):
        array = image
    elif hasattr(image, "convert"):
        array = rgb_of(image, getattr(image, "filename", "") or "PIL image")
    else:
        raise ImageError(f"cannot read an image from {type(image).__name__}; give a path, an array or a PIL image")
    if array.dtype != np.uint8:
        raise ImageError(f"image array is {array.dtype}; scale it to 0-255 and convert it to uint8")
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise ImageError(f"image array has shape {array.shape}; expected (H, W), (H, W, 3) or (H, W, 4)")
    if min(array.shape[:2]) < MIN_SIDE:
        raise ImageError(f"image is {array.shape[1]}x{array.shape[0]} px; at least {MIN_SIDE} px a side are needed")
    return np.ascontiguousarray(array[..., :3])
