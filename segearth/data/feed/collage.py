"""New images made of old ones: parts of several images side by side, and objects of one image put into another.

A data set with one class an image teaches that the question need not be read: whatever is asked, the one thing in view
is meant. In a mosaic the same question is right about one part and wrong about its neighbour. Pasted objects do the
same for size, place and number, which a photograph shows in one arrangement only. Both give an exact
:class:`AnnotatedImage`, so that every question built of them is verified as any other.

No torch here: loaders run it in worker processes, once per image and step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject, Box
from segearth.errors import DatasetError

LEAST_PART = 0.35  # of a mosaic's side: a narrower part shows too little to be recognised
LEAST_PIXELS = 16  # of a pasted object: a smaller one is enlarged to be seen
MOST_SIDE = 0.6  # of the frame's: a larger object would cover what else there is to ask about
SCALES = (0.6, 1.6)  # of a pasted object against its new surroundings: sizes are compared only if they differ
MARGIN = 4  # pixels around an object that are turned with it, so that its edge is not the edge of the picture
TRIES = 6  # places tried before an object is left out


@dataclass(frozen=True)
class Part:
    """A part of a mosaic: where it lies, and an image with its annotation that has exactly the size of that place.

    Attributes:
        box: ``(x0, y0, x1, y1)`` in pixels of the mosaic, the end exclusive.
        image: ``uint8`` RGB of shape ``(y1 - y0, x1 - x0, 3)``.
        annotated: What is known of it.
    """

    box: Box
    image: np.ndarray
    annotated: AnnotatedImage


@dataclass(frozen=True)
class Cutout:
    """An object cut out of an image, with a margin around it.

    Attributes:
        image: ``uint8`` RGB of shape ``(h, w, 3)``.
        mask: Boolean ``(h, w)``, the object's own pixels.
        category: Its class.
        attributes: Its attributes.
    """

    image: np.ndarray
    mask: np.ndarray
    category: str
    attributes: dict[str, str]


def mosaic_boxes(size: int, rng: np.random.Generator) -> list[Box]:
    """Divides a square frame into two parts side by side or one above the other, or into four; the cut is drawn."""
    cut = round(size * rng.uniform(LEAST_PART, 1 - LEAST_PART))
    layouts: list[list[Box]] = [
        [(0, 0, cut, size), (cut, 0, size, size)],
        [(0, 0, size, cut), (0, cut, size, size)],
        [(0, 0, cut, cut), (cut, 0, size, cut), (0, cut, cut, size), (cut, cut, size, size)],
    ]
    return layouts[int(rng.integers(len(layouts)))]


def mosaic(parts: Sequence[Part], size: int) -> tuple[np.ndarray, AnnotatedImage]:
    """Lays images side by side.

    A class that one part's source annotates and another's does not is known in the first part alone: it can be asked
    for, and :meth:`AnnotatedImage.known_area` says where the answer counts; but its number, its largest object or its
    absence cannot be known, so it is listed as incomplete.

    Args:
        parts: They fill the frame and do not overlap.
        size: Side of the square frame in pixels.

    Returns:
        The image, ``uint8`` RGB ``(size, size, 3)``, and its annotation; ids are given anew.

    Raises:
        DatasetError: A part's image or annotation has another size than its place.
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
            a, b, c, d = item.box
            objects.append(replace(item, id=len(objects) + 1, box=(a + x0, b + y0, c + x0, d + y0)))
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
    """Whether an object is whole, countable, and neither tiny nor most of its image."""
    x0, y0, x1, y1 = item.box
    whole = x0 > 0 and y0 > 0 and x1 < annotated.width and y1 < annotated.height and not item.truncated
    small = max(x1 - x0, y1 - y0) < MOST_SIDE * min(annotated.width, annotated.height)
    return item.is_thing and whole and small and item.area >= LEAST_PIXELS


def paste(
    image: np.ndarray, annotated: AnnotatedImage, cutouts: Sequence[Cutout], scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, AnnotatedImage]:
    """Puts objects into an image: turned by any angle, mirrored, of other sizes, where no other object lies.

    They come from images of the same source, so that what the source annotates stays complete.

    Args:
        image: ``uint8`` RGB ``(H, W, 3)``.
        annotated: Its annotation.
        cutouts: What to put in; one for which no free place is found is left out.
        scale: Pixels here for each pixel there, before sizes are varied.
        rng: Decides places, angles and sizes.

    Returns:
        The new image and its annotation; stuff beneath a pasted object is no longer part of it.
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
    """Turns and scales a cutout: colours ``(h, w, 3)``, opacity ``(h, w)`` in [0, 1]; ``None`` if nothing is left."""
    height, width = cutout.mask.shape
    side = math.ceil(math.hypot(height, width) * scale) + 2
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), scale), np.float64)
    matrix[:, 2] += side / 2 - np.array([width, height]) / 2
    patch: np.ndarray = cutout.image
    mask: np.ndarray = cutout.mask.astype(np.float32)
    if rng.integers(2):
        patch, mask = np.ascontiguousarray(patch[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    if scale < 0.5:  # a warp reads four pixels: what it would skip is averaged first
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
    """What is left of an object outside ``covered``; things are never covered, stuff is cut."""
    if item.is_thing:
        return item
    x0, y0, x1, y1 = item.box
    left = item.mask & ~covered[y0:y1, x0:x1]
    return replace(item, mask=left) if left.any() else None
