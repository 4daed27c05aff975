"""Many users, one segmenter: questions wait for each other, and each is answered about its own user's picture."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segearth.errors import QuestionError
from segearth.geo.tiling import plan_tiles
from segearth.inference.tiled import TiledSegmenter, Way, way_of
from segearth.segmenter import Segmenter
from segearth.structures import Region, Segmentation, Task
from segearth.web.uploads import Picture

MOST_QUESTIONS = 16  # of one request; each answer holds a mask of the picture's size
MOST_LETTERS = 500  # of one question
MOST_TILES = 150  # times questions of a request: of one question some 4,500 px a side for tiles of 512; others wait


class Asker:
    """Puts questions to a segmenter, one user at a time.

    A segmenter holds the picture that was set last. So picture and questions come here together: a user can never be
    answered about the picture that another has set in between. As long as the same picture is asked about, it is
    encoded once, unless it is so large that it is looked at in tiles: these are encoded for each request.

    Attributes:
        name: What the segmenter is called, for answers and pages.
        tiles: Whether large pictures are looked at in tiles where the question allows.
    """

    def __init__(self, segmenter: Segmenter, name: str, tiles: bool = True) -> None:
        """Takes a segmenter, which nobody else may use from now on.

        Args:
            segmenter: Any.
            name: What it is called.
            tiles: See the class.
        """
        self.name, self.tiles = name, tiles
        self._segmenter, self._tiled = segmenter, TiledSegmenter(segmenter)
        self._lock = threading.Lock()
        self._digest: str | None = None  # of the picture that is set

    def ask(
        self, picture: Picture, questions: Sequence[str], *, task: Task = "referring", answer: bool = False
    ) -> list[Segmentation]:
        """Answers questions about a picture; waits until those before it are answered.

        Args:
            picture: What they are about.
            questions: At least one; space around them is cut off.
            task: ``"referring"`` or ``"reasoning"``, or another that the segmenter knows.
            answer: Also answer in words, if the segmenter can.

        Returns:
            The answers, in the order of the questions.

        Raises:
            QuestionError: There is no question, there are too many, or one is empty or too long.
            ImageError: The segmenter cannot take the picture.
            UnknownNameError: The segmenter does not know the task.
        """
        texts = checked_questions(questions)
        ways = zip(texts, self.ways_of(picture, texts, answer), strict=True)
        of_tiles = [text for text, way in ways if way == "tiles"]
        others = [text for text in texts if text not in of_tiles]
        found: dict[str, Segmentation] = {}
        with self._lock:
            if others:
                if self._digest != picture.digest:
                    self._digest = None  # if the next line fails, nothing is set
                    self._segmenter.set_image(picture.pixels)
                    self._digest = picture.digest
                found.update(zip(others, self._segmenter.predict(others, task=task, answer=answer), strict=True))
            if of_tiles:
                self._digest = None  # the last tile is what is set then
                self._tiled.set_image(picture.pixels)
                found.update(zip(of_tiles, self._tiled.predict(of_tiles, task=task), strict=True))
                self._tiled.set_images([])  # else the picture stays in memory
        answers = [found[text] for text in texts]
        return answers if picture.valid is None else [without(each, picture.valid) for each in answers]

    def ways_of(self, picture: Picture, questions: Sequence[str], answer: bool = False) -> list[Way]:
        """Returns how a picture is looked at for each question: see :func:`segearth.inference.tiled.way_of`.

        Args:
            picture: What they are about.
            questions: Asked together.
            answer: Whether in words too, which a tile could only give about itself: then the picture is shrunk, as it
                is where tiles times questions are more than :data:`MOST_TILES`.
        """
        height, width = picture.pixels.shape[:2]
        ways = [way_of(self._segmenter, height, width, question.strip()) for question in questions]
        if "tiles" in ways:
            count = len(plan_tiles(height, width, self._tiled.tile_size, self._tiled.overlap)) * ways.count("tiles")
            if not self.tiles or answer or count > MOST_TILES:
                return ["shrunk" if way == "tiles" else way for way in ways]
        return ways


def without(answer: Segmentation, valid: np.ndarray) -> Segmentation:
    """Returns an answer without the pixels of a picture that hold no data, of which nothing can be known.

    Args:
        answer: About the picture.
        valid: Boolean ``(H, W)``: where it holds something.

    Returns:
        A mask cut to it. If nothing is left, the thing is not there.
    """
    mask = answer.mask & valid
    there = answer.present and bool(mask.any())
    regions = answer.given_regions
    if regions is not None:
        cut = [(each, each.mask & valid[each.box[1] : each.box[3], each.box[0] : each.box[2]]) for each in regions]
        regions = tuple(_smaller(each, left) for each, left in cut if left.any())
    return replace(answer, mask=mask, present=there, score=answer.score if there else 0.0, given_regions=regions)


def _smaller(region: Region, left: np.ndarray) -> Region:
    """Returns a region of which only the pixels in ``left``, as large as its bitmap, are kept: its box is theirs."""
    kept = Region.cut_from(left, region.score)
    return replace(kept, x0=region.x0 + kept.x0, y0=region.y0 + kept.y0)


def checked_questions(questions: Sequence[str]) -> list[str]:
    """Returns the questions without the space around them.

    Raises:
        QuestionError: There is none, there are more than :data:`MOST_QUESTIONS`, or one is empty or longer than
            :data:`MOST_LETTERS`.
    """
    texts = [question.strip() for question in questions]
    if not texts or not all(texts):
        raise QuestionError("a question is empty; write what to look for, such as: the buildings")
    if len(texts) > MOST_QUESTIONS:
        raise QuestionError(f"{len(texts)} questions at once, at most {MOST_QUESTIONS} are taken; ask in several turns")
    if (longest := max(map(len, texts))) > MOST_LETTERS:
        raise QuestionError(f"a question has {longest} letters, at most {MOST_LETTERS} are taken; shorten it")
    return texts
