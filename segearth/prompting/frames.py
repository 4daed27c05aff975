"""The coordinate frames in which models answer, and the one conversion between them and the pixels of an image.

Some models write pixels of the image as it was resized for them (Qwen2.5-VL), some thousandths of its sides (Qwen2-VL,
Qwen3-VL), others shares from 0 to 1. In each of them x runs from the left edge of the image to its right edge and y
from its upper edge to its lower one, so a frame is known by how far it is across: a point at half of the frame's width
lies at half of the image's width. No half pixel is added or taken.

A frame may have another aspect than the image. Points and upright boxes are then stretched as the image is. A rotated
box becomes a slanted four-sided figure (a parallelogram), which no rotated box can say. The rule here: the side called
width is stretched as the image is, in length and direction, and the height is chosen so that the area grows as areas
in the image do. This is the parallelogram sheared back to right angles over the same base. It is exact where the box
stands upright or both axes are stretched alike, and it is undone exactly by the way back, which stretching each side by
itself is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segearth.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from segearth.prompting.answers import Instance

MOST_ELONGATED = 200  # longer side over shorter one; beyond it Qwen's image processor refuses an image


def smart_resize(
    height: int, width: int, factor: int = 28, min_pixels: int = 56 * 56, max_pixels: int = 16384 * 28 * 28
) -> tuple[int, int]:
    """Returns the size to which the image processor of Qwen2-VL, Qwen2.5-VL and Qwen3-VL resizes an image.

    Both sides become the nearest multiple of ``factor``; halfway between two it is the even one, as Python rounds. If
    that is more than ``max_pixels``, both sides are first shrunk alike to that area and then rounded down; if it is
    less than ``min_pixels``, they are grown to that area and rounded up. The rule is ``smart_resize`` of
    https://github.com/huggingface/transformers/blob/main/src/transformers/models/qwen2_vl/image_processing_qwen2_vl.py,
    the defaults are those of https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/blob/main/preprocessor_config.json.

    Args:
        height: Of the image in pixels.
        width: Of the image in pixels.
        factor: Pixels of a patch times the patches that are merged to one token: 28, and 32 for Qwen3-VL.
        min_pixels: Smallest area.
        max_pixels: Largest area.

    Returns:
        Height and width in pixels.

    Raises:
        ImageError: A side is not positive, or one is more than 200 times as long as the other.
    """
    _check_size(height, width)
    if max(height, width) > MOST_ELONGATED * min(height, width):
        raise ImageError(
            f"an image of {width}x{height} px is more than {MOST_ELONGATED} times as long as it is wide, which the "
            "model's image processor refuses; cut it into tiles"
        )
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


@dataclass(frozen=True, slots=True)
class Frame:
    """What the coordinates of an answer count.

    Made by :meth:`resized` or :meth:`smart`, or one of ``IMAGE_PIXELS``, ``THOUSANDTHS`` and ``UNIT`` of this module.

    Attributes:
        words: How the model is told of it, as in "Coordinates are …".
        size: Height and width of the frame where they are the same for every image; ``None``: they follow the image.
        factor: Of :func:`smart_resize`; 0: the frame is not made by that rule.
        min_pixels: Of :func:`smart_resize`.
        max_pixels: Of :func:`smart_resize`.
        in_pixels: Whether the model counts pixels of what it sees. It can do so only if it sees the image at the
            frame's size, so the image must be resized to :meth:`size_for` before it is shown.
        decimals: How many decimals an answer has.
    """

    words: str
    size: tuple[int, int] | None = None
    factor: int = 0
    min_pixels: int = 0
    max_pixels: int = 0
    in_pixels: bool = True
    decimals: int = 0

    def __post_init__(self) -> None:
        if self.size is not None and not min(self.size) > 0:
            raise ConfigError(f"a frame has the size {self.size}; give a height and a width above 0")
        if self.factor < 0 or (self.factor and not 0 < self.min_pixels <= self.max_pixels):
            raise ConfigError(
                f"a frame has factor {self.factor}, min_pixels {self.min_pixels}, max_pixels {self.max_pixels}; "
                "give a factor above 0 and 0 < min_pixels <= max_pixels"
            )

    @classmethod
    def resized(cls, height: int, width: int) -> Frame:
        """Returns the frame of pixels of the image after it was resized to ``height`` x ``width``, whatever it was."""
        return cls(f"pixels of the image, which is {width} wide and {height} high", (height, width))

    @classmethod
    def smart(cls, factor: int = 28, min_pixels: int = 56 * 56, max_pixels: int = 16384 * 28 * 28) -> Frame:
        """Returns the frame of pixels of the image after :func:`smart_resize` with the same arguments."""
        return cls("pixels of the image", factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Returns the frame's height and width for an image.

        Args:
            height: Of the image in pixels.
            width: Of the image in pixels.

        Raises:
            ImageError: A side is not positive, or the image is more elongated than :func:`smart_resize` takes.
        """
        _check_size(height, width)
        if self.size is not None:
            return self.size
        if self.factor:
            return smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)
        return height, width

    def to_pixels(self, instance: Instance, height: int, width: int) -> Instance:
        """Brings what was answered in this frame to the pixels of an image. Nothing is rounded or cut.

        Args:
            instance: In this frame.
            height: Of the image in pixels.
            width: Of the image in pixels.

        Raises:
            ImageError: As for :meth:`size_for`.
        """
        own_height, own_width = self.size_for(height, width)
        return _stretched(instance, (own_width, own_height), (width, height))

    def from_pixels(self, instance: Instance, height: int, width: int) -> Instance:
        """Brings what is known in pixels of an image into this frame; undoes :meth:`to_pixels`.

        Args:
            instance: In pixels of the image.
            height: Of the image in pixels.
            width: Of the image in pixels.

        Raises:
            ImageError: As for :meth:`size_for`.
        """
        own_height, own_width = self.size_for(height, width)
        return _stretched(instance, (width, height), (own_width, own_height))


IMAGE_PIXELS = Frame("pixels of the image")
THOUSANDTHS = Frame("thousandths of the image's width and height, from 0 to 1000", (1000, 1000), in_pixels=False)
UNIT = Frame("shares of the image's width and height, from 0 to 1", (1, 1), in_pixels=False, decimals=4)


def clip_to_image(instance: Instance, height: int, width: int) -> Instance | None:
    """Cuts what lies outside of an image. A step of its own: a reward may want to know how far outside a box lies.

    A box is cut at the borders, and is left out where no area remains. A point outside is left out: moved to the border
    it would point at something else. A rotated box is left out if it lies wholly outside, and else kept as it is.

    Args:
        instance: In pixels of the image.
        height: Of the image in pixels.
        width: Of the image in pixels.

    Returns:
        What remains; ``None`` if nothing does.
    """
    box, rotated = instance.box, instance.rotated_box
    if box is not None:
        x0, y0, x1, y1 = (
            min(max(value, 0.0), limit) for value, limit in zip(box, (width, height, width, height), strict=True)
        )
        box = (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
    if rotated is not None:
        x, y, w, h, degrees = rotated
        cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
        reach_x, reach_y = (w * cos + h * sin) / 2, (w * sin + h * cos) / 2
        if not (-reach_x < x < width + reach_x and -reach_y < y < height + reach_y):
            rotated = None
    inside = [0 <= x <= width and 0 <= y <= height for x, y in instance.points]
    points = tuple(point for point, is_in in zip(instance.points, inside, strict=True) if is_in)
    labels = tuple(label for label, is_in in zip(instance.point_labels, inside, strict=True) if is_in)
    if box is None and rotated is None and not points:
        return None
    return replace(instance, box=box, rotated_box=rotated, points=points, point_labels=labels)


def _stretched(instance: Instance, old: tuple[float, float], new: tuple[float, float]) -> Instance:
    """Stretches an instance from a frame of width and height ``old`` to one of ``new``."""

    def x_of(value: float) -> float:
        return value * new[0] / old[0]

    def y_of(value: float) -> float:
        return value * new[1] / old[1]

    box, rotated = instance.box, instance.rotated_box
    if box is not None:
        box = (x_of(box[0]), y_of(box[1]), x_of(box[2]), y_of(box[3]))
    if rotated is not None:
        x, y, w, h, degrees = rotated
        scale_x, scale_y = new[0] / old[0], new[1] / old[1]
        length, turn = scale_x, 0.0
        if scale_x != scale_y:  # else sine and cosine would bring in rounding errors for nothing
            cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            length = math.hypot(scale_x * cos, scale_y * sin)
            # The angle between the width's direction before and after. It is below 90 degrees; by adding it, an angle
            # given as 270 degrees does not come back as -90.
            turn = math.degrees(
                math.atan2((scale_y - scale_x) * sin * cos, scale_x * cos * cos + scale_y * sin * sin)
            )
        rotated = (x_of(x), y_of(y), w * length, h * scale_x * scale_y / length, degrees + turn)
    points = tuple((x_of(x), y_of(y)) for x, y in instance.points)
    return replace(instance, box=box, rotated_box=rotated, points=points)


def _check_size(height: int, width: int) -> None:
    if height <= 0 or width <= 0:
        raise ImageError(f"an image has {width}x{height} px; both sides must be above 0")
