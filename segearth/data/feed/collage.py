"""Makes new images from annotated ones: mosaics of parts of several images, and images with pasted objects.

In many data sets an image shows one class only. A model trained on them can answer without reading the question, since
the one thing in view is always meant. In a mosaic several classes lie side by side, so the question decides. Pasted
objects do the same for questions about size, place and number: a photograph shows its objects in one arrangement only.

The annotation of a new image is exact, so questions about it are verified in the same way as those about a photograph.
Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject, Box
from segearth.errors import DatasetError

LEAST_PART = 0.35  # shortest side of a mosaic's part, as a share of the mosaic's: a narrower part shows too little
LEAST_PIXELS = 16  # a pasted object is enlarged to at least so many pixels, since a smaller one could not be seen
MOST_SIDE = 0.6  # longest side of a pasted object, as a share of the frame's: a larger one would cover everything else
# Pasted objects are scaled by a random factor in this range. Unscaled, objects of a class would be of much the same
# size, and nothing could be asked about the largest.
SCALES = (0.6, 1.6)
MARGIN = 4  # pixels of the surroundings that are cut out with an object, so that its edge can be blended when turned
TRIES = 6  # how many places are tried before an object is left out


@dataclass(frozen=True)
class Part:
    """One part of a mosaic: an annotated image and where it lies.

    Attributes:
        box: ``(x0, y0, x1, y1)`` in pixels of the mosaic, the end exclusive.
        image: ``uint8`` RGB of shape ``(y1 - y0, x1 - x0, 3)``.
        annotated: The annotation of ``image``, of the same size.
    """

    box: Box
    image: np.ndarray
    annotated: AnnotatedImage


@dataclass(frozen=True)
class Cutout:
    """An object cut out of an image, with a margin around it.

    Attributes:
        image: ``uint8`` RGB of shape ``(h, w, 3)``.
        mask: Boolean ``(h, w)``, ``True`` for the object's own pixels.
        category: The object's class.
        attributes: The object's attributes.
    """

    image: np.ndarray
    mask: np.ndarray
    category: str
    attributes: dict[str, str]


def mosaic_boxes(size: int, rng: np.random.Generator) -> list[Box]:
    """Divides a square frame at a random cut into two parts (left and right, or upper and lower) or into four."""
    cut = round(size * rng.uniform(LEAST_PART, 1 - LEAST_PART))
    divisions: list[list[Box]] = [
        [(0, 0, cut, size), (cut, 0, size, size)],
        [(0, 0, size, cut), (0, cut, size, size)],
        [(0, 0, cut, cut), (cut, 0, size, cut), (0, cut, cut, size), (cut, cut, size, size)],
    ]
    return divisions[int(rng.integers(len(divisions)))]


def mosaic(parts: Sequence[Part], size: int) -> tuple[np.ndarray, AnnotatedImage]:
    """Puts images side by side into one.

    If the source of one part annotates a class and the source of another part does not, nothing is known about that
    class in the other part. It can still be asked for: :meth:`AnnotatedImage.known_area` says in which part of the
    frame the answer counts. But how many there are, which is the largest and whether there is none cannot be known, so
    the class is listed as incomplete.

    Args:
        parts: Parts that fill the frame and do not overlap.
        size: Side of the square frame in pixels.

    Returns:
        The image, ``uint8`` RGB ``(size, size, 3)``, and its annotation, in which objects have new ids.

    Raises:
        DatasetError: A part's image or annotation does not have the size of the part's box.
    """
    image = np.zeros((size, size, 3), np.uint8)
    objects: list[AnnotatedObject] = []
    for part in parts:
        x0, y0, x1, y1 = part.box
        if part.image.shape[:2] != (y1 - y0, x1 - x0) or (part.annotated.height, part.annotated.width) != (
            y1 - y0,
            x1 - x0,
        ):
            raise DatasetError(f"a part of a mosaic has {part.image.shape[:2]} pixels, its place is {part.box}")
        image[y0:y1, x0:x1] = part.image
        for item in part.annotated.objects:
            left, top, right, bottom = item.box
            moved = (left + x0, top + y0, right + x0, bottom + y0)
            objects.append(replace(item, id=len(objects) + 1, box=moved))
    annotated_images = [part.annotated for part in parts]
    known = [annotated.vocabulary | annotated.known_absent for annotated in annotated_images]
    everywhere = frozenset.intersection(*known)
    vocabulary = frozenset().union(*(annotated.vocabulary for annotated in annotated_images))
    return image, AnnotatedImage(
        size,
        size,
        objects,
        vocabulary=vocabulary,
        known_absent=everywhere - vocabulary,
        incomplete=frozenset().union(vocabulary - everywhere, *(each.incomplete for each in annotated_images)),
        possible=frozenset().union(*(each.possible for each in annotated_images)),
        unresolved=frozenset().union(*(each.unresolved for each in annotated_images)),
        source="mosaic",
        known_where=tuple((part.box, classes) for part, classes in zip(parts, known, strict=True)),
    )


def cut_out(image: np.ndarray, item: AnnotatedObject) -> Cutout:
    """Cuts an object out of its image.

    Args:
        image: ``uint8`` RGB ``(H, W, 3)``.
        item: An object of the image's annotation.
    """
    x0, y0, x1, y1 = item.box
    left, top = max(0, x0 - MARGIN), max(0, y0 - MARGIN)
    patch = image[top : y1 + MARGIN, left : x1 + MARGIN]
    mask = np.zeros(patch.shape[:2], bool)
    mask[y0 - top : y1 - top, x0 - left : x1 - left] = item.mask
    return Cutout(patch, mask, item.category, dict(item.attributes))


def can_be_pasted(item: AnnotatedObject, annotated: AnnotatedImage) -> bool:
    """Whether an object can be cut out and pasted: it is countable, entirely in view, not tiny and not too large."""
    x0, y0, x1, y1 = item.box
    whole = x0 > 0 and y0 > 0 and x1 < annotated.width and y1 < annotated.height and not item.truncated
    small = max(x1 - x0, y1 - y0) < MOST_SIDE * min(annotated.width, annotated.height)
    return item.is_thing and whole and small and item.area >= LEAST_PIXELS


def paste(
    image: np.ndarray, annotated: AnnotatedImage, cutouts: Sequence[Cutout], scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, AnnotatedImage]:
    """Pastes objects into an image at random angles, mirrored or not, at random sizes, where no other object lies.

    Args:
        image: ``uint8`` RGB ``(H, W, 3)``.
        annotated: The annotation of ``image``.
        cutouts: The objects. They must be from images of the same source: another source may annotate classes that this
            one does not. An object for which no free place is found is left out.
        scale: Pixels of ``image`` for each pixel of a cutout, before sizes are varied.
        rng: Decides places, angles and sizes.

    Returns:
        The new image and its annotation. Stuff (such as grass) loses the pixels that a pasted object covers.
    """
    image, objects = image.copy(), list(annotated.objects)
    taken = np.zeros(image.shape[:2], bool)
    for item in objects:
        if item.is_thing:
            x0, y0, x1, y1 = item.box
            taken[y0:y1, x0:x1] |= item.mask
    number = max((item.id for item in objects), default=0)
    for cutout in cutouts:
        varied = max(scale * rng.uniform(*SCALES), math.sqrt(LEAST_PIXELS / np.count_nonzero(cutout.mask)))
        turned = _turned(cutout, varied, rng)
        if turned is None:
            continue
        patch, opacity = turned
        mask = opacity > 0.5
        box = _free_place(taken, mask, rng)
        if box is None:
            continue
        x0, y0, x1, y1 = box
        taken[y0:y1, x0:x1] |= mask
        beneath = image[y0:y1, x0:x1].astype(np.float32)
        image[y0:y1, x0:x1] = (beneath + (patch - beneath) * opacity[..., None]).astype(np.uint8)
        covered = np.zeros_like(taken)
        covered[y0:y1, x0:x1] = mask
        number += 1
        objects = [left for item in objects if (left := _uncovered(item, covered)) is not None]
        objects.append(AnnotatedObject(number, cutout.category, mask, box, True, cutout.attributes))
    return image, replace(annotated, objects=objects)


def _turned(cutout: Cutout, scale: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """Turns and scales a cutout.

    Returns:
        Colours ``(h, w, 3)`` and opacity ``(h, w)`` in [0, 1], or ``None`` if no pixel of the object is left.
    """
    height, width = cutout.mask.shape
    side = math.ceil(math.hypot(height, width) * scale) + 2
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), scale), np.float64)
    matrix[:, 2] += side / 2 - np.array([width, height]) / 2
    patch: np.ndarray = cutout.image
    mask: np.ndarray = cutout.mask.astype(np.float32)
    if rng.integers(2):
        patch, mask = np.ascontiguousarray(patch[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    if scale < 0.5:  # warpAffine reads four pixels for each new one and would skip the others: average them first
        small = (max(1, round(width * scale * 2)), max(1, round(height * scale * 2)))
        patch, mask = (cv2.resize(array, small, interpolation=cv2.INTER_AREA) for array in (patch, mask))
        matrix[:, :2] *= np.array([width / small[0], height / small[1]])
    colours = cv2.warpAffine(patch, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)
    opacity = cv2.warpAffine(mask, matrix, (side, side))
    rows, columns = (np.flatnonzero((opacity > 0.5).any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return colours[window], opacity[window]


def _free_place(taken: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Box | None:
    height, width = mask.shape
    if max(height / taken.shape[0], width / taken.shape[1]) > MOST_SIDE:
        return None
    for _ in range(TRIES):
        x0, y0 = int(rng.integers(taken.shape[1] - width)), int(rng.integers(taken.shape[0] - height))
        if not (taken[y0 : y0 + height, x0 : x0 + width] & mask).any():
            return x0, y0, x0 + width, y0 + height
    return None


def _uncovered(item: AnnotatedObject, covered: np.ndarray) -> AnnotatedObject | None:
    """Returns what is left of an object outside of ``covered``, or ``None`` if nothing is.

    Only stuff loses pixels: objects are pasted where no countable object lies.
    """
    if item.is_thing:
        return item
    x0, y0, x1, y1 = item.box
    left = item.mask & ~covered[y0:y1, x0:x1]
    return replace(item, mask=left) if left.any() else None
