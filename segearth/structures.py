"""What users see: a question with its target, an image with its questions, an answer. No model code, no I/O.

The model's own data classes are in :mod:`segearth.model_types`.

Pixels: a point is ``(x, y)`` from the image's upper left corner, so that the centre of the first pixel is at
``(0.5, 0.5)``. A box is ``(x0, y0, x1, y1)``; of a region's own box the ends are exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from segearth.errors import DatasetError, UnknownNameError

Task: TypeAlias = str  # open: what is known of a task stands where it is used, such as in a model's prompt template


@dataclass(frozen=True, slots=True)
class Region:
    """One thing among several: a part of an answer or of a target, as a small bitmap.

    Attributes:
        mask: Boolean ``(h, w)``, as large as the region's bounding box; at least one pixel is ``True``.
        x0: Column of the image at which the bitmap begins.
        y0: Row of the image at which it begins.
        score: How sure the segmenter is of it, in [0, 1]; ``None`` in a target.
    """

    mask: np.ndarray
    x0: int
    y0: int
    score: float | None = None

    @classmethod
    def cut_from(cls, mask: np.ndarray, score: float | None = None) -> Region:
        """Cuts one region out of a mask of the whole image.

        Args:
            mask: Boolean ``(H, W)`` with at least one pixel.
            score: See the class.

        Raises:
            DatasetError: The mask is empty.
        """
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            raise DatasetError("a region has no pixel; leave it out of the list")
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        return cls(mask[y0:y1, x0:x1], x0, y0, score)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """``(x0, y0, x1, y1)`` in pixels of the image, the ends exclusive."""
        height, width = self.mask.shape
        return self.x0, self.y0, self.x0 + width, self.y0 + height

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def centroid(self) -> tuple[float, float]:
        """Mean ``(x, y)`` of the pixel centres, in pixels of the image."""
        return centroid_of(self.mask, self.x0, self.y0)

    def in_image(self, height: int, width: int) -> np.ndarray:
        """Returns the region as a boolean mask of the whole image, of shape ``(height, width)``."""
        return union_of([self], height, width)


def centroid_of(mask: np.ndarray, x0: int = 0, y0: int = 0) -> tuple[float, float]:
    """Returns the mean ``(x, y)`` of the pixel centres of a boolean ``(h, w)`` bitmap that begins at ``(x0, y0)``."""
    total = max(int(np.count_nonzero(mask)), 1)
    xs = mask.sum(axis=0, dtype=np.int64) @ (np.arange(mask.shape[1]) + 0.5)
    ys = mask.sum(axis=1, dtype=np.int64) @ (np.arange(mask.shape[0]) + 0.5)
    return x0 + float(xs) / total, y0 + float(ys) / total


def union_of(regions: Iterable[Region], height: int, width: int) -> np.ndarray:
    """Returns all pixels that belong to at least one of the regions, boolean ``(height, width)``.

    Raises:
        DatasetError: A region does not lie inside such an image.
    """
    union = np.zeros((height, width), bool)
    for region in regions:
        x0, y0, x1, y1 = region.box
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise DatasetError(f"a region has the box {region.box}, outside of an image of {width}x{height} px; cut it")
        union[y0:y1, x0:x1] |= region.mask
    return union


def connected_regions(mask: np.ndarray, score: float | None = None) -> tuple[Region, ...]:
    """Takes a mask apart into connected regions; pixels that touch at a corner belong together.

    Args:
        mask: Boolean ``(H, W)``.
        score: Given to each region.

    Returns:
        The largest first; of equal ones the upper, then the left one. None for an empty mask.
    """
    import cv2

    if not mask.any():
        return ()
    count, labels, facts, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask, bool).view(np.uint8))
    order = sorted(
        range(1, count),  # 0 is everything outside
        key=lambda i: (-facts[i, cv2.CC_STAT_AREA], facts[i, cv2.CC_STAT_TOP], facts[i, cv2.CC_STAT_LEFT]),
    )
    regions = []
    for i in order:
        x0, y0, width, height = (int(value) for value in facts[i, :4])
        regions.append(Region(labels[y0 : y0 + height, x0 : x0 + width] == i, x0, y0, score))
    return tuple(regions)


@dataclass(frozen=True, slots=True)
class Regions:
    """A target that is seen: a mask, and which regions make it up where that is known.

    Attributes:
        mask: ``(H, W)``, the union of the regions; boolean, or in the frame of a training step the covered share of
            each cell in [0, 1]. All ``False`` means "nothing of the kind is there".
        regions: The single things, which may overlap; ``None``: known as a whole alone.
        boxes: A box for each region as the data set gives it, in the forms of :class:`Boxes`; ``None``: there are none.
    """

    mask: np.ndarray
    regions: tuple[Region, ...] | None = None
    boxes: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.regions is not None:
            _check_union(self.regions, self.mask, "a target")
        if self.boxes is not None:
            Boxes(self.boxes)
            if self.regions is None or len(self.boxes) != len(self.regions):
                known = "no regions" if self.regions is None else f"{len(self.regions)} regions"
                raise DatasetError(f"a target has {len(self.boxes)} boxes and {known}; give one box for each region")

    @classmethod
    def of_masks(cls, masks: Sequence[np.ndarray]) -> Regions:
        """Makes a target of one boolean ``(H, W)`` mask for each thing; empty masks are left out.

        Raises:
            DatasetError: There is no mask, or their sizes differ.
        """
        sizes = sorted({mask.shape for mask in masks})
        if len(sizes) != 1:
            raise DatasetError(f"the masks of a target have the sizes {sizes}; give at least one, all of the image's")
        regions = tuple(Region.cut_from(mask) for mask in masks if mask.any())
        return cls(np.logical_or.reduce(list(masks)), regions)


@dataclass(frozen=True, slots=True)
class Boxes:
    """A target of boxes, in pixels of the image.

    Attributes:
        values: For each thing ``(x0, y0, x1, y1)``, or for a rotated box ``(x, y, width, height, angle)``: its centre,
            its sides, and by how many degrees it is turned clockwise. None: nothing of the kind is there.
    """

    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        for box in self.values:
            if len(box) not in (4, 5) or not all(math.isfinite(value) for value in box):
                raise DatasetError(f"{box} is no box; give (x0, y0, x1, y1) or (x, y, width, height, degrees), pixels")
            width, height = box[2:4] if len(box) == 5 else (box[2] - box[0], box[3] - box[1])
            if width < 0 or height < 0:
                raise DatasetError(f"box {box} ends before it begins; give (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1")


@dataclass(frozen=True, slots=True)
class Text:
    """A target of words, such as a caption.

    Attributes:
        references: Texts of which each would be right; at least one.
    """

    references: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.references or isinstance(self.references, str):
            raise DatasetError(f"a text target is {self.references!r}; give a tuple of at least one right text")


@dataclass(frozen=True, slots=True)
class Choices:
    """A target that is chosen, such as the class of an image.

    Attributes:
        options: What can be answered, no option twice.
        right: Which of them are right; several where several labels apply.
    """

    options: tuple[str, ...]
    right: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.options)) != len(self.options):
            raise DatasetError(f"the options {self.options} name one twice; name each once")
        if unknown := [name for name in self.right if name not in self.options]:
            raise DatasetError(f"{unknown} are right but no options; add them to the options {self.options}")


Target: TypeAlias = Regions | Boxes | Text | Choices

# Which kinds of target each task takes. A new task gets a row here, a prompt in a template and a scorer.
TARGETS_OF_TASK: dict[Task, tuple[type, ...]] = {
    "referring": (Regions,),
    "reasoning": (Regions,),
    "detection": (Boxes,),
    "grounding": (Boxes,),
    "grounding_description": (Boxes,),  # the right words are the question's answer
    "caption": (Text,),
    "region_caption": (Text,),
    "change_caption": (Text,),
    "vqa": (Text,),
    "classification": (Choices,),
    "multi_label": (Choices,),
    "temporal_classification": (Choices,),
}


@dataclass(slots=True, init=False)
class Question:
    """One question about one image, with what is known of its answer.

    Attributes:
        text: The question or expression as a user would type it.
        target: What a right answer is: :class:`Regions`, :class:`Boxes`, :class:`Text` or :class:`Choices`; ``None``
            when there is no ground truth.
        answer: The answer in words, if the data set has one.
        task: ``"referring"`` (the thing is named), ``"reasoning"`` (the need is named) or another name that the model's
            prompts know; it picks prompt and scorer.
        kind: Finer label for reports, such as ``"class"``, ``"position"`` or ``"absent"``; empty where unknown.
        id: Unique within the data set's split; names the sample in per-sample records.
        present: Whether what is asked for is in the image; ``None`` when there is no ground truth. Left out, it is read
            off a target of regions or boxes, once: a copy with a smaller mask keeps it, so that what shrinks to nothing
            is not called absent.
        valid: Boolean ``(H, W)``: where ``mask`` is known to be right, so that it can be learned; ``None``: everywhere.
        pairs: Names such as ``"side 12"``. Two questions of an image that share one differ in a single word and have
            different targets.
        box: ``(x0, y0, x1, y1)`` of the region that is asked about, in pixels of the image, such as the one to be
            described; ``None``: the whole image. What the answer points at is the target.
        candidates: ``(H, W)`` bool, or the share in [0, 1] of each pixel: all that the target is chosen from by size,
            as the buildings for "the largest building". The target itself where nothing is chosen; ``None`` where that
            is not known.
    """

    text: str
    target: Target | None
    answer: str | None
    task: Task
    kind: str
    id: str
    present: bool | None
    valid: np.ndarray | None
    pairs: tuple[str, ...]
    box: tuple[float, float, float, float] | None
    candidates: np.ndarray | None

    def __init__(
        self, text: str, mask: np.ndarray | None = None, answer: str | None = None, task: Task = "referring",
        kind: str = "", id: str = "", present: bool | None = None, valid: np.ndarray | None = None,
        pairs: tuple[str, ...] = (), target: Target | None = None,
        box: tuple[float, float, float, float] | None = None, candidates: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Makes a question.

        Args:
            text: See the class, as for all that follow.
            mask: Short for ``target=Regions(mask)``. Beside a target of regions it must be their union.
            answer: In words.
            task: What is asked for.
            kind: For reports.
            id: Of the sample.
            present: Whether it is there.
            valid: Where the mask is right.
            pairs: Names of pairs.
            target: What a right answer is.
            box: Of the region that is asked about.
            candidates: What the target is chosen from.

        Raises:
            DatasetError: ``mask`` is not the target's union, or ``box`` is no box of four numbers.
        """
        if mask is not None and target is not None:
            union = target.mask if isinstance(target, Regions) else None
            if union is None or not np.array_equal(mask, union):
                raise DatasetError(
                    f"question {id or text!r}: the mask is not the union of its target; give one of the two, "
                    "in dataclasses.replace the target: replace(question, target=Regions(mask))"
                )
        self.text, self.answer, self.task, self.kind, self.id = text, answer, task, kind, id
        self.target = Regions(mask) if target is None and mask is not None else target
        if box is not None and len(box) != 4:
            raise DatasetError(f"question {id or text!r} is about the box {box}; give (x0, y0, x1, y1)")
        if box is not None:
            Boxes((box,))
        self.valid, self.pairs, self.box, self.candidates = valid, pairs, box, candidates
        self.present = _presence_of(self.target) if present is None else present

    @property
    def mask(self) -> np.ndarray | None:
        """Boolean target ``(H, W)`` at the image's own size, all regions together; ``None`` where there is none."""
        return self.target.mask if isinstance(self.target, Regions) else None

    @mask.setter
    def mask(self, mask: np.ndarray | None) -> None:
        self.target = None if mask is None else Regions(mask)


def _presence_of(target: Target | None) -> bool | None:
    if isinstance(target, Regions):
        return bool(target.mask.any())
    return bool(target.values) if isinstance(target, Boxes) else None


def check_target(question: Question) -> None:
    """Checks, where a target is about to be learned from or scored by, that the question's task takes such a target.

    Raises:
        UnknownNameError: No such task.
        DatasetError: The task takes other targets.
    """
    if question.task not in TARGETS_OF_TASK:
        raise UnknownNameError("task", question.task, TARGETS_OF_TASK)
    takes = TARGETS_OF_TASK[question.task]
    if question.target is None or isinstance(question.target, takes):
        return
    given, wanted = type(question.target).__name__, " or ".join(kind.__name__ for kind in takes)
    fitting = sorted(task for task, kinds in TARGETS_OF_TASK.items() if isinstance(question.target, kinds))
    other = f", or a task that takes {given} ({', '.join(fitting)})" if fitting else ""
    raise DatasetError(
        f"question {question.id or question.text!r}: task {question.task!r} takes a target of {wanted}, not {given}; "
        f"give it {wanted}{other}"
    )


@dataclass(slots=True)
class Sample:
    """One image, or a pair of one place, with all its questions.

    Attributes:
        image_id: Unique within the data set's split.
        image: ``uint8`` RGB array of shape ``(H, W, 3)``; of a pair the later image, which targets and boxes count.
        questions: Every question of the image; may be empty.
        path: Where the image came from, for messages.
        meta: Free extra facts (source, ground sampling distance, georeference); kept, never interpreted by the model.
        before: Of a pair the earlier image, like ``image`` and of its size; ``None``: there is no pair.
    """

    image_id: str
    image: np.ndarray
    questions: list[Question] = field(default_factory=list)
    path: Path | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    before: np.ndarray | None = None


@dataclass(slots=True)
class Segmentation:
    """The answer to one question.

    Attributes:
        question: The question as asked.
        mask: Boolean array of exactly the image's ``(H, W)``; all ``False`` where the thing is judged absent.
        score: IoU to expect of the mask, in [0, 1]; 0 for an empty mask. Until ``segearth calibrate`` has set a model's
            curve it is the mean probability inside the mask.
        present: Whether the asked-for thing is judged to be in the image.
        presence: The probability behind ``present``, in [0, 1].
        answer: The answer in words, where asked for.
        frame_mask: Where the model letterboxes, the mask in its square frame, padding included; published protocols
            compare there.
        logits: Float32 ``(H, W)`` behind ``mask``, before anything is decided, where asked for.
        given_regions: The things one by one, where the segmenter tells them apart itself (they may overlap); their
            union is ``mask``. ``None``: :attr:`regions` takes the mask apart.
        boxes: Where boxes were asked for, those that were answered, in the forms of :class:`Boxes` and in fractions of
            a pixel, which regions cannot have. ``None``: they are those of the regions.
        unknown_words: Words of the question that the model never met in training, in lower case. It went by the others,
            where there were others.
    """

    question: str
    mask: np.ndarray
    score: float
    present: bool
    presence: float
    answer: str | None = None
    frame_mask: np.ndarray | None = None
    logits: np.ndarray | None = None
    given_regions: tuple[Region, ...] | None = None
    boxes: tuple[tuple[float, ...], ...] | None = None
    unknown_words: tuple[str, ...] = ()
    _found: tuple[np.ndarray, tuple[Region, ...]] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.given_regions is not None:
            _check_union(self.given_regions, self.mask, "an answer")

    @property
    def regions(self) -> tuple[Region, ...]:
        """The things that the mask is made of; together they are exactly ``mask``.

        Where the segmenter gave one mask, they are its connected parts, the largest first, each with the answer's
        score. They are looked for when first asked for, so that who does not ask pays nothing.
        """
        if self.given_regions is not None:
            return self.given_regions
        if self._found is None or self._found[0] is not self.mask:  # another mask may have been put in its place
            self._found = self.mask, connected_regions(self.mask, self.score)
        return self._found[1]

    def score_of(self, region: Region) -> float:
        """Returns a region's score, or the answer's own where the segmenter gave the region none."""
        return float(self.score if region.score is None else region.score)


def _check_union(regions: Sequence[Region], mask: np.ndarray, what: str) -> None:
    union = union_of(regions, *mask.shape)
    if differing := np.count_nonzero(union != mask.astype(bool)):
        raise DatasetError(
            f"the union of the {len(regions)} regions of {what} differs from its mask at {differing} pixels; "
            "give regions that make up the mask, or the mask alone"
        )
