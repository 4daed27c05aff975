"""COCO segmentations (polygons and run lengths) as boolean masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from segearth.errors import DatasetError


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Decodes any form of a COCO ``segmentation`` field; its parts are united, so overlaps stay ``True``.

    Args:
        segmentation: ``None`` or ``[]`` (nothing); one polygon ``[x0, y0, x1, y1, …]`` in pixels or a list of them; one
            run-length dict ``{"size": [h, w], "counts": …}`` (compressed string or list of runs) or a list of them.
        height: Rows of the canvas for polygons.
        width: Columns of the canvas for polygons.

    Returns:
        Boolean mask ``(H, W)``: ``(height, width)`` for polygons, the stated ``size`` for run lengths, so that a caller
        can compare it with the image's.

    Raises:
        DatasetError: The field has none of these forms or contradicts itself.
    """
    if isinstance(segmentation, Mapping):
        return _decode_runs(segmentation)
    if segmentation is not None and not _is_list(segmentation):
        raise DatasetError(f"segmentation is {type(segmentation).__name__}; expected polygons or run lengths")
    parts = list(segmentation or [])
    if not parts:
        return np.zeros((height, width), bool)
    if all(isinstance(part, Real) for part in parts):
        return _decode_polygons([parts], height, width)
    if all(isinstance(part, Mapping) for part in parts):
        masks = [_decode_runs(part) for part in parts]
        shapes = sorted({mask.shape for mask in masks})
        if len(shapes) > 1:
            raise DatasetError(f"run lengths of different sizes {shapes} in one segmentation")
        return np.logical_or.reduce(masks)
    if all(_is_list(part) for part in parts):
        return _decode_polygons(parts, height, width)
    raise DatasetError("segmentation mixes polygons and run lengths")


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Returns a boolean ``(H, W)`` mask as a compressed COCO run-length dict that JSON can hold."""
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _decode_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    from pycocotools import mask as coco

    for polygon in polygons:
        numbers = all(isinstance(value, Real) and math.isfinite(value) for value in polygon)
        if len(polygon) < 6 or len(polygon) % 2 or not numbers:
            raise DatasetError(f"a polygon needs three or more x, y pairs of finite numbers; got {list(polygon)[:8]}")
    runs = coco.frPyObjects([[float(value) for value in polygon] for polygon in polygons], height, width)
    return coco.decode(coco.merge(runs)).astype(bool)


def _decode_runs(runs: Mapping[str, Any]) -> np.ndarray:
    from pycocotools import mask as coco

    try:
        height, width = (int(side) for side in runs["size"])
        counts = runs["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError('run lengths need "size": [height, width] and "counts"') from error
    if _is_list(counts) and all(isinstance(count, int) and count >= 0 for count in counts):
        if sum(counts) != height * width:
            raise DatasetError(f"run lengths add up to {sum(counts)}, not to {height * width} pixels")
        values = np.arange(len(counts)) % 2 == 1
        return np.repeat(values, counts).reshape(width, height).T  # COCO runs go down the columns
    if not isinstance(counts, (str, bytes)):
        raise DatasetError('"counts" must be a string or a list of integers from 0 up')
    raw = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    try:
        return coco.decode({"size": [height, width], "counts": raw}).astype(bool)
    except ValueError as error:
        raise DatasetError(f"compressed run lengths do not fit {height}x{width} pixels ({error})") from error
