"""A segmenter that looks at large pictures tile by tile, behind the same contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from segearth.errors import SegEarthError
from segearth.geo.scene_questions import understand
from segearth.geo.tiling import blended, plan_tiles, rows_of_tiles
from segearth.geo.windows import Window
from segearth.inference.deciding import decide
from segearth.inference.tiles import TilePass
from segearth.preprocessing.images import as_rgb
from segearth.segmenter import (
    ImageInput,
    Segmenter,
    SegmenterFacts,
    facts_of,
    numbers_of_images,
    one_each,
    usual_batch_size,
)
from segearth.structures import Segmentation, Task

TILE_SIZE = 512  # where a segmenter does not say at which size it sees images
LARGE = 1.5  # a picture so many times longer than the side at which a segmenter sees it loses what is small
OVERLAP = 0.25  # share of a tile that it has in common with the next
Way: TypeAlias = Literal["whole", "tiles", "shrunk"]  # how a picture is looked at


def way_of(segmenter: Segmenter, height: int, width: int, question: str) -> Way:
    """Decides how a picture of a size is best looked at for a question.

    Args:
        segmenter: Any.
        height: Of the picture, in pixels.
        width: Of the picture.
        question: What is asked.

    Returns:
        ``"whole"`` where the segmenter sees it at nearly its own size; else ``"tiles"``, or ``"shrunk"`` where no tile
        can answer the question, such as one for the largest of all.
    """
    side = facts_of(segmenter).side
    if side is None or max(height, width) < LARGE * side:
        return "whole"
    return "tiles" if understand(question).mode == "tile" else "shrunk"


def for_picture(
    segmenter: Segmenter, picture: np.ndarray, question: str, tiled: bool
) -> tuple[Segmenter, str | None]:
    """Chooses how a picture is looked at, and says what is lost.

    Args:
        segmenter: Any.
        picture: ``(H, W, 3)``.
        question: What is asked.
        tiled: Whether tiles are welcome.

    Returns:
        The segmenter, or one that looks at tiles; and a note for the user, if there is something to say.
    """
    height, width = picture.shape[:2]
    side, way = facts_of(segmenter).side, way_of(segmenter, height, width, question)
    if way == "whole":
        return segmenter, None
    if not tiled:
        return segmenter, (
            f"note: the picture, {max(height, width)} px long, is shrunk to {side} px and small things may be lost; "
            "--tiles auto looks at it tile by tile"
        )
    if way == "shrunk":
        return segmenter, (
            f"note: no tile can answer this, so the picture is shrunk to {side} px and small things may be lost; "
            "segearth scene finds them by tiles and settles the question among them"
        )
    return TiledSegmenter(segmenter), None


class TiledSegmenter:
    """Answers about pictures of any size, each seen in overlapping tiles at their own resolution.

    A segmenter alone shrinks a large picture to its frame, so that small things are lost. Here they keep their size;
    what is lost instead is what no tile shows: "the largest building" is one for each tile. For such questions, and for
    files that do not fit into memory, there is :func:`segearth.inference.scene.segment_scene`.

    Attributes:
        segmenter: Asked about tiles.
        tile_size: Side of a tile in pixels.
        overlap: Pixels that neighbouring tiles share.
    """

    def __init__(self, segmenter: Segmenter, tile_size: int | None = None, overlap: int | None = None) -> None:
        """Wraps a segmenter.

        Args:
            segmenter: Any.
            tile_size: Side of a tile in pixels; if left out, the side at which the segmenter sees images.
            overlap: Pixels, up to half a tile; a quarter of a tile if left out.
        """
        self.segmenter = segmenter
        self.tile_size = tile_size or facts_of(segmenter).side or TILE_SIZE
        self.overlap = int(self.tile_size * OVERLAP) if overlap is None else overlap
        plan_tiles(1, 1, self.tile_size, self.overlap)  # what is wrong with the two is said now
        self._images: list[np.ndarray] = []

    @cached_property
    def facts(self) -> SegmenterFacts:
        """The segmenter's; images are seen at their own size."""
        return replace(facts_of(self.segmenter), side=None, sees_pairs=False, takes_boxes=False)

    def set_image(self, image: ImageInput) -> None:
        """Takes a picture. It is encoded tile by tile when questions are asked, all of them in one pass."""
        self.set_images([image])

    def set_images(self, images: Sequence[ImageInput]) -> None:
        """Takes several pictures, of any sizes."""
        self._images = []
        self._images = [as_rgb(image) for image in images]

    def predict(
        self,
        questions: Sequence[str],
        *,
        task: Task | Sequence[Task] = "referring",
        about: int | Sequence[int] | None = None,
        answer: bool = False,
        return_logits: bool = False,
    ) -> list[Segmentation]:
        """Answers as :meth:`segearth.segmenter.Segmenter.predict` says, but not in words.

        Raises:
            SegEarthError: No image is set, or an answer in words is asked for: each tile would write another.
        """
        if not self._images:
            raise SegEarthError("no image is set; call set_image first")
        if answer:
            raise SegEarthError("tiles give no answer in words, since each would give another; ask for masks alone")
        tasks = one_each(task, len(questions), "tasks")
        numbers = numbers_of_images(about, len(questions), len(self._images))
        answers: dict[int, Segmentation] = {}
        for number, image in enumerate(self._images):
            places = [place for place, other in enumerate(numbers) if other == number]
            if places:
                some = self._answers(image, [questions[i] for i in places], [tasks[i] for i in places], return_logits)
                answers.update(zip(places, some, strict=True))
        return [answers[place] for place in range(len(questions))]

    def _answers(
        self, image: np.ndarray, questions: list[str], tasks: list[Any], return_logits: bool
    ) -> Iterator[Segmentation]:
        height, width = image.shape[:2]
        size = usual_batch_size(self.facts.device, self.tile_size)
        tile_pass = TilePass(self.segmenter, questions, tasks, size)
        rows = rows_of_tiles(plan_tiles(height, width, self.tile_size, self.overlap))
        whole = Window(0, 0, height, width)
        tiles = tile_pass.over(((tile, image[tile.slices_in(whole)]) for tile in row) for row in rows)
        evidence = np.empty((len(questions), height, width), np.float32)
        for strip in blended(tiles, whole, (height, width), self.overlap, len(questions)):
            evidence[:, strip.window.top : strip.window.bottom] = strip.logits
        told = zip(questions, evidence, tile_pass.presence, tile_pass.unknown_words, strict=True)
        for question, logits, presence, unknown in told:
            decision = decide(torch.from_numpy(logits), float(presence), self.facts.deciding, of_tiles=True)
            yield Segmentation(
                question,
                decision.mask.numpy(),
                decision.score,
                decision.present,
                float(presence),
                logits=logits if return_logits else None,
                unknown_words=unknown,
            )
