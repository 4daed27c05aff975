"""The one interface every data set has: an indexable list of images, each with all its questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from segearth.errors import DatasetError, UnknownNameError, missing_entry
from segearth.structures import Sample
from segearth.utils.files import image_size


class SegmentationDataset(ABC):
    """Images with questions and masks, from one folder in one layout.

    Subclasses state their facts as class attributes and implement :meth:`__len__` and :meth:`__getitem__`. Reading is
    lazy: construction lists and pairs files by id, indexing decodes one image.

    Attributes:
        name: The name in :data:`segearth.data.registry.DATASETS`.
        splits: Legal values of ``split``.
        parts: From a split to those that are parts of it; others share no image.
        is_format: Whether the name is that of a format, in which anybody's images may come, and not of one set of them.
        tree: The expected layout, printed when an entry is missing.
        licence: Licence of the data, for reports.
        homepage: Where the data set is published.
        problems: What construction found missing or wrong; always empty unless ``strict`` is off.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    parts: ClassVar[dict[str, tuple[str, ...]]] = {}
    is_format: ClassVar[bool] = False
    tree: ClassVar[str]
    licence: ClassVar[str] = "unknown"
    homepage: ClassVar[str] = ""

    def __init__(self, root: str | Path, split: str, strict: bool = True) -> None:
        """Opens one split.

        Args:
            root: Folder that holds the layout shown in :attr:`tree`.
            split: One of :attr:`splits`.
            strict: The first problem is an error; if off, it is noted in :attr:`problems` and the entry left out, which
                is how :func:`segearth.data.verify.verify_split` sees all of them.

        Raises:
            UnknownNameError: The split does not exist.
            DatasetError: The folder or an entry of the layout is missing.
        """
        if split not in self.splits:
            raise UnknownNameError(f"{self.name} split", split, self.splits)
        self.root, self.split, self.strict = Path(root), split, strict
        self.problems: list[str] = []
        if not self.root.is_dir():
            raise missing_entry(self.root, ".", self.tree, self.name)

    @classmethod
    def splits_in(cls, root: str | Path) -> tuple[str, ...]:
        """Returns the splits one may expect under ``root``: all, unless the layout leaves some to the user."""
        return cls.splits

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Decodes image ``index`` with all its questions and masks at the image's own size."""

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of image ``index``; where there is a file for it, only the file's head is read."""
        path = self._image_path(index)
        if path is not None:
            return image_size(path)
        height, width = self[index].image.shape[:2]
        return height, width

    def _image_path(self, index: int) -> Path | None:
        """The file of image ``index``, for data sets that have one an image."""
        del index
        return None

    def source_of(self, index: int) -> str:
        """Where image ``index`` is from, told without reading it; one answer for all where it is not known."""
        return self.name

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def require(self, relative: str | Path) -> Path:
        """Returns ``root / relative``, or raises the error that prints the expected tree if it does not exist."""
        path = self.root / relative
        if not path.exists():
            raise missing_entry(self.root, relative, self.tree, self.name)
        return path

    def require_folder(self, relative: str | Path) -> Path:
        """Returns the folder ``root / relative``, or raises the error that prints the expected tree."""
        path = self.require(relative)
        if not path.is_dir():
            raise DatasetError(f"{self.name}: {path} must be a folder\nexpected:\n{self.tree.rstrip()}")
        return path

    def note(self, problem: DatasetError) -> None:
        """Raises ``problem`` if the data set is strict, else keeps its first line in :attr:`problems`."""
        if self.strict:
            raise problem
        self.problems.append(str(problem).splitlines()[0])

    def nothing_usable(self, what: str) -> DatasetError:
        """Returns the error for a split of which nothing is left; it carries the problems that were noted.

        Args:
            what: Says where nothing was found.
        """
        wrong = f" ({len(self.problems)} wrong)" if self.problems else ""
        return DatasetError(f"{what}{wrong}\nexpected:\n{self.tree.rstrip()}", self.problems)

    def note_missing(self, relative: str | Path) -> None:
        """Notes that ``root / relative``, which another entry needs, does not exist."""
        self.note(missing_entry(self.root, relative, self.tree, self.name))


def check_mask(mask: np.ndarray, image: np.ndarray, mask_path: object, image_path: object) -> np.ndarray:
    """Returns ``mask`` as ``bool`` after checking that it has the image's size.

    Args:
        mask: ``(H, W)`` array; non-zero means target.
        image: ``(H, W, 3)`` array.
        mask_path: Named in the error.
        image_path: Named in the error.

    Raises:
        DatasetError: The sizes differ.
    """
    if mask.shape[:2] != image.shape[:2]:
        (mh, mw), (ih, iw) = mask.shape[:2], image.shape[:2]
        raise DatasetError(f"mask {mask_path} is {mw}x{mh} but image {image_path} is {iw}x{ih}; sizes must be equal")
    return mask.astype(bool)
