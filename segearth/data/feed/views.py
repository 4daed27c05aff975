"""Augmented views of annotated images (crops, turns, mosaics, pasted objects), each with new questions about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from segearth.config import AugmentConfig
from segearth.data.feed.collage import Part, can_be_pasted, cut_out, mosaic, mosaic_boxes, paste
from segearth.data.questions.annotation import AnnotatedDataset, AnnotatedImage, Box, cut_to, transform_image
from segearth.data.questions.builder import BuilderSettings, Expression, ExpressionBuilder
from segearth.preprocessing.resampling import raised
from segearth.structures import Question, Regions

TRIES = 5  # how many views are drawn to find one that something can be asked about
DONORS = 2  # objects to paste are taken from so many images; more would cost time, since each must be decoded


@dataclass(frozen=True)
class View:
    """An augmented image with its annotation.

    Attributes:
        image: ``uint8`` RGB ``(h, w, 3)``.
        annotated: The annotation of ``image``. It decides what can be asked. Its masks are sampled at pixel centres,
            which is quick, but can leave gaps in a thin road, so they are not used as training targets.
        covered: Function from ids of objects to the share of each pixel that they cover together, float32 ``(h, w)`` in
            [0, 1]. It averages the original masks, and training targets are made of it.
    """

    image: np.ndarray
    annotated: AnnotatedImage
    covered: Callable[[Iterable[int]], np.ndarray]

    def question(self, found: Expression) -> Question:
        """Returns the question of an expression with its training target, float32 ``(h, w)`` in [0, 1]."""
        share = self.covered(found.referents.ids)
        within = found.referents.within
        drawn = raised(share if within is None else cut_to(share, within))
        candidates = drawn
        if found.referents.candidates:
            # The target may have been raised more than the rest, and is one of them all the same.
            candidates = np.maximum(drawn, raised(self.covered(found.referents.candidates)))
        return replace(found.question(self.annotated), target=Regions(drawn), candidates=candidates)


class Drawn(NamedTuple):
    """A view with its questions.

    Attributes:
        image: ``uint8`` RGB ``(size, size, 3)``.
        questions: Questions about it, possibly none.
        classes: Whole classes, present or known to be absent, each as a question with the class's name as its text;
            empty unless ``absent_classes`` of :class:`AnnotatedViews` is given.
    """

    image: np.ndarray
    questions: list[Question]
    classes: list[Question]


class AnnotatedViews:
    """Draws views of a data set's images; a view depends only on the image and on the random generator."""

    def __init__(
        self, dataset: AnnotatedDataset, size: int, augment: AugmentConfig, settings: BuilderSettings,
        absent_classes: int | None = None,
    ) -> None:  # fmt: skip
        """Prepares the question builder.

        Args:
            dataset: Annotated images. Mosaics and pasted objects use only images of this data set, because its table
                has the words for the questions.
            size: Side of the square views in pixels.
            augment: How views differ from the images.
            settings: Which questions are built, and how many.
            absent_classes: For :attr:`Drawn.classes`: how many absent classes are given beside all that are present.
                ``None`` gives no classes at all.
        """
        self.dataset, self.size, self.augment, self.absent_classes = dataset, size, augment, absent_classes
        self.builder = ExpressionBuilder(dataset.table, settings)

    def draw(self, index: int, rng: np.random.Generator) -> Drawn:
        """Returns a view of an image with questions about it.

        Args:
            index: Number of the image in the data set.
            rng: Decides every random choice.
        """
        # A random crop may show nothing that can be asked about. The last try takes the largest crop instead.
        for last in (*[False] * (TRIES - 1), True):
            view = self._mosaic(index, rng) if rng.random() < self.augment.mosaic else self._crop(index, last, rng)
            drawn = self.builder.expressions(view.annotated, rng)
            if drawn:
                break
        image, questions = jitter(view.image, self.augment, rng), [view.question(found) for found in drawn]
        if self.absent_classes is None:
            return Drawn(image, questions, [])
        classes = self.builder.classes(view.annotated, rng, self.absent_classes)
        return Drawn(image, questions, [view.question(found) for found in classes])

    def _crop(self, index: int, largest: bool, rng: np.random.Generator) -> View:
        annotated = self.dataset.annotated(index)
        crop = (
            largest_crop(annotated)
            if largest
            else random_crop(annotated.height, annotated.width, self.augment.min_scale, rng)
        )
        view = self._seen(index, annotated, crop, (self.size, self.size), *self._orientation(rng))
        return self._with_pasted(view, crop, rng) if rng.random() < self.augment.paste else view

    def _seen(
        self, index: int, annotated: AnnotatedImage, crop: Box, size: tuple[int, int], flip: bool, turns: int
    ) -> View:
        """Crops, turns and scales an image and its annotation."""

        def covered(ids: Iterable[int]) -> np.ndarray:
            return transform_image(annotated.union_mask(ids).astype(np.float32), crop, size, flip, turns)

        image = transform_image(self.dataset.image(index), crop, size, flip, turns)
        return View(image, annotated.transform(crop, size, flip, turns), covered)

    def _with_pasted(self, view: View, crop: Box, rng: np.random.Generator) -> View:
        cutouts = []
        wanted = 1 + int(rng.integers(self.augment.most_pasted))
        for other in rng.integers(len(self.dataset), size=4 * DONORS):
            donor = self.dataset.annotated(int(other))
            usable = [item for item in donor.objects if can_be_pasted(item, donor)]
            if donor.source != view.annotated.source or not usable:
                continue
            picture = self.dataset.image(int(other))
            cutouts += [cut_out(picture, usable[int(k)]) for k in rng.integers(len(usable), size=-(-wanted // DONORS))]
            if len(cutouts) >= wanted:
                break
        image, annotated = paste(view.image, view.annotated, cutouts[:wanted], self.size / (crop[2] - crop[0]), rng)
        before = {item.id for item in view.annotated.objects}
        pasted = annotated.union_mask(item.id for item in annotated.objects if item.id not in before)

        def covered(ids: Iterable[int]) -> np.ndarray:
            wanted = set(ids)
            beneath = view.covered(wanted & before) * ~pasted
            return np.maximum(beneath, annotated.union_mask(wanted - before))

        return View(image, annotated, covered)

    def _mosaic(self, index: int, rng: np.random.Generator) -> View:
        boxes = mosaic_boxes(self.size, rng)
        chosen = [index, *(int(other) for other in rng.integers(len(self.dataset), size=len(boxes) - 1))]
        rng.shuffle(chosen)
        views = [self._part(other, box, rng) for other, box in zip(chosen, boxes, strict=True)]
        parts = [Part(box, view.image, view.annotated) for box, view in zip(boxes, views, strict=True)]
        image, annotated = mosaic(parts, self.size)
        origin = [(number, item.id) for number, view in enumerate(views) for item in view.annotated.objects]

        def covered(ids: Iterable[int]) -> np.ndarray:
            whole = np.zeros((self.size, self.size), np.float32)
            wanted = [origin[number - 1] for number in ids]  # mosaic() numbers objects from 1, one part after another
            for number, ((x0, y0, x1, y1), view) in enumerate(zip(boxes, views, strict=True)):
                whole[y0:y1, x0:x1] = view.covered([own for part, own in wanted if part == number])
            return whole

        return View(image, annotated, covered)

    def _part(self, index: int, box: Box, rng: np.random.Generator) -> View:
        """Crops an image at random to the aspect ratio of a mosaic's part, and scales it to the part's size."""
        annotated, size = self.dataset.annotated(index), (box[3] - box[1], box[2] - box[0])
        flip, turns = self._orientation(rng)
        high, wide = size if turns % 2 == 0 else size[::-1]  # the part's height and width before the crop is turned
        scale = min(annotated.height / high, annotated.width / wide) * rng.uniform(self.augment.min_scale, 1.0)
        height, width = max(1, int(high * scale)), max(1, int(wide * scale))
        y0, x0 = int(rng.integers(annotated.height - height + 1)), int(rng.integers(annotated.width - width + 1))
        return self._seen(index, annotated, (x0, y0, x0 + width, y0 + height), size, flip, turns)

    def _orientation(self, rng: np.random.Generator) -> tuple[bool, int]:
        return (bool(rng.integers(2)), int(rng.integers(4))) if self.augment.flips_and_turns else (False, 0)


def random_crop(height: int, width: int, min_scale: float, rng: np.random.Generator) -> Box:
    """Draws a square crop ``(x0, y0, x1, y1)`` with a side of ``min_scale`` to 1 of the shorter side."""
    side = round(min(height, width) * rng.uniform(min_scale, 1.0))
    x0, y0 = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    return x0, y0, x0 + side, y0 + side


def largest_crop(annotated: AnnotatedImage) -> Box:
    """Returns the largest square crop, placed so that it shows the middle of the largest object."""
    side = min(annotated.height, annotated.width)
    largest = max(annotated.objects, key=lambda item: item.area, default=None)
    x, y = (annotated.width / 2, annotated.height / 2) if largest is None else largest.centroid
    x0 = min(max(round(x - side / 2), 0), annotated.width - side)
    y0 = min(max(round(y - side / 2), 0), annotated.height - side)
    return x0, y0, x0 + side, y0 + side


def jitter(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Changes brightness and contrast by up to ``config.colour_jitter``, and each channel's gain by a quarter of it."""
    strength = config.colour_jitter
    if not strength:
        return image
    gain = rng.uniform(1 - strength, 1 + strength) * rng.uniform(1 - strength / 4, 1 + strength / 4, 3)
    bias = rng.uniform(-strength, strength) * 128
    mean = image.mean(axis=(0, 1))
    table = (np.arange(256)[:, None] - mean) * gain + mean + bias  # a look-up table for each channel: (256, 3)
    return cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])
