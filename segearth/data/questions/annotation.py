"""Annotated objects of one image, as small bitmaps that can be cropped, turned and scaled together with the image.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from segearth.data.questions.table import Table
from segearth.errors import DatasetError
from segearth.preprocessing.resampling import resized
from segearth.structures import centroid_of
from segearth.utils.coco_masks import decode_cropped

Box = tuple[int, int, int, int]

# If a crop leaves less than the first share of an object's area, and the rest covers less than the second share of the
# new frame, then the object cannot be recognised any more.
SLIVER_VISIBLE = 0.15
SLIVER_AREA = 0.01


@dataclass
class AnnotatedObject:
    """One annotated object, or one piece of a stuff class.

    Attributes:
        id: Unique within the image; kept by :meth:`AnnotatedImage.transform`.
        category: Class name as in the data source.
        mask: Boolean bitmap of shape ``(y1 - y0, x1 - x0)``.
        box: ``(x0, y0, x1, y1)`` in pixels of the frame, the end exclusive: where ``mask`` lies.
        is_thing: Whether the object can be counted; ``False`` for stuff such as grass.
        attributes: Facts such as ``{"roof:material": "tin"}``.
        truncated: Whether only a sliver of the object is in view. It then counts as part of its class, but no question
            asks for it alone.
    """

    id: int
    category: str
    mask: np.ndarray
    box: Box
    is_thing: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)
    truncated: bool = False

    @cached_property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def centroid(self) -> tuple[float, float]:
        """Mean ``(x, y)`` of the pixel centres, in frame pixels."""
        return centroid_of(self.mask, *self.box[:2])

    def area_within(self, box: Box) -> int:
        """Returns the number of the object's pixels inside the pixel box ``(x0, y0, x1, y1)``."""
        x0, y0, x1, y1 = self.box
        bx0, by0, bx1, by1 = box
        if bx0 <= x0 and by0 <= y0 and bx1 >= x1 and by1 >= y1:
            return self.area
        if bx0 >= x1 or by0 >= y1 or bx1 <= x0 or by1 <= y0:
            return 0
        part = self.mask[max(by0 - y0, 0) : max(by1 - y0, 0), max(bx0 - x0, 0) : max(bx1 - x0, 0)]
        return int(np.count_nonzero(part))


@dataclass
class AnnotatedImage:
    """The annotation of one frame: its objects, and of which classes it is known whether they are there.

    Data sources annotate different classes. If an image shows no annotated ship, there may be none, or its source may
    not annotate ships. Only in the first case may a question about ships have an empty mask as its target.

    Attributes:
        width: Frame width in pixels.
        height: Frame height in pixels.
        objects: Everything annotated; objects may overlap.
        vocabulary: The classes that the source annotates. If such a class has no object in the frame, it is absent.
        known_absent: Classes that the source does not annotate, but that are known to be in none of its images.
        incomplete: Classes of the vocabulary of which the source has missed some objects, so that neither their number
            nor their absence is known.
        possible: Classes that the source does not annotate, but that are in some of its images. No question asks for a
            need that conflicts with one of them.
        unresolved: Classes of which an object in the frame is too small to have a pixel at this scale.
        gsd_m: Ground sampling distance, the size of a pixel on the ground in metres, if known.
        source: Name of the data source, for reports.
        known_where: For a mosaic: the pixel box ``(x0, y0, x1, y1)`` of each part, and the classes of which it is known
            where they are in that part. Empty if the whole frame comes from one image.
    """

    width: int
    height: int
    objects: Sequence[AnnotatedObject]
    vocabulary: frozenset[str] = frozenset()
    known_absent: frozenset[str] = frozenset()
    incomplete: frozenset[str] = frozenset()
    possible: frozenset[str] = frozenset()
    unresolved: frozenset[str] = frozenset()
    gsd_m: float | None = None
    source: str = ""
    known_where: tuple[tuple[Box, frozenset[str]], ...] = ()

    @cached_property
    def by_category(self) -> dict[str, list[AnnotatedObject]]:
        """The objects of each class, in the order of :attr:`objects`."""
        groups: dict[str, list[AnnotatedObject]] = {}
        for item in self.objects:
            groups.setdefault(item.category, []).append(item)
        return groups

    def of(self, categories: Iterable[str]) -> list[AnnotatedObject]:
        """Returns the objects of some classes."""
        return [item for name in categories for item in self.by_category.get(name, ())]

    def known_area(self, categories: Iterable[str]) -> np.ndarray | None:
        """Returns the part of the frame in which it is known where objects of the classes are.

        Returns:
            Boolean ``(height, width)``, or ``None`` if that is the whole frame.
        """
        wanted = frozenset(categories)
        unknown = [box for box, known in self.known_where if not wanted <= known]
        if not unknown:
            return None
        area = np.ones((self.height, self.width), bool)
        for x0, y0, x1, y1 in unknown:
            area[y0:y1, x0:x1] = False
        return area

    def union_mask(self, ids: Iterable[int], within: Box | None = None) -> np.ndarray:
        """Returns the union of some objects' masks.

        Args:
            ids: Ids of objects of this image; without any the mask is empty.
            within: Pixel box ``(x0, y0, x1, y1)``; pixels outside of it are left out.

        Returns:
            Boolean array of shape ``(height, width)``.

        Raises:
            DatasetError: No object has one of the ids.
        """
        wanted = set(ids)
        out = np.zeros((self.height, self.width), dtype=bool)
        for item in self.objects:
            if item.id in wanted:
                wanted.discard(item.id)
                x0, y0, x1, y1 = item.box
                out[y0:y1, x0:x1] |= item.mask
        if wanted:
            raise DatasetError(f"image of {self.source or 'unknown source'} has no object {sorted(wanted)}")
        return out if within is None else cut_to(out, within)

    def transform(self, crop: Box, out_size: tuple[int, int], flip: bool = False, turns: int = 0) -> AnnotatedImage:
        """Returns the annotation of a part of this frame, cropped, turned, mirrored and scaled in this order.

        :func:`transform_image` does the same to the image. Masks are sampled at the centres of the new pixels.

        Args:
            crop: ``(x0, y0, x1, y1)`` in pixels of this frame, inside it.
            out_size: ``(height, width)`` of the new frame.
            flip: Whether to mirror, so that left and right change places.
            turns: Quarter turns counter-clockwise.

        Raises:
            DatasetError: The crop is empty or leaves the frame, or the frame is a mosaic.
        """
        if self.known_where:
            raise DatasetError("a mosaic is not cropped or turned: crop and turn its parts before they are joined")
        x0, y0, x1, y1 = _checked_crop(crop, self.width, self.height)
        height, width = out_size if turns % 2 == 0 else out_size[::-1]
        rows = y0 + ((np.arange(height) + 0.5) * (y1 - y0) / height).astype(np.int64)
        columns = x0 + ((np.arange(width) + 0.5) * (x1 - x0) / width).astype(np.int64)
        scale = height * width / ((y1 - y0) * (x1 - x0))
        objects, unresolved = [], set(self.unresolved)
        for item in self.objects:
            ix0, iy0, ix1, iy1 = item.box
            if ix0 >= x1 or ix1 <= x0 or iy0 >= y1 or iy1 <= y0:
                continue
            cut = ix0 < x0 or ix1 > x1 or iy0 < y0 or iy1 > y1
            area_left = item.area_within((x0, y0, x1, y1)) if cut else item.area
            if area_left == 0:
                continue
            left, right = np.searchsorted(columns, (ix0, ix1))
            top, bottom = np.searchsorted(rows, (iy0, iy1))
            mask = item.mask[rows[top:bottom, None] - iy0, columns[None, left:right] - ix0]
            if not mask.any():
                unresolved.add(item.category)
                continue
            box = (int(left), int(top), int(right), int(bottom))
            mask, box = _turned(mask, box, (height, width), turns, flip)
            sliver = area_left < SLIVER_VISIBLE * item.area and area_left * scale < SLIVER_AREA * height * width
            objects.append(
                AnnotatedObject(
                    item.id, item.category, mask, box, item.is_thing, item.attributes, item.truncated or sliver
                )
            )
        gsd = None if self.gsd_m is None else self.gsd_m * scale**-0.5
        return replace(
            self,
            width=out_size[1],
            height=out_size[0],
            objects=objects,
            unresolved=frozenset(unresolved),
            gsd_m=gsd,
        )

    @classmethod
    def from_coco(
        cls,
        record: Mapping[str, Any],
        annotations: Iterable[Mapping[str, Any]],
        categories: Mapping[int, Mapping[str, Any]],
        *,
        vocabulary: Iterable[str] | None = None,
        known_absent: Iterable[str] = (),
        incomplete: Iterable[str] = (),
        possible: Iterable[str] = (),
    ) -> AnnotatedImage:
        """Reads one image of a COCO file.

        Args:
            record: The image's entry of ``images``. ``gsd_m`` and ``source`` are read if they are there.
            annotations: The image's entries of ``annotations``, with polygons or run lengths. ``attributes`` is read if
                it is there. An annotation with ``iscrowd`` is taken for stuff, since it cannot be counted.
            categories: From ``id`` to the entry of ``categories``. ``isthing`` (default 1) tells things from stuff.
            vocabulary: The classes that this image's source annotates; default all categories.
            known_absent: See :class:`AnnotatedImage`.
            incomplete: See :class:`AnnotatedImage`.
            possible: See :class:`AnnotatedImage`.

        Raises:
            DatasetError: A segmentation cannot be read or does not fit the image.
        """
        width, height = int(record["width"]), int(record["height"])
        objects = []
        for annotation in annotations:
            category = categories[annotation["category_id"]]
            bitmap, box = _decoded(annotation, width, height)
            if bitmap.size == 0:
                continue
            attributes = {k: str(v) for k, v in (annotation.get("attributes") or {}).items()}
            thing = bool(category.get("isthing", 1)) and not annotation.get("iscrowd", 0)
            objects.append(AnnotatedObject(int(annotation["id"]), category["name"], bitmap, box, thing, attributes))
        names = {c["name"] for c in categories.values()} if vocabulary is None else vocabulary
        return cls(
            width,
            height,
            objects,
            frozenset(names),
            frozenset(known_absent),
            frozenset(incomplete),
            frozenset(possible),
            gsd_m=record.get("gsd_m"),
            source=str(record.get("source", "")),
        )


@runtime_checkable
class AnnotatedDataset(Protocol):
    """A data set that gives the annotations behind its questions, so that new questions can be made for each view.

    Attributes:
        table: The words and needs from which its questions are made.
    """

    table: Table

    def __len__(self) -> int:
        """Number of images."""

    def image(self, index: int) -> np.ndarray:
        """Image ``index`` as ``uint8`` RGB of shape ``(H, W, 3)``."""

    def annotated(self, index: int) -> AnnotatedImage:
        """The annotation of image ``index``, at the image's own size."""


def cut_to(mask: np.ndarray, box: Box) -> np.ndarray:
    """Returns a copy of a mask ``(H, W)`` that is zero outside of the pixel box ``(x0, y0, x1, y1)``."""
    x0, y0, x1, y1 = box
    kept = np.zeros_like(mask)
    kept[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
    return kept


def transform_image(
    image: np.ndarray, crop: Box, out_size: tuple[int, int], flip: bool = False, turns: int = 0
) -> np.ndarray:
    """Crops, turns, mirrors and scales an image or a mask as :meth:`AnnotatedImage.transform` does its annotation.

    Args:
        image: ``uint8`` or float32 array of shape ``(H, W, 3)`` or ``(H, W)``.
        crop: ``(x0, y0, x1, y1)`` in pixels, inside the image.
        out_size: ``(height, width)`` of the result.
        flip: Whether to mirror, so that left and right change places.
        turns: Quarter turns counter-clockwise.

    Returns:
        The array with ``out_size`` in place of ``(H, W)``, averaged where it shrinks and interpolated where it grows.

    Raises:
        DatasetError: The crop is empty or leaves the image.
    """
    x0, y0, x1, y1 = _checked_crop(crop, image.shape[1], image.shape[0])
    height, width = out_size if turns % 2 == 0 else out_size[::-1]
    out = resized(image[y0:y1, x0:x1], height, width)
    out = np.rot90(out, turns) if turns % 4 else out
    return np.ascontiguousarray(out[:, ::-1] if flip else out)


def _checked_crop(crop: Box, width: int, height: int) -> Box:
    x0, y0, x1, y1 = crop
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise DatasetError(f"crop {crop} is empty or leaves the {width}x{height} frame; give x0, y0, x1, y1 inside it")
    return crop


def _turned(mask: np.ndarray, box: Box, size: tuple[int, int], turns: int, flip: bool) -> tuple[np.ndarray, Box]:
    height, width = size
    x0, y0, x1, y1 = box
    for _ in range(turns % 4):  # a quarter turn moves a point (x, y) to (y, width - x)
        mask = np.rot90(mask)
        x0, y0, x1, y1 = y0, width - x1, y1, width - x0
        height, width = width, height
    if flip:
        mask, x0, x1 = mask[:, ::-1], width - x1, width - x0
    return np.ascontiguousarray(mask), (x0, y0, x1, y1)


def _decoded(annotation: Mapping[str, Any], width: int, height: int) -> tuple[np.ndarray, Box]:
    try:
        if not annotation.get("segmentation"):
            raise DatasetError("it has none; a box alone is no mask")
        return decode_cropped(annotation["segmentation"], height, width)
    except DatasetError as error:
        raise DatasetError(f"annotation {annotation.get('id')}: segmentation cannot be read: {error}") from error
