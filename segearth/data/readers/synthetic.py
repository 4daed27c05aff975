"""Synthetic overhead images with exact annotations, as a data set; ``drawing.py`` draws them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.data.questions.annotation import AnnotatedDataset, AnnotatedImage
from segearth.data.questions.builder import BuilderSettings, ExpressionBuilder
from segearth.data.questions.table import load_table
from segearth.data.readers.drawing import draw_image
from segearth.data.readers.textures import TextureBank
from segearth.errors import DatasetError, UnknownNameError
from segearth.structures import Sample

KEPT_PIXELS = 2**24  # drawn images with so many pixels in all are kept in memory: 256 images of 256 x 256


class SyntheticDataset(SegmentationDataset):
    """Images drawn from a seed; the same index always gives the same image and questions."""

    name = "synthetic"
    licence = "Apache-2.0 (drawn by this library)"
    tree: ClassVar[str] = "(no files: images are drawn)"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        length: int = 64,
        size: int = 256,
        seed: int = 0,
        max_questions: int = 8,
        table: str | Path | Sequence[str | Path] = (),
        textures: str | None = None,
    ) -> None:
        """Prepares images; no file is read.

        Args:
            root: Ignored; every data set has this argument, so that all can be opened in the same way.
            split: ``"train"``, ``"val"`` or ``"test"``; splits have different images.
            length: Number of images.
            size: Side of the square images in pixels, at least 64.
            seed: Decides the images.
            max_questions: The most questions of an image.
            table: Files with words and needs of your own, added to the built-in ones; see ``docs/expressions.md``.
            textures: Name of an annotated data set that needs no root, such as ``"aerial_mini"``. Objects are filled
                with patches cut out of its training split. By default each object has one colour.

        Raises:
            UnknownNameError: The split does not exist.
            ConfigError: A table is missing or not as described.
            DatasetError: ``textures`` names a data set without annotations.
        """
        if split not in self.splits:
            raise UnknownNameError(f"{self.name} split", split, self.splits)
        self.root, self.split, self.strict = Path(root or "."), split, True
        self.problems = []
        self.length, self.size, self.seed = length, size, seed
        self.table = load_table(table)
        self._builder = ExpressionBuilder(self.table, BuilderSettings(max_questions=max_questions))
        self._textures = _textures_of(textures) if textures else None
        self._kept: OrderedDict[int, tuple[np.ndarray, AnnotatedImage]] = OrderedDict()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        image, annotated = self.image(index), self.annotated(index)
        questions = self._builder.build(annotated, self._rng(index, 1))
        for number, question in enumerate(questions):
            question.id = f"{index}-{number}"
        return Sample(str(index), image, questions, meta={"source": self.name})

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns ``(size, size)``."""
        del index
        return self.size, self.size

    def image(self, index: int) -> np.ndarray:
        """Returns image ``index`` as ``uint8`` RGB of shape ``(size, size, 3)``."""
        return self._drawn(index)[0].copy()  # a copy, since the image is kept and callers may change theirs

    def annotated(self, index: int) -> AnnotatedImage:
        """Returns the annotation of image ``index``."""
        return self._drawn(index)[1]

    def _drawn(self, index: int) -> tuple[np.ndarray, AnnotatedImage]:
        if index not in self._kept:  # images are kept, since drawing takes longer than the rest of a training view
            while len(self._kept) >= max(1, KEPT_PIXELS // self.size**2):
                self._kept.popitem(last=False)
            self._kept[index] = draw_image(self._rng(index, 0), self.size, self._textures)
        return self._kept[index]

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} images")
        return np.random.default_rng([self.seed, self.splits.index(self.split), index, stream])


def _textures_of(name: str) -> TextureBank:
    from segearth.data.registry import build_dataset

    dataset = build_dataset(name, None, "train")
    if not isinstance(dataset, AnnotatedDataset):
        raise DatasetError(f"synthetic: textures cannot be cut from {name}, which has no annotated objects")
    return TextureBank.cut(dataset)
