"""COCO segmentations (polygons and run lengths) as boolean masks.

pycocotools does not check its input. It follows a polygon's outline pixel by pixel, however far outside of the image it
leads, and where run lengths end too early it returns whatever was in memory. So everything is checked, and polygons are
clipped, before pycocotools gets it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from segearth.errors import DatasetError

MAX_PIXELS = 1 << 28  # Pillow opens no image as large as this, so a larger size in a file is a mistake or an attack
# Longest outline of one segmentation's polygons, in pixels. pycocotools allocates about 100 bytes for each of them, so
# that this many take less than a gigabyte.
MAX_OUTLINE = 1 << 23


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Decodes any form of a COCO ``segmentation`` field to one mask, the union of its parts.

    Args:
        segmentation: ``None`` or ``[]`` (nothing); one polygon ``[x0, y0, x1, y1, …]`` in pixels or a list of them; one
            run-length dict ``{"size": [h, w], "counts": …}`` (compressed string or list of runs) or a list of them.
            Parts of a polygon outside of the image are left out.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Boolean mask. For polygons its shape is ``(height, width)``. For run lengths it is the ``size`` that they state,
        which the caller should compare with the image's.

    Raises:
        DatasetError: The field has none of these forms, contradicts itself, or is absurdly large.
    """
    from pycocotools import mask as coco

    runs = _as_runs(segmentation, height, width)
    return np.zeros((height, width), bool) if runs is None else coco.decode(runs).astype(bool)


def decode_cropped(segmentation: Any, height: int, width: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Decodes a ``segmentation`` field and crops the mask to its bounding box, which saves memory for small objects.

    Args:
        segmentation: As for :func:`decode_segmentation`.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The boolean bitmap ``(y1 - y0, x1 - x0)``, and its bounding box ``(x0, y0, x1, y1)`` in pixels, the end
        exclusive. For an empty mask the bitmap has no pixels and the box is all zeros.

    Raises:
        DatasetError: As :func:`decode_segmentation`, or the run lengths are those of an image of another size.
    """
    from pycocotools import mask as coco

    runs = _as_runs(segmentation, height, width)
    if runs is None:
        return np.zeros((0, 0), bool), (0, 0, 0, 0)
    if list(runs["size"]) != [height, width]:
        raise DatasetError(f"its size is {list(runs['size'])}, the image's {[height, width]} (height, width)")
    x0, y0, w, h = (int(side) for side in coco.toBbox(runs))
    bitmap = coco.decode(runs)[y0 : y0 + h, x0 : x0 + w]
    return np.ascontiguousarray(bitmap, dtype=np.uint8).view(bool), (x0, y0, x0 + w, y0 + h)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Returns a boolean ``(H, W)`` mask as a compressed COCO run-length dict that JSON can hold."""
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def _as_runs(segmentation: Any, height: int, width: int) -> Any:
    """Checks any form of the field and returns it as pycocotools' run lengths, or ``None`` if no pixel is set."""
    _check_size(height, width)
    if isinstance(segmentation, Mapping):
        return _checked_runs(segmentation)
    if segmentation is not None and not _is_list(segmentation):
        raise DatasetError(f"segmentation is {type(segmentation).__name__}; expected polygons or run lengths")
    parts = list(segmentation or [])
    if not parts:
        return None
    if all(isinstance(part, Real) for part in parts):
        return _polygon_runs([parts], height, width)
    if all(isinstance(part, Mapping) for part in parts):
        from pycocotools import mask as coco

        runs = [_checked_runs(part) for part in parts]
        sizes = sorted({tuple(one["size"]) for one in runs})
        if len(sizes) > 1:
            raise DatasetError(f"run lengths of different sizes {sizes} in one segmentation")
        return coco.merge(runs)
    if all(_is_list(part) for part in parts):
        return _polygon_runs(parts, height, width)
    raise DatasetError("segmentation mixes polygons and run lengths")


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that is too large for a float
        return False


def _check_size(height: object, width: object) -> None:
    if isinstance(height, int) and isinstance(width, int) and 0 < height * width <= MAX_PIXELS and height > 0:
        return
    shown = f"{height!r}x{width!r}"[:80]
    raise DatasetError(f"a size of {shown} pixels (height, width); expected two whole numbers, {MAX_PIXELS} in all")


def _polygon_runs(polygons: Sequence[Sequence[float]], height: int, width: int) -> Any:
    from pycocotools import mask as coco

    cut, outline = [], 0.0
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not all(_is_number(value) for value in polygon):
            shown = str(list(polygon)[:8])[:120]
            raise DatasetError(f"a polygon needs three or more x, y pairs of finite numbers; got {shown}")
        points = _clipped(np.asarray(polygon, np.float64).reshape(-1, 2), height, width)
        outline += np.abs(points - np.roll(points, 1, axis=0)).max(axis=1, initial=0).sum()
        if outline > MAX_OUTLINE:
            raise DatasetError(f"polygons whose outline is longer than {MAX_OUTLINE} pixels; give run lengths instead")
        if len(points) >= 3:
            cut.append(points.ravel().tolist())
    return coco.merge(coco.frPyObjects(cut, height, width)) if cut else None


def _clipped(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Clips a polygon to the image and a margin around it (Sutherland and Hodgman's algorithm, one side at a time).

    The margin is as wide as the image. Without it, a polygon that leaves the image a little would be clipped as well,
    and clipping can move the mask's border by a pixel: pycocotools samples each edge in steps from its first point, and
    a clipped edge begins at another point.

    Args:
        points: ``(N, 2)`` finite x, y in pixels.
        height: Height of the image.
        width: Width of the image.

    Returns:
        ``(M, 2)``. Inside the image the polygon covers the same area as before, by the even-odd rule.
    """
    margin = max(height, width)
    limits = [(0, 1, -margin), (0, -1, -width - margin), (1, 1, -margin), (1, -1, -height - margin)]
    for axis, sign, bound in limits:  # points with sign * coordinate >= bound are kept
        inside = sign * points[:, axis] >= bound
        if inside.all():
            continue
        ends, end_inside = np.roll(points, -1, axis=0), np.roll(inside, -1)
        crosses = inside != end_inside
        # Halved, because the difference of two large coordinates of opposite sign would overflow to infinity.
        here, there = sign * points[crosses, axis] / 2, sign * ends[crosses, axis] / 2
        part = ((bound / 2 - here) / (there - here))[:, None]
        border = ends.copy()
        border[crosses] = points[crosses] * (1 - part) + ends[crosses] * part
        border[:, axis] = sign * bound
        points = np.stack([border, ends], axis=1)[np.stack([crosses, end_inside], axis=1)]
    return points


def _checked_runs(runs: Mapping[str, Any]) -> Any:
    """Checks that the runs of a run-length dict add up to its size, and returns it in pycocotools' form."""
    from pycocotools import mask as coco

    size: Any = runs.get("size")
    counts: Any = runs.get("counts")
    if not (_is_list(size) and len(size) == 2 and all(isinstance(side, int) for side in size)) or counts is None:
        raise DatasetError('run lengths need "size": [height, width] and "counts"')
    height, width = size
    _check_size(height, width)
    if isinstance(counts, (str, bytes)):
        try:
            raw = counts.encode("ascii") if isinstance(counts, str) else counts
            total = _total_of_compressed(raw, height * width)
        except ValueError as error:
            raise DatasetError(f"compressed run lengths do not fit {height}x{width} pixels ({error})") from error
        if total != height * width:
            raise DatasetError(f"compressed run lengths do not fit {height}x{width} pixels (they add up to {total})")
        return {"size": [height, width], "counts": raw}
    if not (_is_list(counts) and all(isinstance(count, int) and count >= 0 for count in counts)):
        raise DatasetError('"counts" must be a string or a list of integers from 0 up')
    if sum(counts) != height * width:
        raise DatasetError(f"run lengths add up to {sum(counts)}, not to {height * width} pixels")
    return coco.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)


def _total_of_compressed(raw: bytes, pixels: int) -> int:
    """Adds up compressed run lengths.

    COCO writes each number as a series of characters, which hold six bits each, counted from ``"0"``. Five bits are
    digits, the lowest ones first; the sixth says whether another character follows. In the last character the fifth bit
    is the sign. From the fourth run on, the number is not the run itself but its difference to the run before the last.

    Raises:
        ValueError: The text is not of this form, or a run is negative or longer than ``pixels``.
    """
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return 0
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("it has characters that no run length has")
    last = np.flatnonzero(codes & 32 == 0)
    if not last.size or last[-1] != codes.size - 1:
        raise ValueError("the last number is cut short")
    first = np.concatenate(([0], last[:-1] + 1))
    digits = last - first + 1
    if digits.max() > 7:  # 35 bits are more than any run of an image needs, and fit an int64 without overflow
        raise ValueError("a number is too long")
    digit = np.arange(codes.size) - np.repeat(first, digits)
    numbers = np.add.reduceat((codes & 31) << (5 * digit), first)
    numbers -= np.where(codes[last] & 16, np.int64(1) << (5 * digits), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    if numbers.min() < 0 or numbers.max() > pixels:
        raise ValueError(f"a run of {int(numbers.min() if numbers.min() < 0 else numbers.max())} pixels")
    return int(numbers.sum())
