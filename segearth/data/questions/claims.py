"""Claims, which are the meaning of a question, and the verifier that decides whether a claim holds in an image.

The verifier uses only the geometry of the annotation. For each object it decides whether the claim is true of it,
false, or unclear (three-valued logic). If it is unclear for a single object, the claim is not asked, so that no
question is asked to which two careful people could give different answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject, Box
from segearth.data.questions.regions import REGIONS, Fractions, Region
from segearth.data.questions.table import Need, Table

Truth = bool | None  # None: unclear

SIDES = ("left", "right", "above", "below")
OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above", "upper": "lower", "lower": "upper"}


@dataclass(frozen=True)
class Claim:
    """Which objects a question asks for, before it is put into words.

    Attributes:
        categories: The classes that the claim is about.
        region: The part of the frame they lie in, a key of :data:`~segearth.data.questions.regions.REGIONS`.
        attribute: The ``(key, value)`` that the objects must have.
        count: There are exactly so many objects of this kind.
        rank: By size: 1 is the largest, 2 the second largest, -1 the smallest.
        one: There is exactly one object of this kind.
        relation: ``"closest"``, ``"beside"`` or one of :data:`SIDES`, relative to the objects of ``anchor``.
        anchor: The claim that says what ``relation`` is relative to.
        need: The need that implies the classes; ``None`` if the classes are named.
        absent: Nothing of this kind is in the image.
    """

    categories: tuple[str, ...]
    region: str | None = None
    attribute: tuple[str, str] | None = None
    count: int | None = None
    rank: int | None = None
    one: bool = False
    relation: str | None = None
    anchor: Claim | None = None
    need: Need | None = None
    absent: bool = False

    @property
    def about_individuals(self) -> bool:
        """Whether the claim counts objects or selects single ones, rather than asking for a whole class."""
        return self.one or self.count is not None or self.rank is not None or self.relation is not None

    @property
    def about_all(self) -> bool:
        """Whether the claim asks for everything of its classes, without any condition."""
        return not self.about_individuals and self.region is None and self.attribute is None

    @property
    def mentioned(self) -> frozenset[str]:
        """Every class that the claim names or implies, including those of its anchor."""
        return frozenset(self.categories) | (self.anchor.mentioned if self.anchor is not None else frozenset())


def opposites(claim: Claim) -> Iterator[tuple[str, Claim]]:
    """Gives the claims in which one word is replaced by its opposite; they need not hold in the image.

    Yields:
        The kind of word (``"side"`` or ``"size"``) and the claim.
    """
    if claim.region is not None:
        for word in ("left", "upper", "right", "lower"):
            if word in claim.region.split():
                yield "side", replace(claim, region=claim.region.replace(word, OPPOSITES[word]))
    if claim.relation in OPPOSITES:
        yield "side", replace(claim, relation=OPPOSITES[str(claim.relation)])
    if claim.rank is not None:
        yield from (("size", replace(claim, rank=rank)) for rank in ((-1, 2) if claim.rank == 1 else (1,)))


class Referents(NamedTuple):
    """Ids of the objects that a claim is true of.

    Attributes:
        ids: The objects.
        within: A box that limits stuff to a part of the frame.
        candidates: Where they were chosen by size: ids of all that they were chosen from.
    """

    ids: tuple[int, ...]
    within: Box | None = None
    candidates: tuple[int, ...] = ()


class Anchor(NamedTuple):
    """The reference of a relation: its objects' ids, their bounding box, and each pixel's distance to them."""

    ids: tuple[int, ...]
    box: Box
    distance: np.ndarray


@dataclass(frozen=True)
class Margins:
    """How clear a case must be to be asked.

    Attributes:
        class_fraction: The whole target covers at least this share of the frame.
        object_fraction: A single object that is asked for covers at least this share of the frame.
        object_pixels: A single object that is asked for has at least so many pixels.
        size_ratio: Where objects are ranked by size, each has at least so many times the pixels of the next.
        distance_ratio: The second closest object is at least so many times as far away as the closest one.
        distance_gap: The second closest object is farther away by at least this share of the frame's diagonal.
        beside: Two distances, as shares of the diagonal. Objects up to the first are next to something, objects from
            the second on are not, and those between are unclear.
        inside: At least this share of an object's area must lie inside a region for the object to be in it, and outside
            for the object not to be in it.
        ask_incomplete: Whether a class that the source annotates incompletely is asked for at all.
    """

    class_fraction: float = 0.0005
    object_fraction: float = 0.001
    object_pixels: int = 24
    size_ratio: float = 1.3
    distance_ratio: float = 1.4
    distance_gap: float = 0.03
    beside: tuple[float, float] = (0.015, 0.06)
    inside: float = 0.8
    ask_incomplete: bool = True


class Verifier:
    """Decides claims about one image, and caches intermediate results that several claims need."""

    def __init__(self, annotated: AnnotatedImage, table: Table, margins: Margins) -> None:
        self.annotated, self.table, self.margins = annotated, table, margins
        self._anchors: dict[Claim, Anchor | None] = {}
        self._placed: dict[tuple[str, int], Truth] = {}

    def referents(self, claim: Claim) -> Referents | None:
        """Returns the objects that a claim is true of, or ``None`` if it is false, unclear or about too little to see.

        For a claim of absence that is true there are no such objects, and :class:`Referents` is empty.
        """
        if claim.need is not None and not self._need_applies(claim):
            return None
        if claim.absent:
            return self._absence(claim)
        if claim.need is None and self._ambiguous(claim.categories):
            return None
        pool = self.annotated.of(claim.categories)
        if not pool or not self._may_ask(claim, pool):
            return None
        if claim.region is not None and any(not item.is_thing for item in pool):
            return self._stuff_in_region(claim, pool)
        members = self._members(claim, pool)
        if not members or not self._as_many_as_claimed(claim, members):
            return None
        if claim.relation == "closest":
            members = self._closest(claim, members)
        candidates: list[AnnotatedObject] = []
        if claim.rank is not None:
            candidates, members = members, self._ranked(claim.rank, members)
        if not members or not self._visible(claim, members):
            return None
        return Referents(tuple(item.id for item in members), candidates=tuple(item.id for item in candidates))

    def _may_ask(self, claim: Claim, pool: list[AnnotatedObject]) -> bool:
        incomplete = not self.annotated.incomplete.isdisjoint(claim.categories)
        if incomplete and not (claim.about_all and self.margins.ask_incomplete):
            return False
        return not (claim.about_individuals and any(not item.is_thing for item in pool))

    def _ambiguous(self, categories: Iterable[str]) -> bool:
        doubts = {other for name in categories for other in self.table.words(name).ambiguous}
        return any(name in doubts for name in self.annotated.by_category)

    def _members(self, claim: Claim, pool: list[AnnotatedObject]) -> list[AnnotatedObject] | None:
        members = []
        anchor = self._anchor(claim.anchor) if claim.anchor is not None else None
        if claim.anchor is not None and anchor is None:
            return None
        for item in pool:
            if anchor is not None and item.id in anchor.ids:
                continue
            truth = self._has_attribute(claim, item)
            if truth is not False:
                truth = _both(truth, self._in_region(claim, item))
            if truth is not False and anchor is not None:
                truth = _both(truth, self._related(claim.relation, anchor, item))
            if truth is None:
                return None
            if truth:
                members.append(item)
        return members

    def _as_many_as_claimed(self, claim: Claim, members: list[AnnotatedObject]) -> bool:
        if claim.count is not None:
            return len(members) == claim.count and not any(item.truncated for item in members)
        return not claim.one or claim.rank is not None or claim.relation == "closest" or len(members) == 1

    def _has_attribute(self, claim: Claim, item: AnnotatedObject) -> Truth:
        if claim.attribute is None:
            return True
        key, value = claim.attribute
        actual = item.attributes.get(key)
        spec = self.table.attributes.get(key)
        if actual is None or spec is None or actual in spec.unsure:
            return None
        return actual == value

    def _in_region(self, claim: Claim, item: AnnotatedObject) -> Truth:
        if claim.region is None:
            return True
        key = (claim.region, item.id)
        if key not in self._placed:
            self._placed[key] = self._placement(REGIONS[claim.region], item)
        return self._placed[key]

    def _placement(self, region: Region, item: AnnotatedObject) -> Truth:
        inside = item.area_within(self._pixels(region.box)) / item.area
        if inside >= self.margins.inside and _contains(self._pixels(region.core), item.centroid):
            return True
        if 1 - inside >= self.margins.inside and not _contains(self._pixels(region.halo), item.centroid):
            return False
        return None

    def _related(self, relation: str | None, anchor: Anchor, item: AnnotatedObject) -> Truth:
        if relation == "beside":
            near, far = (share * self._diagonal for share in self.margins.beside)
            distance = _distance(anchor, item)
            return True if distance <= near else False if distance >= far else None
        return True if relation == "closest" else _beyond(str(relation), item, anchor.box)

    def _closest(self, claim: Claim, members: list[AnnotatedObject]) -> list[AnnotatedObject]:
        anchor = self._anchor(claim.anchor) if claim.anchor is not None else None
        if len(members) < 2 or anchor is None:
            return []
        distances = [_distance(anchor, item) for item in members]
        first, second = np.argsort(distances)[:2]
        clear_ratio = distances[second] >= distances[first] * self.margins.distance_ratio
        clear_gap = distances[second] - distances[first] >= self.margins.distance_gap * self._diagonal
        return [members[first]] if clear_ratio and clear_gap else []

    def _ranked(self, rank: int, members: list[AnnotatedObject]) -> list[AnnotatedObject]:
        if len(members) < (2 if rank == 1 else 3):
            return []
        order = sorted(members, key=lambda item: item.area, reverse=rank > 0)
        index = abs(rank) - 1
        neighbours = [(order[k].area, order[k + 1].area) for k in range(index + 1)]
        clear = all(max(pair) >= self.margins.size_ratio * min(pair) for pair in neighbours)
        cut = rank < 0 and self._touches_edge(order[0])  # an object cut off by the edge may not be the smallest
        return [order[index]] if clear and not cut else []

    def _visible(self, claim: Claim, members: list[AnnotatedObject]) -> bool:
        frame = self.annotated.width * self.annotated.height
        least = max(self.margins.object_fraction * frame, self.margins.object_pixels)
        if len(members) == 1 and not claim.about_all and (members[0].truncated or members[0].area < least):
            return False  # a single object is asked for, so a person must be able to see it
        if claim.count is not None and min(item.area for item in members) < least / 2:
            return False
        return sum(item.area for item in members) >= self.margins.class_fraction * frame

    def _stuff_in_region(self, claim: Claim, pool: list[AnnotatedObject]) -> Referents | None:
        if claim.one or claim.attribute is not None or claim.region is None:
            return None
        within = self._pixels(REGIONS[claim.region].box)
        parts = [(item, item.area_within(within)) for item in pool]
        inside, total = sum(part for _, part in parts), sum(item.area for item in pool)
        least = self.margins.object_fraction * self.annotated.width * self.annotated.height
        if inside < least or total - inside < least:
            return None
        return Referents(tuple(item.id for item, part in parts if part), within)

    def _absence(self, claim: Claim) -> Referents | None:
        confusable = {other for name in claim.categories for other in self.table.words(name).confusable}
        confusable -= set(claim.categories)
        if claim.region is None:
            doubtful = any(name in self.annotated.by_category for name in confusable)
        else:
            halo = self._pixels(REGIONS[claim.region].halo)
            doubtful = any(item.area_within(halo) for item in self.annotated.of(confusable))
        if doubtful or not all(self._absence_known(name) for name in claim.categories):
            return None
        pool = self.annotated.of(claim.categories)
        if claim.region is None and claim.attribute is None:
            return None if pool else Referents(())
        if not pool:
            return None  # there is nothing of the class at all; that is asked without region and attribute
        for item in pool:
            if not item.is_thing:
                clear = claim.region is not None and not item.area_within(self._pixels(REGIONS[claim.region].halo))
                truth: Truth = False if clear else None
            else:
                truth = _both(self._has_attribute(claim, item), self._in_region(claim, item))
            if truth is not False:
                return None
        return Referents(())

    def _absence_known(self, name: str) -> bool:
        if name in self.annotated.known_absent:
            return True
        return name in self.annotated.vocabulary - self.annotated.incomplete - self.annotated.unresolved

    def _need_applies(self, claim: Claim) -> bool:
        need, annotated = claim.need, self.annotated
        if need is None or any(name in annotated.by_category or name in annotated.possible for name in need.conflicts):
            return False
        known = annotated.vocabulary | annotated.known_absent
        covered = {other for name in annotated.vocabulary for other in self.table.words(name).covers}
        asked = tuple(name for name in need.classes if name in known)
        return asked == claim.categories and all(name in known or name in covered for name in need.classes)

    def _anchor(self, claim: Claim) -> Anchor | None:
        if claim not in self._anchors:
            found = self.referents(claim)
            self._anchors[claim] = None
            if found is not None:
                mask = self.annotated.union_mask(found.ids)
                xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
                box = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
                # OpenCV's 5 x 5 neighbourhood is accurate to 2 %; with 3 x 3 distances along rows and columns are 5 %
                # too short.
                distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
                self._anchors[claim] = Anchor(found.ids, box, distance)
        return self._anchors[claim]

    def _pixels(self, part: Fractions) -> Box:
        width, height = self.annotated.width, self.annotated.height
        return round(part[0] * width), round(part[1] * height), round(part[2] * width), round(part[3] * height)

    def _touches_edge(self, item: AnnotatedObject) -> bool:
        x0, y0, x1, y1 = item.box
        return x0 == 0 or y0 == 0 or x1 == self.annotated.width or y1 == self.annotated.height

    @property
    def _diagonal(self) -> float:
        return float(np.hypot(self.annotated.width, self.annotated.height))


def verify_claim(
    annotated: AnnotatedImage, claim: Claim, table: Table, margins: Margins | None = None
) -> Referents | None:
    """Decides one claim about an image; see :meth:`Verifier.referents` for what is returned."""
    return Verifier(annotated, table, margins or Margins()).referents(claim)


def _both(a: Truth, b: Truth) -> Truth:
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


def _contains(box: Box, point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _distance(anchor: Anchor, item: AnnotatedObject) -> float:
    x0, y0, x1, y1 = item.box
    return float(anchor.distance[y0:y1, x0:x1][item.mask].min())


def _beyond(side: str, item: AnnotatedObject, anchor: Box) -> Truth:
    axis = 0 if side in ("left", "right") else 1
    start, end = anchor[axis], anchor[axis + 2]
    last, centre = item.box[axis + 2], item.centroid[axis]
    if side in ("right", "below"):  # mirror the axis, so that the coordinate of an object on the side is smaller
        start, end, last, centre = -end, -start, -item.box[axis], -centre
    if last <= start:
        return True
    return False if centre >= (start + end) / 2 else None
