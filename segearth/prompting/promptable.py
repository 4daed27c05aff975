"""What turns boxes and points into masks: the second half of a prompted segmenter.

A :class:`PromptableSegmenter` takes an image, encodes it once, and answers prompts about it as often as it is asked. It
knows no words; :class:`segearth.segmenter.Segmenter` is the contract of what answers questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from segearth.errors import SegEarthError
from segearth.metrics.boxes import box_area, box_iou
from segearth.preprocessing.images import as_rgb
from segearth.prompting.answers import Instance
from segearth.segmenter import ImageInput
from segearth.structures import Region, Regions

T = TypeVar("T")
SAME_THING = 0.5  # of two boxes that overlap by more than this IoU, Think2Seg-RS drops the smaller


@dataclass(frozen=True, slots=True)
class PromptedMask:
    """The mask of one prompt.

    Attributes:
        mask: Boolean, of the image's ``(H, W)``; may be empty.
        score: IoU to expect, in [0, 1].
    """

    mask: np.ndarray
    score: float


@runtime_checkable
class PromptableSegmenter(Protocol):
    """Holds an image and makes a mask of each prompt.

    Attributes:
        encodings: How many images were encoded so far. Many answers about one image must not make it grow.
    """

    encodings: int

    def set_image(self, image: ImageInput) -> None:
        """Takes the image that the following prompts are about. The same pixels are not encoded a second time.

        Args:
            image: A file, an array or a PIL image, as for :func:`segearth.preprocessing.images.as_rgb`.

        Raises:
            ImageError: It cannot be used; then no image is set.
        """

    def masks(self, instances: Sequence[Instance]) -> list[PromptedMask]:
        """Makes a mask of each instance; that of one does not depend on the others.

        Args:
            instances: Any number, in pixels of the image.

        Returns:
            One for each, in their order.

        Raises:
            SegEarthError: No image is set.
        """


class BoxFill:
    """Takes each box, level or rotated, for the thing itself: for tests, and for rewards that cost nothing.

    Its mask is what a perfect box is worth. A pixel belongs to it if its centre lies in the box. Points alone give an
    empty mask.
    """

    def __init__(self) -> None:
        self.encodings = 0
        self._size: tuple[int, int] | None = None

    def set_image(self, image: ImageInput) -> None:
        """See :meth:`PromptableSegmenter.set_image`; of the image only the size is kept."""
        self._size = None
        height, width = as_rgb(image).shape[:2]
        self._size = height, width

    def masks(self, instances: Sequence[Instance]) -> list[PromptedMask]:
        """See :meth:`PromptableSegmenter.masks`; the score is 1, and 0 where the mask is empty."""
        size = image_that_is_set(self._size)
        filled = [filled_box(instance, *size) for instance in instances]
        return [PromptedMask(mask, float(mask.any())) for mask in filled]


def filled_box(instance: Instance, height: int, width: int) -> np.ndarray:
    """Returns the pixels whose centres lie in an instance's box, boolean ``(height, width)``; none without a box."""
    mask = np.zeros((height, width), bool)
    if instance.rotated_box is not None:
        x, y, w, h, degrees = instance.rotated_box
        turn = np.radians(degrees)
        dx, dy = np.arange(width) + 0.5 - x, (np.arange(height) + 0.5 - y)[:, None]
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        return (abs(along) <= w / 2) & (abs(across) <= h / 2)
    if instance.box is not None:
        # The centre of pixel i is at i + 0.5, so the first one inside of x0 is ceil(x0 - 0.5).
        limits = [width, height, width, height]
        ends = [int(np.ceil(np.clip(value, 0, most) - 0.5)) for value, most in zip(instance.box, limits, strict=True)]
        x0, y0, x1, y1 = ends
        mask[y0:y1, x0:x1] = True
    return mask


def level_box(instance: Instance) -> tuple[float, float, float, float] | None:
    """Returns an instance's box ``(x0, y0, x1, y1)``; of a rotated one the smallest level box around it."""
    if instance.box is not None or instance.rotated_box is None:
        return instance.box
    x, y, w, h, degrees = instance.rotated_box
    cos, sin = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    half_w, half_h = float(w * cos + h * sin) / 2, float(w * sin + h * cos) / 2
    return x - half_w, y - half_h, x + half_w, y + half_h


def without_doubles(instances: Sequence[Instance], most: float = SAME_THING) -> list[Instance]:
    """Leaves out boxes that mean the same thing as a larger one, as Think2Seg-RS does (arXiv 2512.19302).

    Args:
        instances: Those without a box stay.
        most: The IoU from which on, exclusively, two boxes mean the same thing.

    Returns:
        The others, in their order. Of equal boxes the first stays.
    """
    if len(instances) < 2:
        return list(instances)
    boxes = [level_box(instance) for instance in instances]
    boxed = [i for i, box in enumerate(boxes) if box is not None]
    values = np.array([boxes[i] for i in boxed], float).reshape(-1, 4)
    overlap = box_iou(values, values) > most
    dropped = np.zeros(len(boxed), bool)
    for i in np.argsort(-box_area(values), kind="stable"):  # the largest first: whom it drops drops nobody else
        if not dropped[i]:
            dropped |= overlap[i] & (np.arange(len(boxed)) != i)
    gone = {boxed[i] for i in np.flatnonzero(dropped)}
    return [instance for i, instance in enumerate(instances) if i not in gone]


def joined(found: Sequence[PromptedMask], height: int, width: int) -> Regions:
    """Joins masks by OR.

    Args:
        found: From :meth:`PromptableSegmenter.masks`; empty masks are left out.
        height: Of the image.
        width: Of the image.

    Returns:
        Boolean ``mask`` of the image's size, and a region with its score for each mask that is not empty.
    """
    mask = np.zeros((height, width), bool)
    for one in found:
        mask |= one.mask
    return Regions(mask, tuple(Region.cut_from(one.mask, one.score) for one in found if one.mask.any()))


def image_that_is_set(held: T | None) -> T:
    """Returns what is held of the image.

    Raises:
        SegEarthError: Nothing is.
    """
    if held is None:
        raise SegEarthError("no image is set (a set_image that fails leaves none); call set_image first")
    return held
