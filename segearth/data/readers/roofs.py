"""The simplest drawn scenes: a few roofs of different colours on bare ground, and questions that name one.

For experiments with models of a few hundred thousand parameters. Everything that one must do to answer is there: find
the colour that the question names among others, and say where it lies and how large it is. Nothing else is.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject, Box
from segearth.errors import ConfigError, UnknownNameError
from segearth.structures import Question, Region, Regions, Sample

COLOURS = {
    "red": (200, 60, 50), "blue": (60, 90, 200), "green": (60, 160, 70), "yellow": (210, 200, 70),
    "white": (225, 225, 225), "black": (40, 40, 40),
}  # fmt: skip
GROUND = (130, 120, 100)
TRIES = 30  # places that are tried for a roof before it is left out
SMALLEST_SIDE = 16  # pixels of an image; below it roofs have no room
SMALLEST_ROOF = 1 / SMALLEST_SIDE  # of an image's side, so that every roof has a pixel


class RoofsDataset(SegmentationDataset):
    """Images drawn from a seed; the same index always gives the same image and questions."""

    name = "roofs"
    licence = "Apache-2.0 (drawn by this library)"
    tree: ClassVar[str] = "(no files: images are drawn)"

    def __init__(
        self, root: str | Path | None = None, split: str = "train", length: int = 64, size: int = 64, seed: int = 0,
        most: int = 3, smallest: float = 0.125, largest: float = 0.4,
    ) -> None:  # fmt: skip
        """Prepares images; no file is read.

        Args:
            root: Ignored; every data set has this argument, so that all can be opened in the same way.
            split: ``"train"``, ``"val"`` or ``"test"``; splits have different images.
            length: Number of images.
            size: Side of the square images in pixels, at least 16.
            seed: Decides the images.
            most: The most roofs of an image, 1 to 6; the least is one, so that some questions need no colour: where
                things lie is learned from these first.
            smallest: Least side of a roof as a share of the image's, from 1/16 on.
            largest: Their greatest side, which is just not reached; with ``smallest`` it stands for the resolution.

        Raises:
            UnknownNameError: The split does not exist.
            ConfigError: A size or a number is out of range.
        """
        if split not in self.splits:
            raise UnknownNameError(f"{self.name} split", split, self.splits)
        if size < SMALLEST_SIDE or not 1 <= most <= len(COLOURS):
            raise ConfigError(f"roofs: size {size}, most {most}; give at least {SMALLEST_SIDE} and 1 to {len(COLOURS)}")
        if not SMALLEST_ROOF <= smallest < largest <= 1 or int(smallest * size) >= int(largest * size):
            raise ConfigError(f"roofs: sides from {smallest} to {largest} of the image's; give 1/16 to 1, least first")
        self.root, self.split, self.strict = Path(root or "."), split, True
        self.problems = []
        self.length, self.size, self.seed, self.most = length, size, seed, most
        self.sides = int(smallest * size), int(largest * size)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        image, annotated = self._drawn(index)
        questions = []
        for number, item in enumerate(annotated.objects):
            region = Region(item.mask, *item.box[:2])
            target = Regions(region.in_image(self.size, self.size), (region,))
            text = f"the {item.category}"
            questions.append(Question(text, id=f"{index}-{number}", kind="attribute", target=target))
        return Sample(str(index), image, questions, meta={"source": self.name})

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns ``(size, size)``."""
        del index
        return self.size, self.size

    def annotated(self, index: int) -> AnnotatedImage:
        """Returns the roofs of image ``index``; the colour is part of a roof's class."""
        return self._drawn(index)[1]

    def _drawn(self, index: int) -> tuple[np.ndarray, AnnotatedImage]:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} images")
        rng = np.random.default_rng([self.seed, self.splits.index(self.split), index])
        size = self.size
        image = np.full((size, size, 3), GROUND, np.float64) + rng.normal(0, 12, 3)
        taken = np.zeros((size, size), bool)
        objects: list[AnnotatedObject] = []
        for colour in list(rng.permutation(list(COLOURS)))[: rng.integers(1, self.most + 1)]:
            if (box := self._free_place(taken, rng)) is None:
                continue
            x0, y0, x1, y1 = box
            taken[y0:y1, x0:x1] = True
            image[y0:y1, x0:x1] = np.array(COLOURS[str(colour)]) + rng.normal(0, 10, 3)
            mask = np.ones((y1 - y0, x1 - x0), bool)
            objects.append(AnnotatedObject(len(objects), f"{colour} roof", mask, box))
        image += rng.normal(0, 6, image.shape)
        known = frozenset(f"{colour} roof" for colour in COLOURS)
        annotated = AnnotatedImage(size, size, objects, known, source=self.name)
        return np.clip(image, 0, 255).astype(np.uint8), annotated

    def _free_place(self, taken: np.ndarray, rng: np.random.Generator) -> Box | None:
        """Returns a box that keeps a pixel away from the others; ``None`` if none of the places tried does."""
        for _ in range(TRIES):
            width, height = (int(side) for side in rng.integers(*self.sides, 2))
            x0, y0 = int(rng.integers(0, self.size - width + 1)), int(rng.integers(0, self.size - height + 1))
            x1, y1 = x0 + width, y0 + height
            if not taken[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1].any():
                return x0, y0, x1, y1
        return None
